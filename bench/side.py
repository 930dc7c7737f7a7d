"""What every system that is measured can do, under the same names.

A *place* is where one corpus lives: a project, a table, a collection.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from bench.corpus import TOP, Corpus, Matrix, recall
from bench.load import Opener, ask_all

EF_SEARCH = (20, 40, 60, 80, 100, 150, 200)
TARGET_RECALL = 0.95
BATCH = 1_000


class Unavailable(Exception):
    """Something cannot be measured here; the text says why."""


class Side(ABC):
    """One of the systems."""

    name: str

    @abstractmethod
    def create(self, name: str, dimensions: int) -> str:
        """Make an empty place."""

    @abstractmethod
    def batches(self, corpus: Corpus) -> Sequence[Any]:
        """Encode the whole corpus as uploads."""

    @abstractmethod
    def uploader(self, place: str) -> Opener:
        """Return how a client uploads batches and has each acknowledged."""

    @abstractmethod
    def settle(self, place: str) -> None:
        """Wait until, or see to it that, the index holds what was uploaded."""

    @abstractmethod
    def questions(
        self, queries: Matrix, where: Mapping[str, object] | None = None
    ) -> Sequence[Any]:
        """Encode searches for the ten nearest, among what has these metadata."""

    @abstractmethod
    def searcher(self, place: str) -> Opener:
        """Return how a client searches."""

    @abstractmethod
    def found(self, answer: Any) -> list[str]:
        """Return the ids in an answer."""

    @abstractmethod
    def set_ef_search(self, place: str, ef_search: int) -> None:
        """Have searches look at this many candidates."""

    @abstractmethod
    def drop(self, place: str) -> None:
        """Delete a place."""

    def load(self, place: str, corpus: Corpus) -> None:
        """Upload a corpus, quickly, and have it indexed."""
        ask_all(self.uploader(place), self.batches(corpus))
        self.settle(place)

    def recall(
        self,
        place: str,
        queries: Matrix,
        truth: Sequence[Sequence[str]],
        where: Mapping[str, object] | None = None,
    ) -> tuple[float, int]:
        """Return recall@10, and how many answers were shorter than they could be."""
        answers = ask_all(self.searcher(place), self.questions(queries, where)).answers
        found = [self.found(answers[number]) for number in range(len(queries))]
        short = sum(len(one) < len(other) for one, other in zip(found, truth, strict=True))
        return recall([ids[:TOP] for ids in found], truth), short

    def choose_ef_search(self, place: str, corpus: Corpus) -> tuple[int | None, float]:
        """Set the smallest ef_search that reaches the recall asked for; return it and the recall.

        None for a side whose searches have no such setting.
        """
        reached = 0.0
        for ef_search in EF_SEARCH:
            try:
                self.set_ef_search(place, ef_search)
            except Unavailable:
                return None, self.recall(place, corpus.queries, corpus.truth)[0]
            reached, _ = self.recall(place, corpus.queries, corpus.truth)
            if reached >= TARGET_RECALL:
                break
        return ef_search, reached
