"""Is what was taken away refused from the very next request on, whichever worker gets it?"""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench.armarium import ACCOUNT, Armarium
from bench.keys import Keys
from bench.load import Ask, Opener, ask_beside
from bench.run import Bench
from bench.wire import Body, Connection

_ROWS = 1_000
_WARM, _FRESH = 4, 2
_CLIENTS_BESIDE = 2
_REFUSALS = {401, 403, 404}
_GUEST = "guest"
_KINDS = {
    "key": "key revoked (manage.py revokekey)",
    "account": "account deleted",
    "share": "share removed",
    "public": "public_read cleared",
}


@dataclass(frozen=True)
class _Trial:
    """What is revoked, and what is asked before and after."""

    kind: str
    number: int
    seed: int


@dataclass(frozen=True)
class _Outcome:
    """How many requests after a revocation were answered and should not have been."""

    kind: str
    asked: int
    violations: int


def run(bench: Bench) -> None:
    """Revoke in random order while others search, and ask at once on warm and fresh connections."""
    corpus = bench.data.narrow.slice(0, _ROWS)
    place = bench.ours.create("revocation", corpus.dimensions)
    bench.ours.load(place, corpus)
    guest_key = bench.ours.add_account(_GUEST)
    questions = bench.ours.questions(corpus.queries)
    chance = random.Random(2026)
    kinds = chance.choices(list(_KINDS), k=bench.sizes.trials)
    trials = [_Trial(kind, n, chance.randrange(2**32)) for n, kind in enumerate(kinds)]
    load, beside = ask_beside(
        (_reviser(bench.ours, place, guest_key, questions[0]), trials),
        (bench.ours.searcher(place), questions),
        clients=_CLIENTS_BESIDE,
    )
    outcomes = list(load.answers.values())
    asked, violations = Counter(), Counter()
    for outcome in outcomes:
        asked[outcome.kind] += outcome.asked
        violations[outcome.kind] += outcome.violations
    for kind, name in _KINDS.items():
        times = sum(outcome.kind == kind for outcome in outcomes)
        bench.report.figure(
            f"{name}: of {asked[kind]:,} requests after {times:,} trials, answered (must be 0) ↓",
            [violations[kind]],
        )
    bench.report.figure("searches/s of two clients beside it ↑", [beside.per_second])
    if violations.total():
        bench.report.failed = True
        bench.report.warn(f"{violations.total()} requests were answered after a revocation")


def _reviser(server: Armarium, place: str, guest_key: str, question: Body) -> Opener:
    @contextmanager
    def opened() -> Iterator[Ask]:
        with Keys(server.environment) as keys:
            trials = _Trials(server, place, keys, guest_key, question)
            yield trials.run

    return opened


class _Trials:
    """Grants, checks that it works, revokes, and checks that it does not any more."""

    def __init__(
        self, server: Armarium, place: str, keys: Keys, guest_key: str, question: Body
    ) -> None:
        self._server, self._keys, self._guest_key = server, keys, guest_key
        self._project = f"/v1/projects/{ACCOUNT}/{place}"
        self._requests = [
            ("POST", server.search_path(place), question),
            ("GET", self._project, None),
            ("GET", f"/v1/embeddings/{ACCOUNT}/{place}?limit=1", None),
        ]

    def run(self, trial: _Trial) -> _Outcome:
        """Run one trial; raise RuntimeError if what was granted is refused."""
        chance = random.Random(trial.seed)
        key, revoke = self._grant(trial)
        with ExitStack() as stack:
            warm = [self._connect(stack, key) for _ in range(_WARM)]
            before = [connection.request(*chance.choice(self._requests)) for connection in warm]
            if any(answer.status != 200 for answer in before):
                raise RuntimeError(f"{trial.kind}: granted, and refused: {before}")
            revoke()
            # A fresh connection is one that is opened now.
            ways = [*((lambda one=one: one) for one in warm)]
            ways += [lambda: self._connect(stack, key)] * _FRESH
            chance.shuffle(ways)
            after = [way().request(*chance.choice(self._requests)).status for way in ways]
        if trial.kind in {"key", "account"}:
            self._tidy(trial)
        unexpected = set(after) - _REFUSALS - {200}
        if unexpected:
            raise RuntimeError(f"{trial.kind}: neither answered nor refused: {after}")
        return _Outcome(trial.kind, len(after), after.count(200))

    def _grant(self, trial: _Trial) -> tuple[str | None, Callable[[], object]]:
        """Give somebody access; return their key and how to take the access away."""
        own = self._server.own
        if trial.kind == "public":
            own("PATCH", self._project, {"public_read": True})
            return None, lambda: own("PATCH", self._project, {"public_read": False})
        if trial.kind == "account":
            handle = f"guest-{trial.number}"
            key = self._server.add_account(handle)
            self._share(handle)
            return key, lambda: self._server.remove_account(handle)
        self._share(_GUEST)
        if trial.kind == "key":
            key = self._keys.create(_GUEST)
            return key, lambda: self._keys.revoke(key)
        return self._guest_key, lambda: own("DELETE", f"{self._project}/share/{_GUEST}")

    def _share(self, handle: str) -> None:
        wish = {"share_with_handle": handle, "role": "reader"}
        self._server.own("POST", f"{self._project}/share", wish)

    def _tidy(self, trial: _Trial) -> None:
        if trial.kind == "key":
            self._server.own("DELETE", f"{self._project}/share/{_GUEST}")

    def _connect(self, stack: ExitStack, key: str | None) -> Connection:
        return stack.enter_context(Connection(self._server.address, key=key))
