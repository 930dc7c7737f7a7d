"""Asks questions from two client processes at once and takes the times.

N clients are N threads, spread over the processes; one client is one process. Processes are forked,
so that they share the encoded questions instead of copying them, and all clients begin together.
"""

import gc
import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PROCESSES = 2
_WARM_UP = 5
_BEGIN_WITHIN_S = 300.0
_fork = multiprocessing.get_context("fork")

Ask = Callable[[Any], Any]
# Opens a client's own connection; gives the function that asks a question over it.
Opener = Callable[[], AbstractContextManager[Ask]]


class LoadFailed(Exception):
    """A client could not go on."""


@dataclass
class Load:
    """What a load measured.

    latencies: seconds of each question.
    answers: by the number of the question; only of questions that were asked once.
    """

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: dict[int, Any] = field(default_factory=dict)

    def percentile_ms(self, percent: float) -> float:
        """Return the time that this share of the questions took at most."""
        return float(np.percentile(self.latencies, percent)) * 1_000

    @property
    def per_second(self) -> float:
        """Return the answers a second of all clients together."""
        return len(self.latencies) / self.seconds


@dataclass
class _Client:
    """One client: the questions it asks, and for how long."""

    opener: Opener
    questions: Sequence[Any]
    first: int = 0
    step: int = 1
    seconds: float | None = None
    background: bool = False


def ask_all(opener: Opener, questions: Sequence[Any], *, clients: int = PROCESSES) -> Load:
    """Ask every question once; keep the answers."""
    asking = [_Client(opener, questions, number, clients) for number in range(clients)]
    return _merged(_run(_spread(asking)))


def ask_for(seconds: float, opener: Opener, questions: Sequence[Any], *, clients: int) -> Load:
    """Ask the questions round and round for some seconds, after a few to warm up."""
    share = len(questions) // clients
    asking = [_Client(opener, questions, n * share, seconds=seconds) for n in range(clients)]
    return _merged(_run(_spread(asking)))


def ask_beside(
    foreground: tuple[Opener, Sequence[Any]],
    background: tuple[Opener, Sequence[Any]],
    *,
    clients: int = 1,
) -> tuple[Load, Load]:
    """Ask all questions of one client once, while others in another process ask theirs."""
    others = [_Client(*background, background=True) for _ in range(clients)]
    first, *rest = _run([[_Client(*foreground)], others])
    return first, _merged(rest)


def _spread(clients: list[_Client]) -> list[list[_Client]]:
    return [clients[number::PROCESSES] for number in range(min(PROCESSES, len(clients)))]


def _run(groups: list[list[_Client]]) -> list[Load]:
    """Run a process for each group; return the loads of all clients, group by group."""
    barrier = _fork.Barrier(sum(map(len, groups)))
    finished = _fork.Event()
    children = []
    for clients in groups:
        receiver, sender = _fork.Pipe(duplex=False)
        process = _fork.Process(
            target=_process, args=(clients, barrier, finished, sender), daemon=True
        )
        process.start()
        sender.close()
        children.append((process, receiver))
    outcomes: list[Load | str] = []
    for process, receiver in children:
        try:
            outcomes += receiver.recv()
        except EOFError:
            process.join()
            outcomes.append(f"A client process ended with exit code {process.exitcode}.")
        process.join()
    problems = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if problems:
        # Those that waited for the first one to begin only say that the barrier broke.
        raise LoadFailed(max(problems, key=lambda text: "BrokenBarrier" not in text))
    return [outcome for outcome in outcomes if isinstance(outcome, Load)]


def _process(clients: list[_Client], barrier: Any, finished: Any, sender: Any) -> None:
    gc.disable()
    outcomes: list[Load | str] = ["not started"] * len(clients)

    def work(position: int) -> None:
        try:
            outcomes[position] = _work(clients[position], barrier, finished)
        except Exception:  # noqa: BLE001 - told to the parent, which raises it
            barrier.abort()
            outcomes[position] = traceback.format_exc()
        finally:
            if not clients[position].background:
                finished.set()

    threads = [threading.Thread(target=work, args=(each,)) for each in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sender.send(outcomes)


def _work(client: _Client, barrier: Any, finished: Any) -> Load:
    load = Load()
    total = len(client.questions)
    again = client.seconds is not None or client.background
    with client.opener() as ask:
        if again:
            for number in range(_WARM_UP):
                ask(client.questions[(client.first + number) % total])
        barrier.wait(_BEGIN_WITHIN_S)
        began = now = time.perf_counter()
        number = client.first
        while _goes_on(client, number, now - began, finished):
            answer = ask(client.questions[number % total])
            before, now = now, time.perf_counter()
            load.latencies.append(now - before)
            if not again:
                load.answers[number] = answer
            number += client.step
        load.seconds = now - began
    return load


def _goes_on(client: _Client, number: int, elapsed: float, finished: Any) -> bool:
    if client.background:
        return not finished.is_set()
    if client.seconds is not None:
        return elapsed < client.seconds
    return number < len(client.questions)


def _merged(loads: list[Load]) -> Load:
    whole = Load(seconds=max(load.seconds for load in loads))
    for load in loads:
        whole.latencies += load.latencies
        whole.answers |= load.answers
    return whole
