"""Shapes of searches that ask for more than the nearest texts; `docs/results.md`."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import simdjson
from rest_framework import serializers

from common import json
from common.errors import FieldError, Invalid
from common.fields import Flag, JsonObject, QueryDecimal, QueryNumber, Text, WholeNumber
from common.problems import as_domain_error
from common.query import DEFAULT_LIMIT, MAXIMUM_LIMIT, MAXIMUM_OFFSET, Query
from embeddings import batches, filters
from embeddings.api.hybrid_serializers import WordsModeQuery
from embeddings.api.index_serializers import JsonNumber
from embeddings.api.serializers import (
    DEFAULT_THRESHOLD,
    DEFAULT_THRESHOLD_FOR_WORDS,
    HitOut,
    SearchIn,
    SimilarQuery,
    wanted,
)
from embeddings.columns import MAXIMUM_TEXT_ID_LENGTH
from embeddings.filters import Path, Scalar, parse_path, parse_values
from embeddings.selectors import Wanted
from embeddings.shaping import (
    DEEPEST,
    MAXIMUM_EXAMPLES,
    MAXIMUM_GROUP_SIZE,
    MAXIMUM_NEIGHBOURS,
    MAXIMUM_PATHS,
    Context,
    Fields,
    Grouping,
    Passage,
    Question,
    Result,
    Shape,
    Shaped,
)
from projects.models import Project

MAXIMUM_QUERIES = 100
MAXIMUM_PROJECTS = 50
# As far as the ranking of several projects goes: each ranks as many.
MAXIMUM_RANK_ACROSS = 1_000
_SAME = "Leave out texts that share a value with the query document at one of these paths of the "
_SAME += "metadata"
_GROUP = "The most similar texts for each value at this path of the metadata; `count` and `offset` "
_GROUP += "count groups. Texts without a value there are left out."
_DIVERSITY = "0 for the most similar texts, towards 1 for texts that differ from one another "
_DIVERSITY += "(maximal marginal relevance, over the nearest 400)."
_FIELDS = "What each result carries: `text`, `metadata`, `vector`, or a part of the metadata such "
_FIELDS += "as `metadata.author`"
_VALUES = "Leave out texts that have one of these values at a path, such as "
_VALUES += '`{"author": ["Ann", "Bob"]}`.'


# --- What comes in --------------------------------------------------------------------------------
class Paths(serializers.ListField):
    """A list of paths of the metadata."""

    child = Text()

    def __init__(self, **options: Any) -> None:
        super().__init__(min_length=1, max_length=MAXIMUM_PATHS, **options)


class TextIds(serializers.ListField):
    """A list of ids of stored texts."""

    child = Text(max_length=MAXIMUM_TEXT_ID_LENGTH)

    def __init__(self, **options: Any) -> None:
        super().__init__(min_length=1, max_length=MAXIMUM_EXAMPLES, **options)


class ContextIn(serializers.Serializer[Any]):
    """The texts around each result."""

    path = Text(help_text="Where the metadata has the number that they are ordered by.")
    before = WholeNumber(
        default=1, min_value=0, max_value=MAXIMUM_NEIGHBOURS, help_text="How many before it."
    )
    after = WholeNumber(
        default=1, min_value=0, max_value=MAXIMUM_NEIGHBOURS, help_text="How many after it."
    )
    within = Text(
        required=False,
        help_text="Only texts that have the same value at this path, such as that of the work.",
    )


class ShapeIn(serializers.Serializer[Any]):
    """What a search in a body takes besides the query."""

    count = WholeNumber(required=False, min_value=1, max_value=MAXIMUM_LIMIT)
    limit = WholeNumber(
        required=False,
        min_value=1,
        max_value=MAXIMUM_LIMIT,
        help_text=f"Another name for `count` (default {DEFAULT_LIMIT}).",
    )
    offset = WholeNumber(required=False, min_value=0, max_value=MAXIMUM_OFFSET)
    threshold = JsonNumber(required=False, min_value=0, max_value=1)
    metadata_path = Text(required=False, max_length=1000)
    metadata_value = Text(required=False, allow_blank=True, max_length=10_000)
    filter = JsonObject(required=False, allow_null=True)
    exact = Flag(required=False)
    exclude_same = Paths(required=False, help_text=f"{_SAME}: of the positive examples.")
    exclude_values = JsonObject(required=False, help_text=_VALUES)
    group_by = Text(required=False, help_text=_GROUP)
    group_size = WholeNumber(
        required=False,
        min_value=1,
        max_value=MAXIMUM_GROUP_SIZE,
        help_text="With `group_by`: how many texts of each group (default 1).",
    )
    diversity = JsonNumber(required=False, min_value=0, max_value=1, help_text=_DIVERSITY)
    positive = TextIds(
        required=False,
        help_text="Instead of a vector: ids of texts that results should be like. They are no "
        "results themselves.",
    )
    negative = TextIds(
        required=False, help_text="With `positive`: texts that results should be unlike."
    )
    fields = serializers.ListField(  # type: ignore[assignment]
        child=Text(max_length=1100), max_length=MAXIMUM_PATHS, required=False, help_text=_FIELDS
    )
    context = ContextIn(required=False)  # type: ignore[assignment]


class ShapedSearchIn(ShapeIn):
    """What to search for, and what of it to show."""

    text = SearchIn._declared_fields["text"]
    vector = SearchIn._declared_fields["vector"]


class BatchIn(serializers.Serializer[Any]):
    """Searches to answer in one request."""

    queries = serializers.ListField(
        child=ShapedSearchIn(),
        min_length=1,
        max_length=MAXIMUM_QUERIES,
        help_text="In any number to 100.",
    )


class AcrossIn(ShapedSearchIn):
    """What to search for in several projects."""

    projects = serializers.ListField(
        child=Text(max_length=300),
        min_length=1,
        max_length=MAXIMUM_PROJECTS,
        help_text="The projects, each as `owner/handle`: all readable, and all of one model.",
    )
    # What compares with the texts of one project, or arranges them.
    exclude_same = group_by = group_size = diversity = positive = negative = None  # type: ignore[assignment]


class ShapeQuery(Query):
    """What a search in a query string takes besides the query."""

    exclude_same = Text(
        required=False, help_text=f"{_SAME}, with commas between them: `author,work`."
    )
    exclude_values = Text(required=False, help_text=f"JSON. {_VALUES}")
    group_by = Text(required=False, help_text=_GROUP)
    group_size = QueryNumber(
        required=False,
        min_value=1,
        max_value=MAXIMUM_GROUP_SIZE,
        help_text="With `group_by`: how many texts of each group (default 1).",
    )
    diversity = QueryDecimal(required=False, min_value=0, max_value=1, help_text=_DIVERSITY)
    fields = Text(  # type: ignore[assignment]
        required=False, help_text=f"{_FIELDS}; with commas between them."
    )
    context = Text(  # type: ignore[assignment]
        required=False,
        help_text='JSON. The texts around each result, such as `{"path": "sequence", "before": 1, '
        '"after": 1, "within": "work"}`.',
    )


class ShapedQuery(ShapeQuery, SimilarQuery):
    """What a search by a stored text takes in the query string."""


class ShapedWordsQuery(ShapeQuery, WordsModeQuery):
    """What a search by words takes in the query string."""


_DEFAULTS = {"offset": 0, "exact": False}
_SEARCH = frozenset(ShapedSearchIn._declared_fields)
_ACROSS = frozenset(AcrossIn._declared_fields)
_OPTIONS = frozenset(ShapeIn._declared_fields)
_SHAPING = frozenset(ShapeQuery._declared_fields)


# --- Reading --------------------------------------------------------------------------------------
def question_in(
    body: bytes, dimensions: int, query: Mapping[str, Any], named: Collection[str]
) -> Question | None:
    """Return what a body asks for besides the nearest to a vector; None where it is no more.

    query: the values of the query string; named: those of its parameters that were sent.
    A body without options is as the contract has it, and may hold what nobody knows.
    Raises Invalid.
    """
    given = json.document(body)
    if not isinstance(given, simdjson.Object) or not (_OPTIONS - {"filter"}) & set(given.keys()):
        return None
    for name in given:
        if name in named:
            problem = f"Send {name} in the body or in the query string, not in both."
            raise Invalid(problem, errors=[FieldError(f"body.{name}", problem)])
    return _question(_members(given, "body", _SEARCH), "body", dimensions, query)


_may_be_option = re.compile(f'"(?:{"|".join(sorted(_OPTIONS - {"filter"}))})"'.encode())


def may_be_shaped(body: bytes) -> bool:
    """Say whether a body may hold options, which only reading it tells for sure."""
    return _may_be_option.search(body) is not None or b"\\" in body


def batch_in(body: bytes, dimensions: int) -> list[Question]:
    """Return the questions of ``{"queries": [...]}``; raise Invalid naming the first bad one."""
    given = _members(json.document(body), "body", {"queries"})
    queries = given.get("queries")
    if not isinstance(queries, simdjson.Array) or not 1 <= len(queries) <= MAXIMUM_QUERIES:
        raise json.invalid("body.queries", f"Send a list of 1 to {MAXIMUM_QUERIES} searches.")
    questions = []
    for number, each in enumerate(queries):
        place = f"body.queries[{number}]"
        questions.append(_question(_members(each, place, _SEARCH), place, dimensions, {}))
    return questions


def across_in(body: bytes) -> tuple[list[tuple[str, str]], Callable[[int], Question]]:
    """Return owner and handle of the projects that a body names, and what reads its question.

    The latter takes the dimensions of the projects' vectors. Both raise Invalid.
    """
    members = _members(json.document(body), "body", _ACROSS)
    names = _projects(members.pop("projects", None))

    def question(dimensions: int) -> Question:
        asked = _question(members, "body", dimensions, {})
        if asked.wanted.last > MAXIMUM_RANK_ACROSS:
            raise json.invalid(
                "body.offset",
                f"Rankings of several projects go as far as {MAXIMUM_RANK_ACROSS}: offset and "
                "count together.",
            )
        return asked

    return names, question


def _projects(given: Any) -> list[tuple[str, str]]:
    if not isinstance(given, simdjson.Array) or not 1 <= len(given) <= MAXIMUM_PROJECTS:
        raise json.invalid(
            "body.projects", f"Send a list of 1 to {MAXIMUM_PROJECTS} projects as owner/handle."
        )
    names: list[tuple[str, str]] = []
    for number, each in enumerate(given):
        place = f"body.projects[{number}]"
        name = json.checked_text(each, place) if isinstance(each, str) else ""
        owner, _, handle = name.partition("/")
        if not owner or not handle or "/" in handle:
            raise json.invalid(place, "Name a project as owner/handle.")
        if (owner, handle) in names:
            raise json.invalid(place, f"'{name[:80]}' is named twice.")
        names.append((owner, handle))
    return names


def shape_in(query: Mapping[str, Any]) -> Shape | None:
    """Return the shape that a query string asks for, None without one; raise Invalid."""
    given = {name: query[name] for name in _SHAPING if name in query}
    if not given:
        return None
    for name in ("exclude_same", "fields"):
        if name in given:
            given[name] = given[name].split(",")
            if len(given[name]) > MAXIMUM_PATHS:
                raise json.invalid(f"query.{name}", f"This takes at most {MAXIMUM_PATHS}.")
    for name in ("exclude_values", "context"):
        if name in given:
            given[name] = _json(given[name], f"query.{name}")
    if "context" in given:
        given["context"] = _checked(ContextIn, given["context"], "query.context")
    return _shape(given, "query", has_document="q" not in query, limit=_last(query))


def fused_shape_in(body: bytes) -> Shape | None:
    """Return what results of a body's words are to carry; raise Invalid for any other option.

    A body without options is as the contract has it, and may hold what nobody knows.
    """
    given = json.document(body)
    if not isinstance(given, simdjson.Object) or not (_OPTIONS - {"filter"}) & set(given.keys()):
        return None
    members = _members(given, "body", _SEARCH)
    for name in members:
        if name in SimilarQuery._declared_fields and name != "filter":
            raise json.invalid(f"body.{name}", f"Send {name} in the query string with this mode.")
    members = {name: each for name, each in members.items() if name in _OPTIONS}
    options = _options(members, "body")
    shape = _shape(options, "body", has_document=False, limit=DEFAULT_LIMIT)
    only_carrying(shape, "body")
    return shape


def only_carrying(shape: Shape | None, location: str) -> None:
    """Refuse what only a ranking by vectors can be shaped by; raise Invalid."""
    if shape is None:
        return
    asked = {
        "exclude_same": shape.exclude_same,
        "exclude_values": shape.exclude_values,
        "group_by": shape.grouping,
        "diversity": shape.diversity,
    }
    for name, value in asked.items():
        if value:
            raise json.invalid(f"{location}.{name}", f"{name} needs mode=vector.")


def _json(text: str, location: str) -> Any:
    try:
        return json.parse(text.encode(), location=location)
    except Invalid as error:
        raise json.invalid(location, f"This must be JSON. {error.detail}") from error


def _question(
    members: Mapping[str, Any], location: str, dimensions: int, query: Mapping[str, Any]
) -> Question:
    """Return what the members of one object ask for; raise Invalid."""
    vector, text = members.get("vector"), members.get("text")
    options = _options({name: each for name, each in members.items() if name in _OPTIONS}, location)
    positive, negative = (
        tuple(
            batches.check_text_id(each, f"{location}.{name}[{number}]")
            for number, each in enumerate(options.get(name, ()))
        )
        for name in ("positive", "negative")
    )
    _check_query(vector is not None, text is not None, positive, negative, location)
    threshold = DEFAULT_THRESHOLD if text is None else DEFAULT_THRESHOLD_FOR_WORDS
    values = {**query, **options}
    return Question(
        _wanted(values, location, threshold),
        _shape(options, location, has_document=bool(positive), limit=_last(values)),
        None if vector is None else batches.query_vector(vector, f"{location}.vector", dimensions),
        None if text is None else batches.check_words(text, f"{location}.text"),
        positive,
        negative,
        location,
    )


def _options(members: Mapping[str, Any], location: str) -> dict[str, Any]:
    """Return the values of options; raise Invalid. null is as good as nothing."""
    plain = {
        name: json.plain(value, f"{location}.{name}")
        for name, value in members.items()
        if value is not None
    }
    if "context" in plain:
        # Inner names are of no interest to the serializer.
        _checked(ContextIn, plain["context"], f"{location}.context")
    return _checked(ShapeIn, plain, location)


def _members(given: Any, location: str, known: Collection[str]) -> dict[str, Any]:
    """Return the members of an object, vectors as views into it; raise Invalid for others."""
    if not isinstance(given, simdjson.Object):
        raise json.invalid(location, "This must be a JSON object.")
    if len(given) > len(known) + 1:
        raise json.invalid(location, f"It has more than {len(known)} fields.")
    members = dict(json.members(given, location))
    _check_names(known, members, location)
    return members


def _check_names(known: Collection[str], given: Collection[str], location: str) -> None:
    for name in given:
        if name not in known:
            raise json.invalid(
                f"{location}.{name[:80]}",
                f"'{name[:80]}' is unknown here; known are {', '.join(sorted(known))}.",
            )


def _check_query(
    has_vector: bool,
    has_text: bool,
    positive: Collection[str],
    negative: Collection[str],
    location: str,
) -> None:
    """Refuse a question that is asked in no way, or in two."""
    if has_vector and has_text:
        raise json.invalid(f"{location}.text", "Send a vector or a text to search with, not both.")
    if (has_vector or has_text) and (positive or negative):
        name = "vector" if has_vector else "text"
        raise json.invalid(
            f"{location}.{name}", f"Send a {name}, or examples in positive and negative, not both."
        )
    if negative and not positive:
        raise json.invalid(
            f"{location}.positive", "negative needs positive examples beside it to be unlike."
        )
    if not (has_vector or has_text or positive):
        raise json.invalid(
            f"{location}.vector",
            "Send a vector or a text to search with, or the ids of examples in positive.",
        )
    for number, text_id in enumerate(negative):
        if text_id in positive:
            raise json.invalid(
                f"{location}.negative[{number}]", f"'{text_id}' is in positive, too."
            )


def _wanted(values: Mapping[str, Any], location: str, threshold: float) -> Wanted:
    plain = {**_DEFAULTS, **values}
    condition = plain.pop("filter", None)
    found = wanted(plain, threshold=threshold, location=location)
    if condition is None:
        return found
    is_text = isinstance(condition, str)
    read, place = (filters.parse_text, "query") if is_text else (filters.parse, location)
    return replace(found, filter=read(condition, f"{place}.filter"))


def _shape(given: Mapping[str, Any], location: str, *, has_document: bool, limit: int) -> Shape:
    """Return the shape that checked values ask for; raise Invalid for what contradicts itself."""
    exclude_same = tuple(
        parse_path(each, f"{location}.exclude_same[{number}]")
        for number, each in enumerate(given.get("exclude_same", ()))
    )
    if exclude_same and not has_document:
        raise json.invalid(
            f"{location}.exclude_same",
            "There is no stored query document to compare with: name the values to leave out in "
            'exclude_values, such as {"author": "Ann"}.',
        )
    grouping = None
    if "group_by" in given:
        path = parse_path(given["group_by"], f"{location}.group_by")
        grouping = Grouping(path, given.get("group_size", 1))
    elif "group_size" in given:
        raise json.invalid(f"{location}.group_size", "group_size needs group_by beside it.")
    diversity = given.get("diversity", 0.0)
    if grouping and diversity:
        raise json.invalid(
            f"{location}.diversity", "Send group_by or diversity: groups are diverse already."
        )
    if (grouping or diversity) and limit > DEEPEST:
        what = "Groups" if grouping else "Diverse results"
        raise json.invalid(
            f"{location}.offset", f"{what} go as far as {DEEPEST}: offset and count together."
        )
    return Shape(
        exclude_same,
        _values(given.get("exclude_values", {}), f"{location}.exclude_values"),
        grouping,
        diversity,
        _fields(given.get("fields", ()), f"{location}.fields"),
        _context(given.get("context"), f"{location}.context"),
    )


def _values(given: Any, location: str) -> dict[Path, tuple[Scalar, ...]]:
    """Return the values at each path, read as a filter reads those of `in`."""
    if not isinstance(given, dict) or len(given) > MAXIMUM_PATHS:
        raise json.invalid(
            location, f"This must be a JSON object of up to {MAXIMUM_PATHS} paths and values."
        )
    found: dict[Path, tuple[Scalar, ...]] = {}
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        place = f"{location}.{name[:80]}"
        found[parse_path(name, place)] = parse_values(values, place)
    return found


def _fields(given: Collection[str], location: str) -> Fields:
    parts = []
    for number, name in enumerate(given):
        if name.startswith("metadata."):
            parts.append(parse_path(name.removeprefix("metadata."), f"{location}[{number}]"))
        elif name not in {"text", "metadata", "vector"}:
            raise json.invalid(
                f"{location}[{number}]",
                f"'{name[:80]}' is no field; these are text, metadata, vector, and parts of the "
                "metadata such as metadata.author.",
            )
    return Fields(
        text="text" in given,
        metadata="metadata" in given or bool(parts),
        parts=None if "metadata" in given or not parts else tuple(parts),
        vector="vector" in given,
    )


def _context(given: Mapping[str, Any] | None, location: str) -> Context | None:
    if given is None:
        return None
    if not given["before"] + given["after"]:
        raise json.invalid(location, "before and after are both 0: nothing is asked for.")
    within = given.get("within")
    return Context(
        parse_path(given["path"], f"{location}.path"),
        given["before"],
        given["after"],
        None if within is None else parse_path(within, f"{location}.within"),
    )


def _last(values: Mapping[str, Any]) -> int:
    """Return the rank of the last result."""
    sizes = [values[name] for name in ("count", "limit") if name in values]
    return int(min(sizes, default=DEFAULT_LIMIT) + values.get("offset", 0))


def _checked(
    serializer: type[serializers.Serializer[Any]], given: Any, location: str
) -> dict[str, Any]:
    """Return the values of an object as a serializer has them; raise Invalid naming places."""
    if not isinstance(given, dict):
        raise json.invalid(location, "This must be a JSON object.")
    _check_names(serializer._declared_fields, given, location)
    bound = serializer(data=given)
    try:
        bound.is_valid(raise_exception=True)
    except serializers.ValidationError as error:
        refusal = as_domain_error(error)
        found = () if refusal is None else refusal.errors
        errors = [
            FieldError(location + each.location.removeprefix("body"), each.message, each.code)
            for each in found
        ]
        text = "; ".join(f"{each.location}: {each.message}" for each in errors)
        raise Invalid(text, errors=errors) from error
    return dict(bound.validated_data)


# --- What goes out --------------------------------------------------------------------------------
class BatchAnswerOut(serializers.Serializer[Any]):
    """The results of one of several searches."""

    results = HitOut(many=True)
    complete = serializers.BooleanField(required=False, help_text="See a search with `group_by`.")


class BatchOut(serializers.Serializer[Any]):
    """The results of searches, in the order of the queries."""

    user_handle = serializers.CharField(help_text="The project's owner.")
    project_handle = serializers.CharField()
    answers = BatchAnswerOut(many=True)


class AcrossHitOut(HitOut):
    """One result in one of several projects."""

    project = serializers.CharField(help_text="The project, as `owner/handle`.")


class AcrossOut(serializers.Serializer[Any]):
    """The results of several projects, the most similar first."""

    results = AcrossHitOut(many=True)


def across_shown(found: Iterable[tuple[Project, Result]]) -> dict[str, Any]:
    """Return the results of several projects as AcrossOut describes them."""
    return {"results": [{"project": str(project), **_hit(each)} for project, each in found]}


def shaped(found: Shaped) -> dict[str, Any]:
    """Return the results of a search as SimilarOut and BatchAnswerOut describe them."""
    answer: dict[str, Any] = {"results": [_hit(each) for each in found.results]}
    if found.complete is not None:
        answer["complete"] = found.complete
    return answer


def carrying(shown: Sequence[Mapping[str, Any]], results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return results as another ranking shows them, with what they carry besides."""
    by_id = {each.text_id: each for each in results}
    return [{**each, **_carried(by_id[each["id"]])} for each in shown if each["id"] in by_id]


def _hit(result: Result) -> dict[str, Any]:
    hit: dict[str, Any] = {"id": result.text_id, "similarity": result.similarity}
    if result.group is not None:
        hit["group"] = result.group
    return {**hit, **_carried(result)}


def _carried(result: Result) -> dict[str, Any]:
    carried = dict(result.carries)
    if result.before is not None and result.after is not None:
        carried["context"] = {
            "before": [_passage(each) for each in result.before],
            "after": [_passage(each) for each in result.after],
        }
    return carried


def _passage(passage: Passage) -> dict[str, Any]:
    return {"id": passage.text_id, **passage.carries}
