"""Reads embeddings column by column where nothing about them is odd. Knows no models.

A look at one field of a thousand items takes less than a look at all fields of each; measured with
1000 x 384 numbers: 9 ms against 29. Whatever is odd makes `read` return None: `embeddings.batches`
then goes item by item, and knows what to say about it. So nothing here refuses, and what is
accepted here must be accepted there with the same values.
"""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson
import pybase64
import simdjson

from common import json
from common.errors import Invalid

MAXIMUM_TEXT_ID_LENGTH = 300
# Objects with more fields convert their values all at once; see `json.members`.
MAXIMUM_FIELDS = 64

Matrix = npt.NDArray[np.float32]
# Squares of norms between these are far from everything that `batches.vector_problems` refuses,
# however coarsely float32 adds them up.
_SURELY_USABLE = (np.float32(1e-30), np.float32(1e30))
_LARGEST_INTEGER = 2**63 - 1
_SMALLEST_INTEGER = -(2**63)
_PIECE = 256 * 1024


class Odd(Exception):
    """Something has to be looked at item by item."""


@dataclass(frozen=True)
class Columns:
    """Embeddings whose every value can be stored; n rows.

    vectors: float32 of shape (n, dimensions).
    metadata: Python values; `metadata_json` holds the same as UTF-8 JSON.
    """

    vectors: Matrix
    text_ids: list[str]
    texts: list[str]
    metadata: list[dict[str, Any] | None]
    metadata_json: list[bytes]


def read(
    items: Sequence[Any], *, dimensions: int, instances: Sequence[str], owner: str
) -> Columns | None:
    """Return the items of a JSON document, or None where one of them has to be looked at.

    instances: how the instance may be named; owner: its owner's handle.
    Vectors of lists in lists are taken for flat ones: `has_brackets` tells.
    """
    try:
        keys = _checked_keys(items, {"text_id", "instance_handle", "vector", "vector_dim"})
        _check_same([each["instance_handle"] for each in items], set(instances), str)
        _check_given(_optional(items, keys, "instance_owner"), {owner}, str)
        _check_same([each["vector_dim"] for each in items], {dimensions}, int)
        text_ids = checked_ids([each["text_id"] for each in items])
        texts = checked_texts(_optional(items, keys, "text"))
        metadata = _metadata([_text_of(each) for each in _optional(items, keys, "metadata")])
        vectors = _vectors([each["vector"] for each in items], dimensions)
    except (Odd, Invalid, ValueError, RuntimeError):
        return None
    return Columns(vectors, text_ids, texts, metadata.values, metadata.rendered)


def _checked_keys(items: Sequence[Any], needed: set[str]) -> list[tuple[str, ...]]:
    if any(type(each) is not simdjson.Object for each in items):
        raise Odd
    found = [tuple(each.keys()) for each in items]
    for keys in set(found):
        if len(keys) > MAXIMUM_FIELDS or len(set(keys)) != len(keys) or not needed <= set(keys):
            raise Odd
        _check_text("".join(keys))
    return found


def _optional(items: Sequence[Any], keys: list[tuple[str, ...]], name: str) -> list[Any]:
    """Return a field of each item, None where it has none: asking for it would be slow."""
    return [each[name] if name in of_it else None for each, of_it in zip(items, keys, strict=True)]


def _check_same(values: list[Any], allowed: set[Any], kind: type) -> None:
    # By type first: lists cannot be looked up in a set, and True equals 1.
    if not (set(map(type, values)) <= {kind} and set(values) <= allowed):
        raise Odd


def _check_text(text: str) -> None:
    json.checked_text(text, "")


def checked_ids(text_ids: list[Any]) -> list[str]:
    """Return the ids if all of them are good ones, else raise Odd or Invalid."""
    if set(map(type, text_ids)) != {str}:
        raise Odd
    lengths = list(map(len, text_ids))
    if min(lengths) < 1 or max(lengths) > MAXIMUM_TEXT_ID_LENGTH:
        raise Odd
    _check_text("".join(text_ids))
    return text_ids


def checked_texts(texts: list[Any]) -> list[str]:
    """Return the texts, "" for None, if all of them can be stored, else raise Odd or Invalid."""
    given = ["" if each is None else each for each in texts]
    if not set(map(type, given)) <= {str}:
        raise Odd
    _check_text("".join(given))
    return given


@dataclass(frozen=True)
class _Metadata:
    """The metadata of a batch: Python values, and the same as UTF-8 JSON, `{}` for none."""

    values: list[dict[str, Any] | None]
    rendered: list[bytes]


def _metadata(given: Sequence[bytes | None]) -> _Metadata:
    """Return the objects that JSON texts hold.

    Raises Odd for a text that is something else, ValueError where it is not JSON, and Invalid for
    what cannot be stored.
    """
    quick = json.quick_objects([each for each in given if each is not None])
    if quick is None:
        return _metadata_one_by_one(given)
    values, rendered = iter(quick[0]), iter(quick[1])
    return _Metadata(
        [None if each is None else next(values) for each in given],
        [b"{}" if each is None else next(rendered) for each in given],
    )


def _metadata_one_by_one(given: Sequence[bytes | None]) -> _Metadata:
    metadata = _Metadata([], [])
    parser = simdjson.Parser()
    known: dict[tuple[str, ...], bool] = {}
    texts: list[str] = []
    for each in given:
        value: dict[str, Any] | None = None
        rendered = b"{}"
        if each is not None:
            value, rendered = json.quick_object(each) or _walked(each, parser, known, texts)
        metadata.values.append(value)
        metadata.rendered.append(rendered)
    _check_text("".join(texts))
    return metadata


def _walked(
    text: bytes, parser: simdjson.Parser, known: dict[tuple[str, ...], bool], texts: list[str]
) -> tuple[dict[str, Any], bytes]:
    node: Any = parser.parse(text)
    if type(node) is not simdjson.Object:
        raise Odd
    value = _object(node, known, texts)
    return value, orjson.dumps(value)


def _text_of(node: Any) -> bytes | None:
    """Return the JSON text of an object of a document, None for None; raise Odd for others."""
    if node is None:
        return None
    if type(node) is not simdjson.Object:
        raise Odd
    # The stubs say str; it is bytes.
    return bytes(cast("Any", node.mini))


def _object(node: Any, known: dict[tuple[str, ...], bool], texts: list[str]) -> dict[str, Any]:
    """Return an object as `json.plain` does, except that its texts are still to be checked.

    known: the combinations of keys that were looked at before.
    """
    if len(node) > MAXIMUM_FIELDS:
        return dict(json.plain(node, ""))
    keys = tuple(node.keys())
    if keys not in known:
        if len(set(keys)) != len(keys):
            raise Odd
        _check_text("".join(keys))
        known[keys] = True
    found = {}
    for key in keys:
        value = node[key]
        kind = type(value)
        if kind is str:
            texts.append(value)
        elif kind is int:
            if not _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
                raise Odd
        elif kind is simdjson.Object or kind is simdjson.Array:
            value = json.plain(value, "", depth=2)
        found[key] = value
    return found


def _vectors(values: list[Any], dimensions: int) -> Matrix:
    kinds = set(map(type, values))
    if kinds == {str}:
        vectors = from_base64(values, dimensions)
    elif kinds == {simdjson.Array}:
        vectors = _from_lists(values, dimensions)
    else:
        raise Odd
    check_vectors(vectors)
    return vectors


def _from_lists(values: list[Any], dimensions: int) -> Matrix:
    if set(map(len, values)) != {dimensions}:
        raise Odd
    vectors = np.empty((len(values), dimensions), dtype=np.float32)
    with np.errstate(over="ignore"):
        for row, each in enumerate(values):
            try:
                numbers = np.frombuffer(each.as_buffer(of_type="d"), dtype=np.float64)
            except (TypeError, ValueError):
                raise Odd from None
            if len(numbers) != dimensions:
                raise Odd
            vectors[row] = numbers
    return vectors


def from_base64(values: Sequence[str], dimensions: int) -> Matrix:
    """Return vectors out of the base64 of their little-endian float32 numbers, or raise Odd."""
    size = 4 * dimensions
    if set(map(len, values)) != {4 * -(-size // 3)}:
        raise Odd
    try:
        if size % 3:
            # Each ends in its own padding.
            numbers = b"".join(pybase64.b64decode(each, validate=True) for each in values)
        else:
            numbers = pybase64.b64decode("".join(values), validate=True)
    except (binascii.Error, ValueError):
        raise Odd from None
    if len(numbers) != size * len(values):
        raise Odd
    return np.frombuffer(numbers, dtype="<f4").reshape(len(values), dimensions)


def check_vectors(vectors: Matrix) -> None:
    """Raise Odd unless every vector has a length that is surely usable."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
    least, most = _SURELY_USABLE
    # Compared so that what is not a number is not usable either.
    if not ((squares >= least) & (squares <= most)).all():
        raise Odd


def read_lines(
    lines: Sequence[bytes], *, dimensions: int, instances: Sequence[str], owner: str
) -> Columns | None:
    """Return the embeddings of lines of JSON, or None where one of them has to be looked at.

    Unlike items of a batch, they need not name their instance nor the length of their vector.
    """
    fields: dict[str, list[Any]] = {name: [] for name in _FIELDS}
    documents: list[bytes | None] = []
    known: dict[tuple[str, ...], bool] = {}
    buffers: list[Any] = []
    opened = 0
    parser = simdjson.Parser()
    node: Any
    value: Any
    try:
        for line in lines:
            # A parser reads on only when nothing refers to what it read before.
            node = value = None
            node = parser.parse(line)
            if type(node) is not simdjson.Object:
                raise Odd
            keys = tuple(node.keys())
            if keys not in known:
                _check_line_keys(keys)
                known[keys] = True
            for name, values in fields.items():
                values.append(node[name] if name in keys else None)
            value = node["vector"]
            if type(value) is simdjson.Array:
                if len(value) != dimensions:
                    raise Odd
                value = np.frombuffer(value.as_buffer(of_type="d"), dtype=np.float64)
                opened += 1
            buffers.append(value)
            value = node["metadata"] if "metadata" in keys else None
            documents.append(_text_of(value))
            opened -= line.count(b"[")
            if b"\\" in line and (b"\\u005b" in line or b"\\u005B" in line):
                raise Odd
        node = value = None
        metadata = _metadata(documents)
        _check_given(fields["instance_handle"], set(instances), str)
        _check_given(fields["instance_owner"], {owner}, str)
        _check_given(fields["vector_dim"], {dimensions}, int)
        text_ids, given = checked_ids(fields["text_id"]), checked_texts(fields["text"])
        vectors = _numbers(buffers, dimensions)
        check_vectors(vectors)
    except (Odd, Invalid, ValueError, TypeError, RuntimeError):
        return None
    # Lists in lists look like flat ones, but for their brackets.
    opened += sum(each.count("[") for each in text_ids) + sum(each.count("[") for each in given)
    if opened + sum(each.count(b"[") for each in metadata.rendered):
        return None
    return Columns(vectors, text_ids, given, metadata.values, metadata.rendered)


_FIELDS = ("text_id", "text", "instance_handle", "instance_owner", "vector_dim")


def _check_line_keys(keys: tuple[str, ...]) -> None:
    if len(keys) > MAXIMUM_FIELDS or len(set(keys)) != len(keys):
        raise Odd
    if not {"text_id", "vector"} <= set(keys):
        raise Odd
    _check_text("".join(keys))


def _check_given(values: list[Any], allowed: set[Any], kind: type) -> None:
    _check_same([each for each in values if each is not None], allowed, kind)


def _numbers(values: list[Any], dimensions: int) -> Matrix:
    """Return vectors of float64 arrays, or of base64 texts."""
    kinds = set(map(type, values))
    if kinds == {str}:
        return from_base64(values, dimensions)
    if kinds != {np.ndarray} or set(map(len, values)) != {dimensions}:
        raise Odd
    with np.errstate(over="ignore"):
        return np.stack(values).astype(np.float32)


def read_arrow(
    given: dict[str, list[Any]],
    vectors: Matrix,
    *,
    dimensions: int,
    instances: Sequence[str],
    owner: str,
) -> Columns | None:
    """Return the embeddings of columns, or None where one of them has to be looked at.

    given: the values of the columns but the vectors; metadata as JSON texts.
    vectors: float32 of shape (n, dimensions).
    """
    none = [None] * len(vectors)
    try:
        _check_given(given.get("instance_handle", none), set(instances), str)
        _check_given(given.get("instance_owner", none), {owner}, str)
        _check_given(given.get("vector_dim", none), {dimensions}, int)
        text_ids, texts = checked_ids(given["text_id"]), checked_texts(given.get("text", none))
        documents = given.get("metadata", none)
        metadata = _metadata([None if each is None else each.encode() for each in documents])
        check_vectors(vectors)
    except (Odd, Invalid, ValueError, RuntimeError):
        return None
    return Columns(vectors, text_ids, texts, metadata.values, metadata.rendered)


def brackets(body: bytes) -> int:
    """Return how many `[` the body holds; four times as fast as `bytes.count` where they are few.

    In pieces, which stay in the processor's cache.
    """
    numbers = np.frombuffer(body, dtype=np.uint8)
    pieces = (numbers[start : start + _PIECE] for start in range(0, len(numbers), _PIECE))
    return sum(int(np.count_nonzero(piece == ord("["))) for piece in pieces)
