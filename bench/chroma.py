"""Chroma's own server, over its HTTP API (v2); nothing of it is imported."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from bench.corpus import TOP, Corpus, Matrix
from bench.load import PROCESSES, Ask, Opener
from bench.processes import Server, free_port
from bench.side import Side
from bench.wire import Answer, Body, Connection, as_json

_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"
# The server refuses bodies of more than 40 MiB.
_MAXIMUM_BODY = 30_000_000


class Chroma(Side):
    """A server of its own, stopped by `close`; its graphs have the same m and ef_construction."""

    name = "Chroma"

    def __init__(self, program: Path, folder: Path) -> None:
        self._program, self._folder = program, folder
        self._port = free_port()
        self._names: dict[str, str] = {}
        self._ef_search: dict[str, int] = {}
        self._start()
        with self._connection() as connection:
            checks = connection.expect(200, "GET", "/api/v2/pre-flight-checks").json()
        self.version = _version(program)
        self._maximum_batch = int(checks["max_batch_size"])

    def close(self) -> None:
        """Stop the server."""
        self._server.stop()

    def _start(self) -> None:
        command = [str(self._program), "run", "--path", str(self._folder / "chroma")]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        self._server = Server(command, self._folder / "chroma.log")
        self._server.wait_until(self._answers)

    def _answers(self) -> bool:
        with self._connection() as connection:
            return connection.request("GET", "/api/v2/heartbeat").status == 200

    def _connection(self) -> Connection:
        return Connection(("127.0.0.1", self._port))

    def create(self, name: str, dimensions: int) -> str:
        hnsw = {"space": "cosine", "ef_construction": 64, "max_neighbors": 16, "ef_search": 100}
        wish = as_json({"name": f"bench-{name}", "configuration": {"hnsw": hnsw}})
        with self._connection() as connection:
            made = connection.expect(200, "POST", _COLLECTIONS, wish).json()
        self._names[made["id"]] = made["name"]
        return str(made["id"])

    def batches(self, corpus: Corpus) -> Sequence[Body]:
        """Encode the corpus in batches as large as the server takes, one for each process at least.

        What is no scalar in the metadata becomes text, as Chroma wants it.
        """
        size = len(_records(corpus.slice(0, min(100, len(corpus)))).data) / min(100, len(corpus))
        rows = min(self._maximum_batch, int(_MAXIMUM_BODY / size), -(-len(corpus) // PROCESSES))
        starts = range(0, len(corpus), rows)
        return [_records(corpus.slice(start, start + rows)) for start in starts]

    def uploader(self, place: str) -> Opener:
        return self._opener(f"{_COLLECTIONS}/{place}/add", 201)

    def settle(self, place: str) -> None:
        """Ask once: records that are not in the index yet are added to it before a search."""
        with self._connection() as connection:
            count = connection.expect(200, "GET", f"{_COLLECTIONS}/{place}/count").json()
            sample = connection.expect(
                200,
                "POST",
                f"{_COLLECTIONS}/{place}/get",
                as_json({"limit": 1, "include": ["embeddings"]}),
            ).json()
        if count:
            with self.searcher(place)() as ask:
                ask(_query(sample["embeddings"][0], None))

    def questions(
        self, queries: Matrix, where: Mapping[str, object] | None = None
    ) -> Sequence[Body]:
        return [_query(query, where) for query in queries]

    def searcher(self, place: str) -> Opener:
        return self._opener(f"{_COLLECTIONS}/{place}/query", 200)

    def found(self, answer: Answer) -> list[str]:
        return list(answer.json()["ids"][0])

    def set_ef_search(self, place: str, ef_search: int) -> None:
        """Change the collection and start the server anew.

        An index that is loaded keeps the ef_search it was loaded with.
        """
        if self._ef_search.get(place) == ef_search:
            return
        change = as_json({"new_configuration": {"hnsw": {"ef_search": ef_search}}})
        with self._connection() as connection:
            connection.expect(200, "PUT", f"{_COLLECTIONS}/{place}", change)
        self._server.stop()
        self._start()
        self._ef_search[place] = ef_search

    def drop(self, place: str) -> None:
        with self._connection() as connection:
            connection.expect(200, "DELETE", f"{_COLLECTIONS}/{self._names.pop(place)}")

    def _opener(self, path: str, status: int) -> Opener:
        @contextmanager
        def opened() -> Iterator[Ask]:
            with self._connection() as connection:
                yield lambda body: connection.expect(status, "POST", path, body)

        return opened


def program(given: str | None) -> Path | None:
    """Return Chroma's executable: the one that is given, or that of this environment, or None."""
    if given:
        return Path(given)
    beside = Path(sys.executable).with_name("chroma")
    return beside if beside.exists() else None


def _version(program: Path) -> str:
    """Return the version of the package beside the executable; the server itself says another."""
    packages = program.parent.parent.glob("lib/python*/site-packages/chromadb-*.dist-info")
    return next((each.stem.split("-")[1] for each in packages), "")


def _query(vector: Any, where: Mapping[str, object] | None) -> Body:
    wish = {"query_embeddings": [vector], "n_results": TOP, "include": ["distances"]}
    return as_json(wish | ({"where": where} if where else {}))


def _records(corpus: Corpus) -> Body:
    return as_json(
        {
            "ids": list(corpus.ids),
            "embeddings": list(corpus.vectors),
            "documents": list(corpus.texts),
            "metadatas": [_flat(orjson.loads(text)) for text in corpus.metadata],
        }
    )


def _flat(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str | int | float) else orjson.dumps(value).decode()
        for name, value in metadata.items()
        if value is not None
    }
