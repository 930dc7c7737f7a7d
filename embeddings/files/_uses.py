"""What the columns of a table are for: ids, texts, vectors, metadata."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import orjson
import simdjson

from common import json
from common.errors import FieldError, Invalid

# Of the values of a column that people are shown.
_EXAMPLES = 3
_NAMES: dict[str, tuple[str, ...]] = {
    "id": (
        "text_id",
        "id",
        "_id",
        "identifier",
        "uid",
        "uuid",
        "doc_id",
        "document_id",
        "key",
        "nr",
    ),
    "text": ("text", "content", "body", "passage", "page_content", "document", "sentence"),
    "vector": ("vector", "embedding", "embeddings", "dense", "values"),
    "object": ("metadata", "meta", "metadatas"),
}
# Beside what they describe these say nothing; files of ours have them.
_SELF_EVIDENT = {"vector_dim", "instance_handle", "instance_owner"}
_TIMES = {"created_at", "updated_at"}
_number = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


class Use(StrEnum):
    """What one column is for.

    Object: its keys and values are the metadata. Value: a key of the metadata, as it is; string,
    number and boolean: the same, made of what the cell says. No: nothing.
    """

    ID = "id"
    TEXT = "text"
    VECTOR = "vector"
    OBJECT = "object"
    VALUE = "value"
    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    NO = "no"


_ONCE = (Use.ID, Use.TEXT, Use.VECTOR, Use.OBJECT)


@dataclass(frozen=True)
class Column:
    """A column of a file, as its first rows show it.

    kind: of its values: text, number, boolean, object, list, numbers (a list of them), mixed, or
    empty. length: of lists of numbers, 0 where there are none.
    guess: what it is probably for.
    examples: some of its values, as people read them.
    """

    name: str
    kind: str
    length: int
    guess: Use
    examples: list[str]


class Uses:
    """What all columns of a file are for."""

    def __init__(self, columns: Mapping[str, Use]) -> None:
        """Take what each is for, by name; those left out are for nothing.

        Raises Invalid, naming the columns, where they do not make up a text with its id.
        """
        self.columns = {name: use for name, use in columns.items() if use is not Use.NO}
        for use in _ONCE:
            found = [name for name, each in self.columns.items() if each is use]
            if len(found) > 1:
                raise _wrong(
                    f"Two columns cannot both be the {use.value}: '{found[0][:60]}' and "
                    f"'{found[1][:60]}'."
                )
        used = set(self.columns.values())
        if not used & {Use.TEXT, Use.VECTOR}:
            raise _wrong("Say which column holds the text, or the vector.")
        if not used & {Use.ID, Use.TEXT}:
            raise _wrong("Say which column holds the id; only a text can do without one.")

    def name_of(self, use: Use) -> str | None:
        """Return the column for a use, None where there is none."""
        return next((name for name, each in self.columns.items() if each is use), None)

    def row(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a row, for `check_row`, from its values by column; raise Invalid.

        Values: plain ones, or views into a document of JSON.
        """
        given: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        for name, use in self.columns.items():
            value = raw.get(name)
            if use is Use.OBJECT:
                _merge(metadata, _object(value, name))
            elif use in _FIELDS:
                field, read = _FIELDS[use]
                given[field] = read(value, name)
            elif (cell := _CELLS[use](value, name)) is not None:
                _merge(metadata, {name: cell})
        if metadata or Use.OBJECT in self.columns.values():
            given["metadata"] = metadata
        if Use.ID not in self.columns.values() and isinstance(given.get("text"), str):
            given["text_id"] = id_of(given["text"])
        return given


def id_of(text: str) -> str:
    """Return the id of a text that has none: the same for the same text, wherever it comes from."""
    return f"text-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:20]}"


def _wrong(message: str) -> Invalid:
    return Invalid(message, errors=[FieldError("columns", message)])


def _bad_cell(name: str, message: str) -> Invalid:
    return json.invalid("row", f"{name[:60]}: {message}")


def _merge(metadata: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if key in metadata:
            raise _bad_cell(key, "Two columns give the metadata this key.")
        metadata[key] = value


# --- Cells ----------------------------------------------------------------------------------------
def _plain(value: Any, name: str) -> Any:
    if isinstance(value, simdjson.Object | simdjson.Array | dict | list):
        return json.plain(value, name[:60])
    return value


def _id(value: Any, name: str) -> Any:
    # Numbers are common ids, and stand for what they look like.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _vector(value: Any, name: str) -> Any:
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    if text.startswith("["):
        return _numbers(text, name)
    words = text.replace(",", " ").replace(";", " ").split()
    # A single word is base64.
    return _numbers(f"[{','.join(words)}]", name) if len(words) > 1 else text


def _numbers(text: str, name: str) -> Any:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _bad_cell(name, "The vector must be numbers, such as [0.1, -0.2].") from error
    if not all(type(each) in (int, float) for each in found):
        raise _bad_cell(name, "The vector must hold numbers only.")
    with np.errstate(over="ignore"):
        return np.array(found, dtype=np.float32)


def _text(value: Any, name: str) -> Any:
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, str):
        if not value.strip():
            return {}
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise _bad_cell(name, f"This is not valid JSON: {error}.") from error
    found = _plain(value, name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _bad_cell(name, "This must be a JSON object.")
    return found


def _value(value: Any, name: str) -> Any:
    found = _plain(value, name)
    return None if found == "" else found


def _string(value: Any, name: str) -> Any:
    found = _plain(value, name)
    if found is None or found == "":
        return None
    return found if isinstance(found, str) else orjson.dumps(found).decode()


def _a_number(value: Any, name: str) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if _number.fullmatch(text) is None:
            raise _bad_cell(name, f"“{text[:40]}” is not a number, such as 1801 or -0.5.")
        return _in_64_bits(text, name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _bad_cell(name, "This is not a number.")


def _in_64_bits(text: str, name: str) -> int | float:
    """Return a number as it is written; raise Invalid for one that would be another afterwards."""
    try:
        found: int | float = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _bad_cell(name, f"“{text[:40]}” does not fit into 64 bits.") from error
    # What is written as a whole number and comes back as another kind was too large for one.
    if isinstance(found, float) and not set(text) & set(".eE"):
        raise _bad_cell(name, f"“{text[:40]}” does not fit into 64 bits; read it as text.")
    return found


def _boolean(value: Any, name: str) -> Any:
    if isinstance(value, str):
        text = value.strip().lower()
        if not text:
            return None
        if text not in _BOOLEANS:
            raise _bad_cell(name, f"“{text[:40]}” is neither true nor false.")
        return _BOOLEANS[text]
    if value is None or isinstance(value, bool):
        return value
    raise _bad_cell(name, "This is neither true nor false.")


_Reading = Callable[[Any, str], Any]
_FIELDS: dict[Use, tuple[str, _Reading]] = {
    Use.ID: ("text_id", _id),
    Use.TEXT: ("text", _text),
    Use.VECTOR: ("vector", _vector),
}
_CELLS: dict[Use, _Reading] = {
    Use.VALUE: _value,
    Use.STRING: _string,
    Use.NUMBER: _a_number,
    Use.BOOLEAN: _boolean,
}


# --- Guessing -------------------------------------------------------------------------------------
def described(names: Sequence[str], rows: Sequence[Sequence[Any]], *, typed: bool) -> list[Column]:
    """Return the columns of a table, with what they are probably for.

    typed: whether values have types of their own; those of CSV are texts.
    """
    values = [
        [row[place] for row in rows if row[place] not in (None, "")] for place in range(len(names))
    ]
    kinds = [_kind(each) for each in values]
    lengths = [_length(each) for each in values]
    guesses = _guesses(names, kinds, values, typed=typed)
    return [
        Column(name, kinds[place], lengths[place], guesses[place], list(map(shown, some)))
        for place, name in enumerate(names)
        for some in [values[place][:_EXAMPLES]]
    ]


def _guesses(
    names: Sequence[str], kinds: Sequence[str], values: Sequence[list[Any]], *, typed: bool
) -> list[Use]:
    found: dict[int, Use] = {}
    fits = {
        "id": {"text", "number"},
        "text": {"text", "empty"},
        "vector": {"numbers", "list", "mixed", "text", "empty"},
        "object": {"object", "empty"},
    }
    for use, wanted in _NAMES.items():
        candidates = [
            (wanted.index(name.strip().lower()), place)
            for place, name in enumerate(names)
            if name.strip().lower() in wanted and kinds[place] in fits[use] and place not in found
        ]
        if candidates:
            found[min(candidates)[1]] = Use(use)
    if Use.VECTOR not in found.values():
        lists = [place for place, kind in enumerate(kinds) if kind == "numbers"]
        if len(lists) == 1 and lists[0] not in found:
            found[lists[0]] = Use.VECTOR
    if Use.TEXT not in found.values():
        # The longest texts are what is searched.
        texts = [
            (sum(map(len, values[place])) / max(1, len(values[place])), -place)
            for place, kind in enumerate(kinds)
            if kind == "text" and place not in found
        ]
        if texts and (Use.VECTOR not in found.values() or max(texts)[0] > 60):
            found[-max(texts)[1]] = Use.TEXT
    is_ours = {Use.ID, Use.TEXT, Use.VECTOR, Use.OBJECT} <= set(found.values())
    passed_over = _SELF_EVIDENT | (_TIMES if is_ours else set())
    return [
        found.get(place) or (Use.NO if name in passed_over else _as_metadata(kinds[place], typed))
        for place, name in enumerate(names)
    ]


def _as_metadata(kind: str, typed: bool) -> Use:
    if typed:
        return Use.NO if kind == "numbers" else Use.VALUE
    return {"number": Use.NUMBER, "boolean": Use.BOOLEAN, "numbers": Use.NO}.get(kind, Use.STRING)


def _kind(values: list[Any]) -> str:
    kinds = {_kind_of(value) for value in values}
    if not kinds:
        return "empty"
    return kinds.pop() if len(kinds) == 1 else "mixed" if kinds != {"number", "text"} else "text"


def _kind_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case dict():
            return "object"
        case list():
            is_vector = len(value) > 1 and all(type(each) in (int, float) for each in value)
            return "numbers" if is_vector else "list"
        case str():
            return _kind_of_text(value.strip())
        case _:
            return "text"


def _kind_of_text(text: str) -> str:
    if text.startswith(("{", "[")):
        try:
            return _kind_of(orjson.loads(text))
        except orjson.JSONDecodeError:
            return "text"
    if text.lower() in {"true", "false"}:
        return "boolean"
    return "number" if _number.fullmatch(text) else "text"


def _length(values: list[Any]) -> int:
    for value in values:
        if isinstance(value, str) and value.startswith("["):
            try:
                value = orjson.loads(value)
            except orjson.JSONDecodeError:
                continue
        if isinstance(value, list):
            return len(value) if _kind_of(value) == "numbers" else 0
    return 0


def shown(value: Any) -> str:
    """Return a value as people read it, on one line and not too long."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    text = " ".join(text[:400].split())
    return text if len(text) <= 120 else f"{text[:119]}…"
