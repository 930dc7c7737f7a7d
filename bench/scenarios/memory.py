"""How large does a web worker become when eight clients send the largest batches at once?

What a worker holds before, and at its peak, is a row of every scenario.
"""

from bench.armarium import ACCOUNT
from bench.load import ask_all
from bench.run import Bench

_LARGEST_BODY = 48_000_000
_LARGEST_BATCH = 5_000
_CLIENTS = 8


def run(bench: Bench) -> None:
    """Upload the largest batch that the server takes, in each format, eight times at once."""
    corpus = bench.data.wide
    for format in bench.ours.formats():
        [sample] = bench.ours.encoded(corpus.slice(0, 100), format)
        rows = min(_LARGEST_BATCH, len(corpus), int(_LARGEST_BODY / len(sample.data) * 100))
        [body] = bench.ours.encoded(corpus.slice(0, rows), format, rows)
        places = [bench.ours.create("memory", corpus.dimensions) for _ in range(_CLIENTS)]
        uploads = [(201, "POST", f"/v1/embeddings/{ACCOUNT}/{place}", body) for place in places]
        load = ask_all(bench.ours.requester(), uploads, clients=_CLIENTS)
        name = f"{_CLIENTS} x {rows:,} rows of {format}, {len(body.data) / 1e6:.0f} MB each"
        bench.report.figure(f"{name}, seconds ↓", [load.seconds])
        bench.report.figure(f"{name}, a worker's peak so far, MB ↓", [bench.ours.peak_memory_mb()])
        for place in places:
            bench.ours.drop(place)
