"""How fast, and how well, are the ten nearest found?"""

from functools import partial

from bench.load import ask_for
from bench.run import Bench
from bench.side import TARGET_RECALL


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
            if (recalls[side.name] or 0) < TARGET_RECALL:
                bench.report.warn(f"{name}: {side.name} does not reach recall {TARGET_RECALL}")
        bench.report.note(f"ef_search in {name}: {', '.join(chosen)}.")
        for clients in (1, 8):
            loads = bench.rounds(
                {
                    side.name: partial(
                        ask_for,
                        bench.sizes.seconds,
                        side.searcher(places[side.name]),
                        side.questions(corpus.queries),
                        clients=clients,
                    )
                    for side in bench.sides
                }
            )
            what = f"{name}, {clients} client{'s' if clients > 1 else ''}"
            bench.latencies(what, loads, (50, 95), recalls=recalls)
            bench.figure(
                f"{what}, searches/s ↑",
                {side: [load.per_second for load in each] for side, each in loads.items()},
                recalls=recalls,
            )
        for side in bench.sides:
            side.drop(places[side.name])
