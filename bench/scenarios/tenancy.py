"""Does a small project notice that it shares the server with thousands of others?"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from bench.armarium import ACCOUNT, Armarium, project
from bench.corpus import Corpus, nearest, recall
from bench.load import Ask, Opener, ask_all, ask_for
from bench.run import Bench, Sizes
from bench.wire import as_json

_SMALL = (100, 1_000)
_LARGE = 20_000
_SAMPLE = 200
_QUERIES = 3
_ROUNDS_OF_ALL = 4


@dataclass(frozen=True)
class Tenant:
    """A project: which rows of the corpus it holds, from where on."""

    handle: str
    first: int
    rows: int

    def part(self, corpus: Corpus) -> Corpus:
        """Return its rows, with ids of its own."""
        chosen = np.arange(self.first, self.first + self.rows) % len(corpus)
        return replace(
            corpus,
            ids=[f"{self.handle}:{number}" for number in range(self.rows)],
            texts=[corpus.texts[row] for row in chosen],
            metadata=[corpus.metadata[row] for row in chosen],
            vectors=corpus.vectors[chosen],
        )


def run(bench: Bench) -> None:
    """Fill a server with projects; compare one of them with its twin on a server of its own."""
    corpus, crowd = bench.data.narrow, bench.ours
    small, large = _tenants(bench.sizes, len(corpus))
    rows = sum(tenant.rows for tenant in [*small, *large])
    bench.report.note(
        f"tenancy: {len(small):,} small and {len(large)} large projects, {rows:,} rows."
    )
    folder = bench.folder / "alone"
    folder.mkdir()
    alone = Armarium(folder)
    try:
        _fill(bench, crowd, [*small, *large])
        _fill(bench, alone, small[:1])
        for tenant in large:
            crowd.settle(tenant.handle)
        for server in (crowd, alone):
            server.wait_until_quiet()
        _small_project(bench, alone, small[0])
    finally:
        alone.close()
    _recall(bench, small, "small")
    _recall(bench, large, "large")
    _connections(bench, [*small, *large])
    _deletion(bench, max(large, key=lambda tenant: tenant.rows))


def _tenants(sizes: Sizes, rows: int) -> tuple[list[Tenant], list[Tenant]]:
    chance = np.random.default_rng(7)
    numbers = chance.integers(*_SMALL, size=sizes.projects - sizes.large_projects, endpoint=True)
    smallest = min(_LARGE, sizes.large_rows // 2)
    larger = np.linspace(smallest, sizes.large_rows, sizes.large_projects).astype(int)
    firsts = chance.integers(rows, size=sizes.projects)
    tenants = [
        Tenant(f"tenant-{number}", int(first), int(count))
        for number, (first, count) in enumerate(zip(firsts, [*numbers, *larger], strict=True))
    ]
    return tenants[: len(numbers)], tenants[len(numbers) :]


def _fill(bench: Bench, server: Armarium, tenants: Sequence[Tenant]) -> None:
    corpus = bench.data.narrow
    server.add_service(corpus.dimensions)
    path = f"/v1/projects/{ACCOUNT}"
    wishes = [as_json(project(tenant.handle, corpus.dimensions)) for tenant in tenants]
    ask_all(server.requester(), [(201, "POST", path, wish) for wish in wishes])
    began = time.perf_counter()
    ask_all(_loader(server, corpus), tenants)
    if len(tenants) > 1:
        rows = sum(tenant.rows for tenant in tenants)
        rate = rows / (time.perf_counter() - began)
        bench.report.figure("loading all, encoding included, rows/s ↑", [rate])


def _loader(server: Armarium, corpus: Corpus) -> Opener:
    # Asked here, so that not every client finds out for itself.
    format = server.fastest_format()

    @contextmanager
    def opened() -> Iterator[Ask]:
        with server.requester()() as ask:

            def load(tenant: Tenant) -> None:
                path = f"/v1/embeddings/{ACCOUNT}/{tenant.handle}"
                for body in server.encoded(tenant.part(corpus), format):
                    ask((201, "POST", path, body))

            yield load

    return opened


def _small_project(bench: Bench, alone: Armarium, tenant: Tenant) -> None:
    corpus = bench.data.narrow
    part = tenant.part(corpus)
    place = bench.raw.create("tenancy", corpus.dimensions)
    ask_all(bench.raw.uploader(place), bench.raw.batches(part))
    bench.raw.tidy(place)
    for clients in (1, 8):
        loads = bench.rounds(
            {
                name: partial(
                    ask_for,
                    bench.sizes.seconds,
                    side.searcher(where),
                    side.questions(corpus.queries),
                    clients=clients,
                )
                for name, side, where in (
                    (bench.ours.name, bench.ours, tenant.handle),
                    (bench.raw.name, bench.raw, place),
                    ("alone", alone, tenant.handle),
                )
            }
        )
        lonely = loads.pop("alone")
        what = f"one project of {tenant.rows} rows, {clients} client{'s' if clients > 1 else ''}"
        bench.latencies(f"{what}, among all", loads, (50, 95))
        bench.latencies(f"{what}, alone", {bench.ours.name: lonely}, (50, 95))
        bench.report.figure(
            f"{what}, p95 among all ÷ alone ↓",
            [
                one.percentile_ms(95) / other.percentile_ms(95)
                for one, other in zip(loads[bench.ours.name], lonely, strict=True)
            ],
        )
    bench.raw.drop(place)


def _recall(bench: Bench, tenants: Sequence[Tenant], name: str) -> None:
    corpus = bench.data.narrow
    sample = tenants[:: max(1, len(tenants) // _SAMPLE)]
    requests, truth = [], []
    for number, tenant in enumerate(sample):
        first = number * _QUERIES % (len(corpus.queries) - _QUERIES)
        queries = corpus.queries[first : first + _QUERIES]
        part = tenant.part(corpus)
        for rows in nearest(part.vectors, queries):
            truth.append([part.ids[row] for row in rows])
        for question in bench.ours.questions(queries):
            requests.append((200, "POST", bench.ours.search_path(tenant.handle), question))
    load = ask_all(bench.ours.requester(), requests)
    found = [bench.ours.found(load.answers[number]) for number in range(len(requests))]
    must = " (must be 1)" if name == "small" else ""
    bench.report.figure(
        f"recall@10 in {len(sample)} {name} projects{must} ↑", [recall(found, truth)]
    )


def _connections(bench: Bench, tenants: Sequence[Tenant]) -> None:
    """Search all projects, over every connection to the database, and see what these hold."""
    questions = bench.ours.questions(bench.data.narrow.queries)
    before = bench.ours.connection_memory_mb()
    requests = [
        (200, "POST", bench.ours.search_path(tenant.handle), questions[number % len(questions)])
        for number, tenant in enumerate(tenants)
    ]
    load = ask_all(bench.ours.requester(), requests * _ROUNDS_OF_ALL, clients=8)
    after = bench.ours.connection_memory_mb()
    bench.report.figure(
        "searches across all projects, 8 clients, p95 ms ↓", [load.percentile_ms(95)]
    )
    bench.report.figure(
        "largest connection to the database before that, private MB ↓", [before[-1]]
    )
    bench.report.figure("largest connection to the database after that, private MB ↓", [after[-1]])


def _deletion(bench: Bench, tenant: Tenant) -> None:
    place = bench.raw.create("tenancy", bench.data.narrow.dimensions)
    part = tenant.part(bench.data.narrow)
    ask_all(bench.raw.uploader(place), bench.raw.batches(part))
    bench.raw.settle(place)
    bench.ours.wait_until_quiet()
    dead = _dead_rows(bench)
    began = time.perf_counter()
    bench.ours.drop(tenant.handle)
    ours = time.perf_counter() - began
    began = time.perf_counter()
    bench.raw.execute("DELETE FROM bench.tenancy")
    raw = time.perf_counter() - began
    bench.report.figure(f"deleting a project of {tenant.rows:,} rows, seconds ↓", [ours], [raw])
    bench.report.figure("dead rows that left behind ↓", [_most_dead_rows(bench) - dead])


def _most_dead_rows(bench: Bench) -> int:
    """Return the most dead rows that are told while everybody may report theirs.

    A connection that has become idle reports after ten seconds; vacuuming may follow soon.
    """
    counts = []
    for _ in range(24):
        time.sleep(0.5)
        counts.append(_dead_rows(bench))
    return max(counts)


def _dead_rows(bench: Bench) -> int:
    [(count,)] = bench.raw.execute(
        "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables"
        " WHERE schemaname = 'public' AND starts_with(relname, 'embeddings_embedding')"
    )
    return int(count)
