"""What the same PostgreSQL does without this program: binary COPY, prepared statements."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from typing import Any

import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.types.json import Jsonb

from bench.corpus import TOP, Corpus, Matrix
from bench.load import Ask, Opener
from bench.side import BATCH, Side
from config.embedded_postgres import ConnectionParameters

_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_COPY_END = struct.pack(">h", -1)


class Plan(Enum):
    """How a filtered search is run."""

    INDEX = "iterative scan"
    EXACT = "exact scan"


class Raw(Side):
    """Tables of our own beside those of the server.

    plan: with a filter, whether the vector index or that of the metadata leads.
    """

    name = "raw SQL"

    def __init__(self, parameters: ConnectionParameters, *, plan: Plan = Plan.INDEX) -> None:
        self._parameters = asdict(parameters)
        self.plan = plan
        self._ef_search: dict[str, int] = {}
        self.execute("CREATE SCHEMA IF NOT EXISTS bench")

    def planned(self, plan: Plan) -> "Raw":
        """Return the same tables, searched otherwise."""
        other = Raw.__new__(Raw)
        other._parameters, other._ef_search, other.plan = self._parameters, self._ef_search, plan
        return other

    def connect(self) -> psycopg.Connection[Any]:
        """Open a connection of one's own."""
        return psycopg.connect(**self._parameters, autocommit=True)

    def execute(self, statement: sql.Composable | str, *parameters: object) -> list[Any]:
        """Run a statement on a connection of its own; return its rows."""
        with self.connect() as connection:
            cursor = connection.execute(statement, parameters)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def create(self, name: str, dimensions: int) -> str:
        table = sql.Identifier("bench", name)
        self.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        self.execute(
            sql.SQL(
                'CREATE TABLE {} (project_id bigint, text_id varchar(300) COLLATE "C",'
                " vector vector, text text, metadata jsonb, UNIQUE (project_id, text_id))"
                " WITH (toast_tuple_target = 8160)"
            ).format(table)
        )
        return name

    def batches(self, corpus: Corpus) -> Sequence[bytes]:
        starts = range(0, len(corpus), BATCH)
        return [_copy_data(corpus.slice(start, start + BATCH)) for start in starts]

    def uploader(self, place: str) -> Opener:
        """COPY, one transaction for each batch."""
        statement = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(
            sql.Identifier("bench", place)
        )

        @contextmanager
        def opened() -> Iterator[Ask]:
            with self.connect() as connection:

                def upload(data: bytes) -> None:
                    with connection.cursor().copy(statement) as copy:
                        copy.write(data)

                yield upload

        return opened

    def settle(self, place: str) -> None:
        """Build the HNSW index, unless it is there."""
        table = sql.Identifier("bench", place)
        [(dimensions,)] = self.execute(
            sql.SQL("SELECT vector_dims(vector) FROM {} LIMIT 1").format(table)
        )
        self.execute(
            sql.SQL(
                "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw"
                " ((vector::halfvec({})) halfvec_cosine_ops) WITH (m = 16, ef_construction = 64)"
            ).format(sql.Identifier(f"{place}_hnsw"), table, sql.Literal(dimensions))
        )

    def tidy(self, place: str, *, metadata: bool = False) -> None:
        """VACUUM ANALYZE, and index the metadata if they are to be searched."""
        table = sql.Identifier("bench", place)
        if metadata:
            self.execute(
                sql.SQL("CREATE INDEX ON {} USING gin (metadata jsonb_path_ops)").format(table)
            )
        self.execute(sql.SQL("VACUUM ANALYZE {}").format(table))

    def questions(
        self, queries: Matrix, where: Mapping[str, object] | None = None
    ) -> Sequence[dict[str, object]]:
        number = Vector if where and self.plan is Plan.EXACT else HalfVector
        filters = {"where": Jsonb(dict(where))} if where else {}
        return [{"vector": number(query), **filters} for query in queries]

    def searcher(self, place: str) -> Opener:
        @contextmanager
        def opened() -> Iterator[Ask]:
            with self.connect() as connection:
                register_vector(connection)
                for setting in self._settings(place):
                    connection.execute(f"SET {setting}")
                statements: dict[bool, sql.Composed] = {}
                cursor = connection.cursor(binary=True)

                def search(question: dict[str, Any]) -> list[Any]:
                    filtered = "where" in question
                    if filtered not in statements:
                        statements[filtered] = self._search(place, question)
                    return cursor.execute(statements[filtered], question, prepare=True).fetchall()

                yield search

        return opened

    def _settings(self, place: str) -> list[str]:
        settings = [
            f"hnsw.ef_search = {self._ef_search.get(place, 100)}",
            "max_parallel_workers_per_gather = 0",
        ]
        if self.plan is Plan.INDEX:
            settings += [
                "hnsw.iterative_scan = relaxed_order",
                "hnsw.max_scan_tuples = 200000",
                "enable_seqscan = off",
                "enable_bitmapscan = off",
                "enable_sort = off",
            ]
        return settings

    def _search(self, place: str, question: dict[str, Any]) -> sql.Composed:
        parts = {
            "table": sql.Identifier("bench", place),
            "half": sql.SQL(f"halfvec({question['vector'].dimensions()})"),
            "top": sql.Literal(TOP),
        }
        if "where" not in question:
            statement = (
                "SELECT text_id, vector::{half} <=> %(vector)b::{half} FROM {table}"
                " ORDER BY 2 LIMIT {top}"
            )
        elif self.plan is Plan.EXACT:
            statement = (
                "WITH matching AS MATERIALIZED ("
                " SELECT text_id, vector FROM {table} WHERE metadata @> %(where)b)"
                " SELECT text_id, vector <=> %(vector)b FROM matching ORDER BY 2 LIMIT {top}"
            )
        else:
            statement = (
                "SELECT text_id, vector::{half} <=> %(vector)b::{half} FROM {table}"
                " WHERE metadata @> %(where)b ORDER BY 2 LIMIT {top}"
            )
        return sql.SQL(statement).format(**parts)

    def found(self, answer: list[Any]) -> list[str]:
        return [text_id for text_id, _ in answer]

    def set_ef_search(self, place: str, ef_search: int) -> None:
        self._ef_search[place] = ef_search

    def drop(self, place: str) -> None:
        self.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier("bench", place)))


def _copy_data(corpus: Corpus) -> bytes:
    dimensions = struct.pack(">HH", corpus.dimensions, 0)
    project = struct.pack(">q", 1)
    parts = [_COPY_HEAD]
    vectors = corpus.vectors.astype(">f4")
    rows = zip(corpus.ids, corpus.texts, corpus.metadata, vectors, strict=True)
    for text_id, text, metadata, vector in rows:
        fields = (
            project,
            text_id.encode(),
            dimensions + vector.tobytes(),
            text.encode(),
            b"\x01" + metadata.encode(),
        )
        parts.append(struct.pack(">h", len(fields)))
        for field in fields:
            parts += (struct.pack(">i", len(field)), field)
    return b"".join([*parts, _COPY_END])
