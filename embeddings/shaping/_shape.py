"""What a search may ask for besides the nearest texts. Knows no models and no SQL."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common import json
from embeddings.columns import Matrix
from embeddings.filters import Path, Scalar
from embeddings.store import Wanted

# Candidates that grouping and diversity choose from, so that pages fit together: a constant, not
# what one page needs.
MOST_CANDIDATES = 400
# As far as groups and diverse results go.
DEEPEST = 200
MAXIMUM_GROUP_SIZE = 10
MAXIMUM_PATHS = 10
MAXIMUM_EXAMPLES = 100
MAXIMUM_NEIGHBOURS = 20
# What one answer may hold: numbers of vectors, which are 40 MB of JSON, and texts or passages with
# fields or a context.
MOST_NUMBERS = 4 * 1024**2
MOST_TEXTS = 10_000


@dataclass(frozen=True)
class Grouping:
    """At most `size` results for each value at a path; `limit` and `offset` count the groups."""

    path: Path
    size: int


@dataclass(frozen=True)
class Fields:
    """What each result carries besides id and similarity.

    parts: the places in the metadata, None for all of it or none, as `metadata` says.
    """

    text: bool = False
    metadata: bool = False
    parts: tuple[Path, ...] | None = None
    vector: bool = False

    def __bool__(self) -> bool:
        return self.text or self.metadata or self.vector


@dataclass(frozen=True)
class Context:
    """The texts around each result in the order of the number at a path.

    within: among those only that share the value at this path.
    """

    path: Path
    before: int
    after: int
    within: Path | None = None


@dataclass(frozen=True)
class Shape:
    """How results are chosen and shown.

    exclude_same: leave out what has one of the query document's values at one of these paths.
    exclude_values: leave out what has one of these values there.
    diversity: 0 for the most similar only, 1 for the most different among the similar.
    """

    exclude_same: tuple[Path, ...] = ()
    exclude_values: Mapping[Path, tuple[Scalar, ...]] = field(default_factory=dict)
    grouping: Grouping | None = None
    diversity: float = 0.0
    fields: Fields = Fields()
    context: Context | None = None


@dataclass(frozen=True)
class Question:
    """A search, read from a request.

    vector: float32 of shape (dimensions,), None where there are words or examples.
    text: words to be embedded and searched for.
    positive, negative: the ids of stored texts that results should be like, and unlike.
    location: where it is in the request, such as ``body.queries[3]``.
    """

    wanted: Wanted
    shape: Shape = Shape()
    vector: Matrix | None = None
    text: str | None = None
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    location: str = "body"


def check_size(asked: Iterable[tuple[Wanted, Shape]], dimensions: int, *, location: str) -> None:
    """Refuse what would be too much for one answer: raise Invalid.

    location: of what is asked, in the request.
    """
    texts = numbers = 0
    for wanted, shape in asked:
        rows = wanted.limit * (shape.grouping.size if shape.grouping else 1)
        rows *= 1 + (shape.context.before + shape.context.after if shape.context else 0)
        texts += rows if shape.fields or shape.context else 0
        numbers += rows * dimensions if shape.fields.vector else 0
    if numbers > MOST_NUMBERS:
        raise json.invalid(
            location,
            f"This may be answered with {numbers} numbers, more than {MOST_NUMBERS}: leave vector "
            "out of fields, or ask for fewer results.",
        )
    if texts > MOST_TEXTS:
        raise json.invalid(
            location,
            f"This may be answered with {texts} texts, more than {MOST_TEXTS}: ask for fewer "
            "results, or for a smaller context.",
        )


@dataclass(frozen=True)
class Result:
    """One result of a shaped search.

    group: the value that it is grouped by, None without groups.
    carries: the fields that were asked for, ready for JSON.
    before, after: what is around it: text ids with the same fields, in their order.
    """

    text_id: str
    similarity: float
    group: Scalar = None
    carries: Mapping[str, Any] = field(default_factory=dict)
    before: tuple["Passage", ...] | None = None
    after: tuple["Passage", ...] | None = None


@dataclass(frozen=True)
class Passage:
    """A text around a result."""

    text_id: str
    carries: Mapping[str, Any] = field(default_factory=dict)
