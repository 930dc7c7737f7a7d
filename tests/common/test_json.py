"""The JSON reader: what it takes, and what it refuses with which words."""

import json as stdlib
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import json
from common.errors import Invalid

LARGEST = 2**63 - 1

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20)
NUMBERS = st.integers(-(2**63), LARGEST) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_what_json_can_hold_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    for ascii_only in (True, False):
        body = stdlib.dumps(value, ensure_ascii=ascii_only).encode()
        read = json.parse(body)
        assert read == stdlib.loads(body)
        assert type(read) is type(stdlib.loads(body))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_or_refused(body: bytes) -> None:
    with suppress(Invalid):
        json.parse(body)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from('{}[]",:0123456789eE+-.truefalsn\\u \n\x00'), max_size=60))
def test_almost_json_is_read_only_where_the_standard_library_reads_it(text: str) -> None:
    try:
        read = json.parse(text.encode())
    except Invalid:
        return
    assert stdlib.loads(text, parse_constant=pytest.fail) == read


REFUSED = {
    "nothing": b"",
    "white space": b" \n\t ",
    "cut off": b'{"a": [1, 2',
    "cut off in a string": b'{"a": "b',
    "trailing comma in a list": b"[1, 2,]",
    "trailing comma in an object": b'{"a": 1,}',
    "two values": b'{"a": 1} {"b": 2}',
    "rest": b'{"a": 1}x',
    "comment": b'{"a": 1 /* one */}',
    "line comment": b'{"a": 1} // one',
    "single quotes": b"{'a': 1}",
    "bare key": b"{a: 1}",
    "hexadecimal": b'{"a": 0x1F}',
    "octal": b'{"a": 017}',
    "leading plus": b'{"a": +1}',
    "bare point": b'{"a": .5}',
    "point at the end": b'{"a": 1.}',
    "underscore": b'{"a": 1_000}',
    "other digits": '{"a": ٣}'.encode(),
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": Infinity}',
    "-Infinity": b'{"a": -Infinity}',
    "1e400": b'{"a": 1e400}',
    "-1e400": b'{"a": -1e400}',
    "2^63": b'{"a": 9223372036854775808}',
    "-2^63-1": b'{"a": -9223372036854775809}',
    "2^64": b'{"a": 18446744073709551616}',
    "400 digits": b'{"a": ' + b"1" * 400 + b"}",
    "control character": b'{"a": "b\x01c"}',
    "line break in a string": b'{"a": "b\nc"}',
    "tab in a string": b'{"a": "b\tc"}',
    "bad escape": rb'{"a": "\x41"}',
    "U+0000": rb'{"a": "b\u0000c"}',
    "U+0000 raw": b'{"a": "b\x00c"}',
    "U+0000 in a key": rb'{"a\u0000": 1}',
    "U+0000 at the end": b'{"a": 1}\x00',
    "lone high surrogate": rb'{"a": "\ud800"}',
    "lone low surrogate": rb'{"a": "\udc00"}',
    "surrogates the wrong way round": rb'{"a": "\udc00\ud800"}',
    "surrogate in a key": rb'{"\ud800": 1}',
    "surrogate in raw bytes": b'{"a": "\xed\xa0\x80"}',
    "invalid UTF-8": b'{"a": "\xff"}',
    "cut-off UTF-8": b'{"a": "\xe2\x82"}',
    "overlong UTF-8": b'{"a": "\xc0\x80"}',
    "Latin-1": '{"a": "ü"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a": 1}'.encode("utf-16-le"),
    "UTF-32": '{"a": 1}'.encode("utf-32"),
    "key twice": b'{"a": 1, "a": 2}',
    "key twice, escaped": rb'{"a": 1, "\u0061": 2}',
    "key twice further down": b'{"a": [{"b": 1, "b": 2}]}',
    "65 lists": b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}",
    "65 objects": b'{"a":' * 65 + b"1" + b"}" * 65,
    "1 000 lists": b"[" * 1000 + b"]" * 1000,
    "100 000 lists": b"[" * 100_000 + b"]" * 100_000,
    "100 000 open lists": b"[" * 100_000,
    "100 000 open objects": b'{"a":' * 100_000,
    "100 001 values": b"[" + b"1," * 100_000 + b"1]",
    "a million members": b"{" + b",".join(b'"%d":1' % n for n in range(1_000_000)) + b"}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_database_or_a_client_would_trip_over_is_refused(name: str) -> None:
    with pytest.raises(Invalid) as refused:
        json.parse(REFUSED[name])
    (error,) = refused.value.errors
    assert error.location.startswith("body")
    assert len(refused.value.detail) < 1000


ACCEPTED: dict[str, tuple[bytes, Any]] = {
    "white space around": (b' \r\n\t{"a": 1}\n', {"a": 1}),
    "largest integers": (b"[9223372036854775807, -9223372036854775808]", [LARGEST, -LARGEST - 1]),
    "a pair of surrogates": (rb'"\ud83d\ude00"', "😀"),
    "an emoji": ('"😀"'.encode(), "😀"),
    "64 levels": (b"[" * 64 + b"]" * 64, stdlib.loads("[" * 64 + "]" * 64)),
    "scalars": (b"[null, true, false, 0, -0.0, 1e3]", [None, True, False, 0, -0.0, 1000.0]),
    "100 000 values": (b"[" + b"1," * 99_998 + b"1]", [1] * 99_999),
    "an empty key": (b'{"": {"": []}}', {"": {"": []}}),
    "escapes": (rb'"\" \\ \/ \b \f \n \r \t"', '" \\ / \b \f \n \r \t'),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_json_is_read(name: str) -> None:
    body, value = ACCEPTED[name]
    assert json.parse(body) == value


@pytest.mark.parametrize("size", [2, 70, 1_000, 1_001, 5_000])
@pytest.mark.parametrize("place", ["here", "below", "further below"])
def test_a_key_that_occurs_twice_is_found_in_objects_of_any_size(size: int, place: str) -> None:
    many = ",".join(f'"k{number}":1' for number in range(size))
    twice = {
        "here": f'{{{many},"k{size - 1}":2}}',
        "below": f'{{{many},"n":{{"a":1,"a":2}}}}',
        "further below": f'{{{many},"n":[[{{"m":{{"a":1,"b":2,"a":3}}}}]]}}',
    }[place]
    with pytest.raises(Invalid, match="twice"):
        json.parse(twice.encode())
    once = json.parse(f'{{{many},"n":[{{"a":1}},{{"a":1}}]}}'.encode())
    assert len(once) == size + 1


def test_many_repeated_keys_are_refused_at_once() -> None:
    """Comparing each key with all before it would take minutes."""
    body = "{" + ",".join(f'"k{number}":1' for number in range(99_998)) + ',"k99997":2}'
    with pytest.raises(Invalid, match="k99997"):
        json.parse(body.encode())


def test_a_location_is_a_dotted_path() -> None:
    with pytest.raises(Invalid) as refused:
        json.parse(b'{"a": [1, {"b c": 18446744073709551615}]}')
    assert refused.value.errors[0].location == "body.a[1].b c"
    assert refused.value.detail.startswith("body.a[1].b c: ")


def test_syntax_errors_name_line_and_column() -> None:
    with pytest.raises(Invalid, match="line 2 column"):
        json.parse(b'{"a": 1,\n"b" 2}')


def test_rendered_json_is_compact_utf8_with_arrays_and_no_nan() -> None:
    array = np.array([0.1, -2.5, 3], dtype=np.float32)
    assert json.render({"ü": array, "n": None}) == '{"ü":[0.1,-2.5,3.0],"n":null}'.encode()
    assert json.render(float("nan")) == b"null"


def test_values_below_many_members_are_counted_before_they_are_made() -> None:
    members = b",".join(b'"k%d": "[{,"' % n for n in range(1_001))
    body = b'{%s, "z": [%s]}' % (members, b"{}," * 1_000_000 + b"{}")
    tracemalloc.start()
    with pytest.raises(Invalid, match="more than 100000 values"):
        json.parse(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A million empty dicts take 64 MB.
    assert peak < 20_000_000
    assert len(json.parse(b'{%s, "z": [%s]}' % (members, b"{}," * 90_000 + b"{}"))["z"]) == 90_001


_documents = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
        max_leaves=8,
    ),
    max_size=5,
)


@given(_documents, st.sampled_from([None, 1]), st.booleans())
def test_quick_objects_are_those_of_the_walk(
    document: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    text = stdlib.dumps(document, indent=indent, ensure_ascii=ascii_only)
    text_bytes = text.encode("utf-8", "surrogatepass")
    found = json.quick_object(text_bytes)
    if found is not None:
        walked = json.parse(text_bytes)
        assert found == (walked, json.render(walked))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a b": 1, "a b": 1}',
        '{"a": {"b": 1, "b": 1}}',
        '{"a": 9223372036854775808}',
        '{"a": 123456789012345678901234567890}',
        '{"a": 1e400}',
        '{"a": NaN}',
        '{"a": "\\u0000"}',
        '{"\\u0000": 1}',
        '{"a": "\\ud800"}',
        '{"a": ' + "[" * 70 + "]" * 70 + "}",
        "[]",
        "1",
        "",
    ],
)
def test_quick_objects_leave_the_rest_to_the_walk(text: str) -> None:
    assert json.quick_object(text.encode()) is None


@given(st.lists(_documents, max_size=4), st.sampled_from([None, 1]))
def test_many_quick_objects_are_those_of_each(
    documents: list[dict[str, Any]], indent: int | None
) -> None:
    texts = [
        stdlib.dumps(each, indent=indent).encode("utf-8", "surrogatepass") for each in documents
    ]
    each_alone = [json.quick_object(text) for text in texts]
    found = json.quick_objects(texts)
    if found is None:
        assert None in each_alone
    else:
        assert list(zip(*found, strict=True)) == each_alone


@pytest.mark.parametrize(
    "texts",
    [
        ["{}", "[]"],
        ["{}", ""],
        ["{}, {}", "{}"],
        ['{"a": [{}', "{}]}", "{}, {}"],
        ['{"a": "', '"}', "{}, {}"],
        ["{}", '{"a": 1, "a": 2}'],
        ["{}", '{"a": 123456789012345678901234567890}'],
        ["{}", '{"a": "\\u0000"}'],
        ["{}", '{"a": ' + "[" * 70 + "]" * 70 + "}"],
    ],
)
def test_many_quick_objects_are_left_to_the_walk_where_one_is_odd(texts: list[str]) -> None:
    assert json.quick_objects([text.encode() for text in texts]) is None


def test_no_quick_objects_are_none() -> None:
    assert json.quick_objects([]) == ([], [])


def test_quick_objects_may_hold_white_space() -> None:
    text = '{"a b": "c d", "list": [1, 2.5, null]}\n'
    assert json.quick_object(text.encode()) == (
        {"a b": "c d", "list": [1, 2.5, None]},
        b'{"a b":"c d","list":[1,2.5,null]}',
    )
