"""The one JSON reader of both APIs.

simdjson parses (UTF-8, surrogates, numbers and syntax strictly checked, numeric arrays readable
as buffers); the walk in `plain` refuses what it lets through and PostgreSQL or a client would trip
over: U+0000, integers past 64 bits, repeated keys, deep nesting, floods of values.
"""

import json as stdlib
import re
import secrets
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson
import simdjson

from common.errors import FieldError, Invalid, NotJson

MAX_DEPTH = 64
MAX_VALUES = 100_000
# The largest of the free documents that a row may hold: metadata, settings.
MAX_DOCUMENT_BYTES = 1024 * 1024
# Looking a member up walks through those before it: the square of this is affordable.
_SMALL = 1_000
# Reading a body once more, to say what is wrong with it.
_CHEAP = 1024 * 1024
_LARGEST_INTEGER = 2**63 - 1
_SMALLEST_INTEGER = -(2**63)


# Parsers that nobody uses at the moment, with the memory of the last body they read.
_parsers: deque[simdjson.Parser] = deque(maxlen=2)
_KEPT = 36 * 1024**2

_string = re.compile(rb'"(?:[^"\\]|\\.)*"')
# Nineteen digits may be more than 64 bits; looked for in a text whose digits are all made zeros,
# which takes a tenth of the time of a regular expression.
_AS_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * 19
_SPACE = b" \t\r\n"


class Budget:
    """Counts values while walking, so that a flood is refused before it is built."""

    def __init__(self, limit: int = MAX_VALUES) -> None:
        self.limit = limit
        self.left = limit

    def spend(self, location: str) -> None:
        """Take one value off; raise Invalid when none is left."""
        self.afford(1, location)
        self.left -= 1

    def afford(self, count: int, location: str) -> None:
        """Raise Invalid when fewer values than that are left."""
        if count > self.left:
            raise invalid(location, f"It holds more than {self.limit} values; send less at once.")


def invalid(location: str, message: str) -> Invalid:
    """Return the Invalid for one place of the request."""
    return Invalid(f"{location}: {message}", errors=[FieldError(location, message)])


def _not_json(message: str) -> NotJson:
    return NotJson(f"body: {message}", errors=[FieldError("body", message)])


@contextmanager
def parser_for(body: bytes) -> Iterator[simdjson.Parser]:
    """Lend a parser whose memory is kept for the next body: large ones take half the time.

    No view of its document may be referenced any more when the block is left.
    """
    try:
        parser = _parsers.pop()
    except IndexError:
        parser = simdjson.Parser()
    yield parser
    if len(body) <= _KEPT:
        try:
            # Fails while views of the document exist.
            parser.parse(b"0")
        except RuntimeError:
            return
        _parsers.append(parser)


def document(body: bytes, parser: simdjson.Parser | None = None) -> Any:
    """Return simdjson's view of the body: an Object, an Array or a plain scalar.

    The view is valid while it is referenced; numbers of arrays are not yet Python objects.
    parser: see `parser_for`; by default a new one.

    Raises NotJson for anything that is not one JSON value in UTF-8, Invalid for one that holds what
    nothing here can represent: numbers past 64 bits, half of a surrogate pair, thousands of levels.
    """
    if not body.strip(b" \t\r\n"):
        raise _not_json("The request needs a JSON body, and it is empty.")
    try:
        return (parser or simdjson.Parser()).parse(body)
    except (ValueError, RuntimeError) as error:
        problem = _problem(body)
        if _is_json(body):
            raise invalid("body", f"The request body cannot be read: {problem}.") from error
        raise _not_json(f"The request body is not valid JSON: {problem}.") from error


def parse(body: bytes, *, location: str = "body") -> Any:
    """Return the body as plain Python values; raise as `document` and `plain` do."""
    return plain(document(body), location)


def plain(node: Any, location: str, budget: Budget | None = None, depth: int = 1) -> Any:
    """Return a node of a document as plain Python values.

    location: the dotted path of the node, for error texts.
    Raises Invalid for U+0000, integers outside ±2^63, repeated keys, nesting over 64 levels and
    more values than the budget allows.
    """
    budget = budget or Budget()
    budget.spend(location)
    if isinstance(node, str):
        return checked_text(node, location)
    if isinstance(node, bool) or node is None or isinstance(node, float):
        return node
    if isinstance(node, int):
        if not _SMALLEST_INTEGER <= node <= _LARGEST_INTEGER:
            raise invalid(location, "The number does not fit into 64 bits; send it as a string.")
        return node
    if depth > MAX_DEPTH:
        raise invalid(location, f"It is nested deeper than {MAX_DEPTH} levels.")
    budget.afford(len(node), location)
    if isinstance(node, simdjson.Object) and len(node) > _SMALL:
        # Its members are made into Python objects with all that they hold.
        budget.afford(_values_in(node), location)
    if isinstance(node, simdjson.Object | dict):
        result: dict[str, Any] = {}
        for key, value in members(node, location):
            checked_text(key, f"{location} (a key)")
            result[key] = plain(value, f"{location}.{key[:80]}", budget, depth + 1)
        return result
    return [
        plain(value, f"{location}[{index}]", budget, depth + 1) for index, value in enumerate(node)
    ]


def quick_object(text: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Return the object in a JSON text as `plain` would, and rendered; None where it must walk.

    Five times as fast, for the many small documents of a batch, and right for what is rendered as
    it came: a key that occurs twice, or a number that was changed, would be missing there. White
    space does not count, wherever it is: it separates neither keys nor values.
    """
    if len(text) >= MAX_VALUES or _opened(text) > MAX_DEPTH:
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    rendered = orjson.dumps(found)
    is_same = rendered == text or (rendered.translate(None, _SPACE) == text.translate(None, _SPACE))
    if not is_same or type(found) is not dict:
        return None
    if _is_odd(rendered):
        return None
    return found, rendered


def quick_objects(texts: Sequence[bytes]) -> tuple[list[dict[str, Any]], list[bytes]] | None:
    """Return what `quick_object` would of each of many JSON texts, or None if of any None.

    They are read as one list, in half the time. Between each two stands a text that nobody can
    guess, so that what begins in one of them cannot end in another.
    """
    if not texts:
        return [], []
    longest = max(map(len, texts))
    if longest >= MAX_VALUES or max(map(_opened, texts)) > MAX_DEPTH:
        return None
    between = secrets.token_hex(16)
    joined = b"[" + f',"{between}",'.encode().join(texts) + b"]"
    try:
        found = orjson.loads(joined)
    except orjson.JSONDecodeError:
        return None
    values = found[::2]
    if found[1::2] != [between] * (len(texts) - 1) or set(map(type, values)) != {dict}:
        return None
    rendered = orjson.dumps(found)
    if _is_odd(rendered):
        return None
    if rendered == joined:
        return values, list(texts)
    if rendered.translate(None, _SPACE) != joined.translate(None, _SPACE):
        return None
    return values, list(map(orjson.dumps, values))


def _is_odd(rendered: bytes) -> bool:
    """Say whether there may be U+0000 or a number past 64 bits in it."""
    return b"\\u0000" in rendered or _LONG_NUMBER in rendered.translate(_AS_ZEROS)


def _opened(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def members(node: Any, location: str) -> Iterator[tuple[str, Any]]:
    """Return the members of an object of a document; raise Invalid for a key that occurs twice.

    The values of small objects stay views into the document.
    """
    if isinstance(node, dict):
        yield from node.items()
        return
    keys = list(node.keys())
    if len(set(keys)) != len(keys):
        twice, _ = Counter(keys).most_common(1)[0]
        raise invalid(location, f"The key '{twice[:80]}' occurs twice.")
    for key in keys:
        # The look-up below ends a key at U+0000, and so would find another member or none.
        checked_text(key, f"{location} (a key)")
    if len(keys) > _SMALL:
        # Many members are converted at once, which would hide keys that repeat further down.
        _refuse_repeats(node, location)
        yield from node.as_dict().items()
    else:
        yield from ((key, node[key]) for key in keys)


def _values_in(node: Any) -> int:
    """Return how many values an object of a document holds at all depths."""
    structure = _string.sub(b"", bytes(node.mini))
    opened = structure.count(b"[") + structure.count(b"{")
    return structure.count(b",") + opened - structure.count(b"[]") - structure.count(b"{}")


def _refuse_repeats(node: Any, location: str) -> None:
    def once(pairs: list[tuple[str, Any]]) -> None:
        if len({key for key, _ in pairs}) != len(pairs):
            raise invalid(location, "A key occurs twice in an object within it.")

    try:
        stdlib.loads(bytes(node.mini), object_pairs_hook=once)
    except RecursionError:
        raise invalid(location, f"It is nested deeper than {MAX_DEPTH} levels.") from None


def checked_text(value: str, location: str) -> str:
    """Return the text, or raise Invalid where the database could not store it."""
    if "\x00" in value:
        raise invalid(location, "The text holds the character U+0000, which cannot be stored.")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise invalid(
                location, "The text holds half of a surrogate pair, which is not valid Unicode."
            ) from None
    return value


def check_document(value: Any, location: str) -> None:
    """Raise Invalid for a document that is larger than a row may hold, or that `plain` refuses.

    For what is put together from more than one request.
    """
    plain(value, location)
    if len(render(value)) > MAX_DOCUMENT_BYTES:
        raise invalid(location, f"It is larger than {MAX_DOCUMENT_BYTES // 1024**2} MiB.")


def merged(target: Any, patch: Any) -> Any:
    """Return a value with a merge patch applied (RFC 7396): null removes, objects are merged."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


class StoredDecoder(stdlib.JSONDecoder):
    """Reads what PostgreSQL returns: it spells the float 1e22 as a whole number of 23 digits."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "parse_int": _number})


def _number(digits: str) -> int | float:
    number = int(digits)
    return number if _SMALLEST_INTEGER <= number <= _LARGEST_INTEGER else float(digits)


def render(value: Any) -> bytes:
    """Return the value as compact UTF-8 JSON; numpy arrays become JSON arrays."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)


def _is_json(body: bytes) -> bool:
    """Tell whether a body that simdjson refused is JSON all the same, as far as that is cheap."""
    if len(body) > _CHEAP:
        return False
    try:
        # Numbers stay text: converting a long one takes the square of its length.
        stdlib.loads(body.decode(), parse_int=str, parse_float=str, parse_constant=_refuse)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _problem(body: bytes) -> str:
    # A second, slower reading only to tell people the line and column.
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        return str(error)
    return "it holds a number that does not fit into 64 bits; send it as a string"
