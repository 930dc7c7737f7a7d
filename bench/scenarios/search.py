"""How fast, and how well, are the ten nearest found?"""

from functools import partial

from bench.armarium import NO_INDEX
from bench.corpus import Corpus
from bench.load import Load, ask_for
from bench.run import Bench
from bench.side import TARGET_RECALL

_BASE64 = "base64 vectors"


def run(bench: Bench) -> None:
    """Search with one client and with eight, each side at the same recall."""
    for corpus in (bench.data.narrow, bench.data.wide):
        name = f"{len(corpus):,} x {corpus.dimensions}"
        places = {side.name: side.create("search", corpus.dimensions) for side in bench.sides}
        recalls: dict[str, float | None] = {}
        chosen = []
        for side in bench.sides:
            side.load(places[side.name], corpus)
        bench.raw.tidy(places[bench.raw.name])
        bench.ours.wait_until_quiet()
        for side in bench.sides:
            ef_search, recalls[side.name] = side.choose_ef_search(places[side.name], corpus)
            chosen.append(f"{side.name} {ef_search or 'exact'}")
            if ef_search is None:
                bench.report.note(NO_INDEX)
            if (recalls[side.name] or 0) < TARGET_RECALL:
                bench.report.warn(f"{name}: {side.name} does not reach recall {TARGET_RECALL}")
        bench.report.note(f"ef_search in {name}: {', '.join(chosen)}.")
        for clients in (1, 8):
            what = f"{name}, {clients} client{'s' if clients > 1 else ''}"
            _measure(bench, what, corpus, places, recalls, clients)
        for side in bench.sides:
            side.drop(places[side.name])


def _measure(
    bench: Bench,
    what: str,
    corpus: Corpus,
    places: dict[str, str],
    recalls: dict[str, float | None],
    clients: int,
) -> None:
    questions = {side.name: side.questions(corpus.queries) for side in bench.sides}
    searchers = {side.name: side.searcher(places[side.name]) for side in bench.sides}
    if bench.ours.reads_base64_searches(places[bench.ours.name], corpus.queries[0]):
        questions[_BASE64] = bench.ours.base64_questions(corpus.queries)
        searchers[_BASE64] = searchers[bench.ours.name]
    loads = bench.rounds(
        {
            name: partial(
                ask_for, bench.sizes.seconds, searchers[name], questions[name], clients=clients
            )
            for name in searchers
        }
    )
    base64 = loads.pop(_BASE64, None)
    _report(bench, what, loads, recalls)
    if base64:
        _report(bench, f"{what}, {_BASE64}", {**loads, bench.ours.name: base64}, recalls)


def _report(
    bench: Bench, what: str, loads: dict[str, list[Load]], recalls: dict[str, float | None]
) -> None:
    bench.latencies(what, loads, (50, 95), recalls=recalls)
    bench.figure(
        f"{what}, searches/s ↑",
        {side: [load.per_second for load in each] for side, each in loads.items()},
        recalls=recalls,
    )
