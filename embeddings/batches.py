"""Reads embeddings from JSON request bodies, and rows of files, into arrays. Knows no models.

Vectors go from the parser's buffer, or from base64, to one float32 matrix without becoming Python
floats; checks on numbers run on the whole matrix. A batch with nothing odd in it is read column by
column (`embeddings.columns`), which takes a third of the time.
"""

import binascii
import json as stdlib_json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import pybase64
import simdjson

from common import json
from common.errors import FieldError, Invalid, TooLarge
from embeddings import columns
from embeddings.columns import MAXIMUM_TEXT_ID_LENGTH, Matrix

MAXIMUM_ITEMS = 5_000
# Characters of a text to search with: a tenth of a second for the built-in model.
MAXIMUM_WORDS = 10_000
# Squares of the elements are added up in float32 by pgvector: outside of these bounds the sum
# overflows or vanishes, and the cosine of such a vector is not a number.
SMALLEST_NORM = 1e-18
LARGEST_NORM = 1e18

# Small enough for `json.members` to leave vectors in the parser's buffer.
_MAXIMUM_FIELDS = columns.MAXIMUM_FIELDS
_BASE64 = "vector in base64 must hold little-endian 32-bit floating point numbers."


@dataclass(frozen=True)
class Expected:
    """What a project demands of every embedding.

    owner, handle: of its LLM service instance.
    dimensions: of that instance.
    """

    owner: str
    handle: str
    dimensions: int


@dataclass
class Batch:
    """Embeddings of one request, column by column; n rows.

    vectors: float32 of shape (n, dimensions).
    metadata: Python values, for checking; `metadata_json` holds the same as UTF-8 JSON.
    to_embed: the rows that came with a text and no vector, which is still to be made.
    """

    vectors: Matrix
    text_ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any] | None] = field(default_factory=list)
    metadata_json: list[bytes] = field(default_factory=list)
    to_embed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.text_ids)

    def part(self, rows: Sequence[int]) -> "Batch":
        """Return a batch of some of the rows, in their order."""
        if len(rows) == len(self):
            return self
        wanted = set(self.to_embed)
        return Batch(
            self.vectors[list(rows)],
            [self.text_ids[row] for row in rows],
            [self.texts[row] for row in rows],
            [self.metadata[row] for row in rows],
            [self.metadata_json[row] for row in rows],
            [place for place, row in enumerate(rows) if row in wanted],
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One embedding out of a file.

    vector: of shape (dimensions,); None where it is to be made of the text.
    """

    text_id: str
    vector: npt.NDArray[np.floating[Any]] | None
    text: str
    metadata: dict[str, Any] | None


def parse_batch(body: bytes, expected: Expected) -> Batch:
    """Return the embeddings of ``{"embeddings": [...]}``.

    Each vector is a list of numbers, or the base64 text of little-endian float32 numbers; an item
    with a text may leave it out. Raises Invalid naming the item and the field, TooLarge for more
    than MAXIMUM_ITEMS.
    """
    with json.parser_for(body) as parser:
        return _parse_batch(body, expected, parser)


def _parse_batch(body: bytes, expected: Expected, parser: simdjson.Parser) -> Batch:
    try:
        items = _member(body, "embeddings", parser)
    except Invalid as error:
        raise _with_the_item_named(body, error) from None
    if not isinstance(items, simdjson.Array):
        raise json.invalid("body.embeddings", "This must be a list of embeddings.")
    if len(items) == 0:
        raise json.invalid("body.embeddings", "The list is empty; send at least one embedding.")
    if len(items) > MAXIMUM_ITEMS:
        raise TooLarge(
            f"A request holds at most {MAXIMUM_ITEMS} embeddings, this one {len(items)}; send "
            "several."
        )
    given: list[Any] = list(items)
    batch = _read_columns(given, expected)
    locations = [f"body.embeddings[{index}]" for index in range(len(items))]
    if batch is None:
        batch = _read_items(given, locations, expected)
    texts = set(batch.to_embed)
    lists = [
        row
        for row, each in enumerate(given)
        if row not in texts and not isinstance(each["vector"], str)
    ]
    if lists and _may_hold_nested_vectors(body, batch, len(lists)):
        for row in lists:
            _refuse_nested(given[row]["vector"], f"{locations[row]}.vector")
    return batch


def _read_columns(items: list[Any], expected: Expected) -> Batch | None:
    """Return the items as a batch, or None where something about them is odd."""
    names = (expected.handle, f"{expected.owner}/{expected.handle}")
    found = columns.read(
        items, dimensions=expected.dimensions, instances=names, owner=expected.owner
    )
    return None if found is None else batch_of(found)


def batch_of(found: columns.Columns) -> Batch:
    """Return checked columns as a batch."""
    return Batch(found.vectors, found.text_ids, found.texts, found.metadata, found.metadata_json)


def _with_the_item_named(body: bytes, error: Invalid) -> Invalid:
    """Return the refusal of a body that is not JSON, naming the item where it holds NaN or such.

    JSON has no such numbers, but careless writers produce them, and a line and a column do not
    tell their users which text is meant.
    """
    if not re.search(rb"NaN|Infinity|[0-9][eE]", body):
        return error
    try:
        items = stdlib_json.loads(body, parse_constant=float)["embeddings"]
        for index, each in enumerate(items):
            if not np.isfinite(np.asarray(each["vector"], dtype=np.float64)).all():
                return json.invalid(
                    f"body.embeddings[{index}].vector",
                    f"vector of text_id '{str(each.get('text_id'))[:MAXIMUM_TEXT_ID_LENGTH]}' "
                    "holds NaN or Infinity, which are no JSON and point in no direction.",
                )
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        # Something else is wrong as well: the first refusal stands.
        return error
    return error


def parse_item(body: bytes, expected: Expected, *, text_id: str) -> Batch:
    """Return one embedding, whose id the URL gives, as a batch of one; raise Invalid."""
    document = json.document(body)
    if not isinstance(document, simdjson.Object):
        raise json.invalid("body", "The request body must be a JSON object.")
    batch = _read_items([document], ["body"], expected, text_id=text_id)
    if not batch.to_embed and not isinstance(document["vector"], str):
        _refuse_nested(document["vector"], "body.vector")
    return batch


def parse_query(body: bytes, dimensions: int) -> tuple[Matrix | str, Any]:
    """Return what ``{"vector": [...], "filter": {...}}`` searches for, and what the filter says.

    The vector is float32 of shape (dimensions,), given as numbers or as the base64 text of
    little-endian float32 numbers; ``{"text": "..."}`` instead of it gives words, which come back as
    they are. The filter is a plain value, None without one. Raises Invalid.
    """
    given_fields = _fields(body, "vector", "text")
    condition = given_fields.get("filter")
    filtering = None if condition is None else json.plain(condition, "body.filter")
    words = given_fields.get("text")
    if words is not None:
        if given_fields.get("vector") is not None:
            raise json.invalid("body.text", "Send a vector or a text to search with, not both.")
        return check_words(words, "body.text"), filtering
    is_flat = body.count(b"[") == 1
    vector = query_vector(given_fields.get("vector"), "body.vector", dimensions, is_flat=is_flat)
    return vector, filtering


def parse_words(body: bytes, dimensions: int) -> tuple[str, Matrix | None, Any]:
    """Return the words of ``{"text": "...", "vector": [...], "filter": {...}}``, and the others.

    The vector and the filter, as `parse_query` has them, are None where they are not given. Raises
    Invalid.
    """
    given = _fields(body, "text")
    words = check_words(given["text"], "body.text")
    condition, vector = given.get("filter"), given.get("vector")
    return (
        words,
        None if vector is None else query_vector(vector, "body.vector", dimensions),
        None if condition is None else json.plain(condition, "body.filter"),
    )


def check_words(words: Any, location: str) -> str:
    """Return a text to search with, or raise Invalid: 1 to MAXIMUM_WORDS characters, not blank."""
    if not isinstance(words, str):
        raise json.invalid(location, "The text to search with must be a string.")
    if not words.strip() or len(words) > MAXIMUM_WORDS:
        raise json.invalid(
            location,
            f"A text to search with has 1 to {MAXIMUM_WORDS} characters, not only white space; "
            f"this one has {len(words)}.",
        )
    return json.checked_text(words, location)


def query_vector(given: Any, location: str, dimensions: int, *, is_flat: bool = False) -> Matrix:
    """Return a vector to search with, given as `parse_query` says; raise Invalid.

    is_flat: whether it is known that there are no lists in it.
    """
    numbers = _vector(given, location) if isinstance(given, str) else _numbers(given, location)
    if isinstance(given, simdjson.Array) and not is_flat:
        _refuse_nested(given, location)
    if len(numbers) != dimensions:
        problem = f"vector dimension mismatch: expected {dimensions} dimensions, got {len(numbers)}"
        raise Invalid(problem, errors=[FieldError(location, problem)])
    # What is within these bounds does not overflow in float32.
    norm = math.sqrt(np.dot(numbers, numbers))
    if not SMALLEST_NORM <= norm <= LARGEST_NORM:
        raise json.invalid(location, _vector_problem(norm))
    vector: Matrix = numbers.astype(np.float32)
    return vector


def check_text_id(text_id: Any, location: str) -> str:
    """Return the id of a text, or raise Invalid: 1 to 300 characters of any kind but U+0000."""
    if not isinstance(text_id, str):
        raise json.invalid(location, "text_id must be a string.")
    if not 1 <= len(text_id) <= MAXIMUM_TEXT_ID_LENGTH:
        raise json.invalid(
            location,
            f"text_id must have 1 to {MAXIMUM_TEXT_ID_LENGTH} characters; this one has "
            f"{len(text_id)}.",
        )
    return json.checked_text(text_id, location)


def repeated(text_ids: Sequence[str]) -> int | None:
    """Return the row of the first id that occurred before, or None."""
    if len(set(text_ids)) == len(text_ids):
        return None
    seen: set[str] = set()
    for row, text_id in enumerate(text_ids):
        if text_id in seen:
            return row
        seen.add(text_id)
    return None


def _member(body: bytes, name: str, parser: simdjson.Parser | None = None) -> Any:
    """Return one member of the body, as a view into it; raise Invalid where there is none."""
    return _fields(body, name, parser=parser)[name]


def _fields(
    body: bytes, needed: str, instead: str | None = None, parser: simdjson.Parser | None = None
) -> dict[str, Any]:
    """Return the members of the body, as views into it; raise Invalid where one is missing.

    instead: another one that will do as well.
    """
    document = json.document(body, parser)
    found = isinstance(document, simdjson.Object) and (
        needed in document or (instead is not None and instead in document)
    )
    if not found:
        other = "" if instead is None else f' or {{"{instead}": "…"}}'
        value = '"…"' if needed == "text" else "[ … ]"
        raise json.invalid(f"body.{needed}", f'Send an object {{"{needed}": {value}}}{other}.')
    if len(document) > _MAXIMUM_FIELDS:
        raise json.invalid("body", f"It has more than {_MAXIMUM_FIELDS} fields.")
    return dict(json.members(document, "body"))


def _read_items(
    items: list[Any], locations: list[str], expected: Expected, *, text_id: str | None = None
) -> Batch:
    batch = Batch(np.zeros((len(items), expected.dimensions), dtype=np.float32))
    for row, (item, location) in enumerate(zip(items, locations, strict=True)):
        if not isinstance(item, simdjson.Object):
            raise json.invalid(location, "An embedding must be an object.")
        if len(item) > _MAXIMUM_FIELDS:
            raise json.invalid(location, f"It has more than {_MAXIMUM_FIELDS} fields.")
        given = dict(json.members(item, location))
        if text_id is not None and given.get("text_id") is None:
            given["text_id"] = text_id
        given_id = _required(given, "text_id", location)
        identity = check_text_id(given_id, f"{location}.text_id")
        if text_id is not None and identity != text_id:
            raise json.invalid(
                f"{location}.text_id", "text_id in the body differs from the one in the URL."
            )
        if _is_to_be_embedded(given):
            _check_text(given, location, expected)
            batch.to_embed.append(row)
        else:
            _check_instance(given, location, expected)
            vector = _vector(_required_vector(given, location), f"{location}.vector")
            _check_dimensions(given, len(vector), identity, location, expected)
            batch.vectors[row] = vector
        batch.text_ids.append(identity)
        batch.texts.append(_text(given, location))
        metadata = _metadata(given, location)
        batch.metadata.append(metadata)
        batch.metadata_json.append(b"{}" if not metadata else orjson.dumps(metadata))
    for row, problem in problems_of(batch).items():
        raise json.invalid(f"{locations[row]}.vector", problem)
    return batch


def _is_to_be_embedded(given: dict[str, Any]) -> bool:
    """Say whether an item has a text and no vector."""
    return given.get("vector") is None and given.get("text") is not None


def _check_text(given: dict[str, Any], location: str, expected: Expected) -> None:
    """Refuse an item without a vector whose text cannot be embedded, or that names another model.

    The instance need not be named, since nothing was made by it yet.
    """
    if given.get("vector_dim") is not None:
        raise json.invalid(
            f"{location}.vector",
            "vector is required with vector_dim; leave both out to have the text embedded.",
        )
    if any(given.get(name) is not None for name in ("instance_handle", "instance_owner")):
        _check_instance(given, location, expected)
    if not _text(given, location).strip():
        raise json.invalid(f"{location}.text", "text is empty: there is nothing to embed.")


def _required_vector(given: dict[str, Any], location: str) -> Any:
    if given.get("vector") is None:
        raise json.invalid(
            f"{location}.vector",
            "vector is required, or a text that the project's LLM service is to embed.",
        )
    return given["vector"]


def _required(given: dict[str, Any], name: str, location: str) -> Any:
    if given.get(name) is None:
        raise json.invalid(f"{location}.{name}", f"{name} is required.")
    return given[name]


def _text(given: dict[str, Any], location: str) -> str:
    text = given.get("text")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise json.invalid(f"{location}.text", "text must be a string.")
    return json.checked_text(text, f"{location}.text")


def _metadata(given: dict[str, Any], location: str) -> dict[str, Any] | None:
    metadata = given.get("metadata")
    if metadata is None:
        return None
    if not isinstance(metadata, simdjson.Object):
        raise json.invalid(f"{location}.metadata", "metadata must be a JSON object.")
    return dict(json.plain(metadata, f"{location}.metadata"))


def _check_instance(given: dict[str, Any], location: str, expected: Expected) -> None:
    """Refuse an item made by another instance than the project's: it is not a choice."""
    named = _required(given, "instance_handle", location)
    full_name = f"{expected.owner}/{expected.handle}"
    owner = given.get("instance_owner")
    if named not in {expected.handle, full_name} or owner not in {None, expected.owner}:
        message = (
            f"instance_handle must name the project's own LLM service instance: "
            f"'{expected.handle}' or '{full_name}'."
        )
        raise json.invalid(f"{location}.instance_handle", message)


def _check_dimensions(
    given: dict[str, Any], length: int, text_id: str, location: str, expected: Expected
) -> None:
    declared = _required(given, "vector_dim", location)
    if isinstance(declared, bool) or not isinstance(declared, int):
        raise json.invalid(f"{location}.vector_dim", "vector_dim must be a whole number.")
    if declared != expected.dimensions:
        raise _dimension_problem(
            f"vector dimension mismatch: embedding declares {declared} dimensions but LLM service "
            f"'{expected.handle}' expects {expected.dimensions} dimensions",
            f"{location}.vector_dim",
        )
    if declared != length:
        raise _dimension_problem(
            f"vector length mismatch for text_id '{text_id}': actual vector has {length} elements "
            f"but vector_dim declares {declared}",
            f"{location}.vector",
        )


def _dimension_problem(message: str, location: str) -> Invalid:
    detail = f"dimension validation failed: {message}"
    return Invalid(detail, errors=json.invalid(location, detail).errors)


def _vector(node: Any, location: str) -> npt.NDArray[np.floating[Any]]:
    """Return a vector out of a JSON array or a base64 text; raise Invalid."""
    if not isinstance(node, str):
        return _as_float32(_numbers(node, location))
    try:
        data = pybase64.b64decode(node, validate=True)
    except (binascii.Error, ValueError) as error:
        raise json.invalid(location, "vector is neither a list nor base64.") from error
    if not data or len(data) % 4:
        raise json.invalid(location, _BASE64)
    return np.frombuffer(data, dtype="<f4")


def _numbers(node: Any, location: str) -> npt.NDArray[np.float64]:
    """Return the numbers of a JSON array as float64; nested arrays come out flat."""
    if not isinstance(node, simdjson.Array):
        raise json.invalid(location, "vector must be a list of numbers.")
    try:
        numbers = np.frombuffer(node.as_buffer(of_type="d"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise json.invalid(
            location, "vector must hold numbers only: no strings, booleans, nulls or lists."
        ) from error
    if len(numbers) == 0:
        raise json.invalid(location, "vector is empty.")
    if len(numbers) != len(node):
        raise json.invalid(location, "vector must be a flat list of numbers.")
    return numbers


def _as_float32(numbers: npt.NDArray[np.float64]) -> Matrix:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def vector_problems(vectors: Matrix) -> dict[int, str]:
    """Return the rows without a usable length, and why: zero, subnormal, too large for float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    usable = (norms >= SMALLEST_NORM) & (norms <= LARGEST_NORM)
    return {int(row): _vector_problem(float(norms[row])) for row in np.flatnonzero(~usable)}


def problems_of(batch: Batch) -> dict[int, str]:
    """Return the same of a batch; rows whose vector is still to be made have none."""
    problems = vector_problems(batch.vectors)
    for row in batch.to_embed:
        problems.pop(row, None)
    return problems


def _vector_problem(norm: float) -> str:
    if np.isnan(norm):
        return "vector holds a number that is not finite."
    if norm < SMALLEST_NORM:
        return "vector has no direction: all of its elements are zero, or too close to it."
    return "vector has elements that are too large for 32-bit floating point."


def _may_hold_nested_vectors(body: bytes, batch: Batch, lists: int) -> bool:
    """Say whether some vector may be nested, by counting brackets.

    A flat batch has one bracket for the list, one for each of its lists of numbers, and those of
    texts and metadata; only when the sum differs are the vectors looked at one by one.
    """
    # A single byte is found many times faster than several.
    if b"\\" in body and (b"\\u005b" in body or b"\\u005B" in body):
        return True
    explained = 1 + lists
    explained += sum(each.count("[") for each in batch.text_ids)
    explained += sum(each.count("[") for each in batch.texts)
    explained += sum(each.count(b"[") for each in batch.metadata_json)
    return columns.brackets(body) != explained


def _refuse_nested(node: Any, location: str) -> None:
    if any(isinstance(each, list) for each in node.as_list()):
        raise json.invalid(location, "vector must be a flat list of numbers.")


# --- Rows of files --------------------------------------------------------------------------------
def row_of(line: bytes) -> dict[str, Any]:
    """Return the fields of a line of JSON lines, for `check_row`; raise Invalid."""
    node = _json(line, "row", "The line")
    if not isinstance(node, simdjson.Object):
        raise json.invalid("row", "The line is not a JSON object.")
    if len(node) > _MAXIMUM_FIELDS:
        raise json.invalid("row", f"It has more than {_MAXIMUM_FIELDS} fields.")
    given = dict(json.members(node, "row"))
    vector = given.get("vector")
    if isinstance(vector, simdjson.Array) and _may_be_nested(line, given):
        _refuse_nested(vector, "row.vector")
    return given


def _may_be_nested(line: bytes, given: dict[str, Any]) -> bool:
    """Say whether the vector of a line may hold lists, by counting brackets: its own is one."""
    explained = 1
    for name, value in given.items():
        if isinstance(value, str):
            explained += value.count("[")
        elif isinstance(value, simdjson.Object | simdjson.Array) and name != "vector":
            # The stubs say str; it is bytes.
            explained += bytes(cast("Any", value.mini)).count(b"[")
    return line.count(b"[") != explained or b"\\u005b" in line.lower()


def check_row(given: dict[str, Any], expected: Expected) -> Item:
    """Return one row of a file, or raise Invalid; the length of vectors is for `vector_problems`.

    given: text_id, vector or text or both, and metadata; instance_handle, instance_owner and
    vector_dim are compared where they are given. The vector may also be an array or the base64 text
    of little-endian float32 numbers, and metadata a text that holds JSON.
    """
    text_id = check_text_id(_required(given, "text_id", "row"), "row.text_id")
    if _is_to_be_embedded(given):
        _check_text(given, "row", expected)
        return Item(text_id, None, _text(given, "row"), _row_metadata(given.get("metadata")))
    if given.get("instance_handle") is not None:
        _check_instance(given, "row", expected)
    vector = _row_vector(_required_vector(given, "row"))
    if given.get("vector_dim") is not None:
        _check_dimensions(given, len(vector), text_id, "row", expected)
    elif len(vector) != expected.dimensions:
        raise json.invalid(
            "row.vector",
            f"vector dimension mismatch: expected {expected.dimensions} dimensions, got "
            f"{len(vector)}.",
        )
    return Item(text_id, vector, _text(given, "row"), _row_metadata(given.get("metadata")))


def _row_vector(value: Any) -> npt.NDArray[np.floating[Any]]:
    return value if isinstance(value, np.ndarray) else _vector(value, "row.vector")


def _row_metadata(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = _json(value.encode("utf-8", "surrogatepass"), "row.metadata", "metadata")
    elif isinstance(value, dict):
        value = _json(_dumped(value), "row.metadata", "metadata")
    return _metadata({"metadata": value}, "row")


def _dumped(value: dict[str, Any]) -> bytes:
    if _holds_nan(value):
        raise json.invalid("row.metadata", "metadata holds a number that is not finite.")
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise json.invalid("row.metadata", f"metadata cannot be JSON: {error}.") from error


def _holds_nan(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_holds_nan(each) for each in value.values())
    if isinstance(value, list):
        return any(_holds_nan(each) for each in value)
    return isinstance(value, float) and not np.isfinite(value)


def _json(text: bytes, location: str, what: str) -> Any:
    try:
        return simdjson.Parser().parse(text)
    except (ValueError, RuntimeError) as error:
        try:
            orjson.loads(text)
            reason: object = "it holds a number that does not fit into 64 bits"
        except orjson.JSONDecodeError as problem:
            reason = problem
        raise json.invalid(location, f"{what} is not valid JSON: {reason}.") from error
