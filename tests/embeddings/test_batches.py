"""Uploads: whole or not at all, and every refusal names the item, the field and the way out."""

from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest

from embeddings.batches import MAXIMUM_ITEMS
from tests.factories import Answer, Caller, Cast, item, make_instance, make_project, vectors

PROJECT = "/v1/embeddings/alice/letters"
LONG = "x" * 301
REQUIRED_AUTHOR = {
    "type": "object",
    "properties": {
        "author": {"type": "string"},
        "year": {"type": "integer", "minimum": 1700},
        "source": {"type": "object", "properties": {"page": {"type": "integer"}}},
    },
    "required": ["author"],
}


def refusal(answer: Answer, status: int = 400) -> dict[str, Any]:
    """Return the body of a refusal after checking what all of them have in common."""
    title = {400: "Bad Request", 409: "Conflict", 413: "Content Too Large"}[status]
    if status == 413 and answer["title"] == "Request Entity Too Large":
        title = answer["title"]  # Python 3.12 and earlier
    assert (answer.status, answer["status"], answer["title"]) == (status, status, title)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert len(answer.content) <= 64 * 1024
    return dict(answer.body)


# --- One bad item among a thousand ----------------------------------------------------------------
@cache
def thousand() -> tuple[bytes, ...]:
    """Return 1000 embeddings of 1536 dimensions, each as JSON; made once, never changed."""
    return tuple(
        orjson.dumps(
            item(f"t{row:04}", ()) | {"vector": vector, "vector_dim": 1536, "metadata": {"n": row}},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        for row, vector in enumerate(vectors(1000, 1536, seed=7))
    )


def body_of(items: list[bytes] | tuple[bytes, ...]) -> bytes:
    return b'{"embeddings": [' + b",".join(items) + b"]}"


@pytest.fixture
def large(cast: Cast) -> str:
    """Make a project of 1536 dimensions with a metadata schema; return its address."""
    make_instance("alice", "big", dimensions=1536)
    schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    make_project("alice", "large", instance="big", metadataScheme=schema)
    return "/v1/embeddings/alice/large"


def with_last(**changes: Any) -> list[bytes]:
    last = orjson.loads(thousand()[-1])
    last |= {"instance_handle": "big", **changes}
    return [
        *(each.replace(b'"model"', b'"big"') for each in thousand()[:-1]),
        orjson.dumps({name: value for name, value in last.items() if value is not ...}),
    ]


def test_a_thousand_embeddings_of_1536_dimensions_go_up_in_one_request(
    cast: Cast, large: str
) -> None:
    answer = cast.alice.post(large, raw=body_of(with_last()))
    ids = [f"t{row:04}" for row in range(1000)]
    assert (answer.status, answer.body) == (
        201,
        {
            "message": "1000 embedding(s) uploaded successfully",
            "uploaded": ids,
            "ids": ids,
            "count": 1000,
        },
    )
    page = cast.alice.get(f"{large}?limit=200&offset=800")
    assert page["total_count"] == 1000
    stored = np.array([row["vector"] for row in page["embeddings"]], dtype=np.float32)
    assert np.array_equal(stored, vectors(1000, 1536, seed=7)[800:])
    assert [row["metadata"] for row in page["embeddings"]] == [
        {"n": row} for row in range(800, 1000)
    ]


LAST = "body.embeddings[999]"
BAD_LAST: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "one number short": (
        {"vector": [0.5] * 1535},
        400,
        f"{LAST}.vector",
        "dimension validation failed: vector length mismatch for text_id 't0999': actual vector "
        "has 1535 elements but vector_dim declares 1536",
    ),
    "declares another length": (
        {"vector_dim": 1535},
        400,
        f"{LAST}.vector_dim",
        "dimension validation failed: vector dimension mismatch: embedding declares 1535 "
        "dimensions but LLM service 'big' expects 1536 dimensions",
    ),
    "infinite as float32": (
        {"vector": [0.5] * 1535 + [1e39]},
        400,
        f"{LAST}.vector",
        f"{LAST}.vector: vector has elements that are too large for 32-bit floating point.",
    ),
    "a null among the numbers": (
        {"vector": [0.5] * 1535 + [None]},
        400,
        f"{LAST}.vector",
        f"{LAST}.vector: vector must hold numbers only: no strings, booleans, nulls or lists.",
    ),
    "against the schema": (
        {"metadata": {"n": "many"}},
        400,
        f"{LAST}.metadata.n",
        "metadata validation failed for text_id 't0999': metadata validation failed:\n"
        "  - n: Invalid type. Expected: integer, given: string",
    ),
    "an id of 301 characters": (
        {"text_id": LONG},
        400,
        f"{LAST}.text_id",
        f"{LAST}.text_id: text_id must have 1 to 300 characters; this one has 301.",
    ),
    "no instance": (
        {"instance_handle": ...},
        400,
        f"{LAST}.instance_handle",
        f"{LAST}.instance_handle: instance_handle is required.",
    ),
    "an id given twice": (
        {"text_id": "t0500"},
        409,
        f"{LAST}.text_id",
        "text_id 't0500' occurs more than once in the request.",
    ),
    "an id that is stored": (
        {"text_id": "stored"},
        409,
        f"{LAST}.text_id",
        "text_id 'stored' already exists; nothing was stored. Delete it first, or replace it with "
        "PUT.",
    ),
}


@pytest.mark.parametrize("case", BAD_LAST)
def test_one_bad_item_at_the_end_leaves_nothing_stored_and_is_named(
    cast: Cast, large: str, case: str
) -> None:
    first = item("stored", [1] * 1536, instance_handle="big", metadata={"n": 0})
    assert cast.alice.post(large, {"embeddings": [first]}).status == 201
    before = cast.alice.get(large).body
    changes, status, location, detail = BAD_LAST[case]

    problem = refusal(cast.alice.post(large, raw=body_of(with_last(**changes))), status)

    assert problem["detail"] == detail
    assert [each["location"] for each in problem["errors"]] == [location]
    assert cast.alice.get(large).body == before


def with_number(number: bytes) -> bytes:
    items = with_last(vector=[0.5] * 1535 + [123456789])
    items[-1] = items[-1].replace(b"123456789", number)
    return body_of(items)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400"])
def test_a_number_that_is_not_finite_is_refused_with_its_item(
    cast: Cast, large: str, number: bytes
) -> None:
    problem = refusal(cast.alice.post(large, raw=with_number(number)))
    assert [each["location"] for each in problem["errors"]] == [f"{LAST}.vector"]
    assert "holds NaN or Infinity" in problem["detail"]
    assert cast.alice.get(large)["total_count"] == 0


@pytest.mark.parametrize("number", [b"0x10", b"1.", b"nan", b"NaN,}"])
def test_what_is_no_json_is_refused_with_its_place(cast: Cast, large: str, number: bytes) -> None:
    problem = refusal(cast.alice.post(large, raw=with_number(number)))
    assert problem["detail"].startswith("body: The request body is not valid JSON: ")
    assert cast.alice.get(large)["total_count"] == 0


# --- Every field of an item -----------------------------------------------------------------------
FLAT = "vector must be a flat list of numbers."
NUMBERS = "vector must hold numbers only: no strings, booleans, nulls or lists."
NO_DIRECTION = "vector has no direction: all of its elements are zero, or too close to it."
TOO_LARGE = "vector has elements that are too large for 32-bit floating point."
BASE64 = "vector in base64 must hold little-endian 32-bit floating point numbers."
INSTANCE = (
    "instance_handle must name the project's own LLM service instance: 'model' or 'alice/model'."
)
NO_VECTOR = "vector is required, or a text that the project's LLM service is to embed."
ONLY_DIMENSIONS = "vector is required with vector_dim; leave both out to have the text embedded."
EMPTY = "text is empty: there is nothing to embed."
WHOLE = "vector_dim must be a whole number."


def deep(levels: int) -> Any:
    return {} if levels == 1 else {"a": deep(levels - 1)}


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"text_id": ""}, "text_id", "text_id must have 1 to 300 characters; this one has 0."),
    ({"text_id": LONG}, "text_id", "text_id must have 1 to 300 characters; this one has 301."),
    ({"text_id": 5}, "text_id", "text_id must be a string."),
    ({"text_id": ["a"]}, "text_id", "text_id must be a string."),
    (
        {"text_id": "a\x00"},
        "text_id",
        "The text holds the character U+0000, which cannot be stored.",
    ),
    ({"instance_handle": ...}, "instance_handle", "instance_handle is required."),
    ({"instance_handle": None}, "instance_handle", "instance_handle is required."),
    ({"instance_handle": "other"}, "instance_handle", INSTANCE),
    ({"instance_handle": "bob/model"}, "instance_handle", INSTANCE),
    ({"instance_handle": "Model"}, "instance_handle", INSTANCE),
    ({"instance_handle": ""}, "instance_handle", INSTANCE),
    ({"instance_handle": 5}, "instance_handle", INSTANCE),
    ({"instance_handle": ["model"]}, "instance_handle", INSTANCE),
    ({"instance_handle": {"model": 1}}, "instance_handle", INSTANCE),
    ({"instance_owner": "bob"}, "instance_handle", INSTANCE),
    ({"instance_owner": ["alice"]}, "instance_handle", INSTANCE),
    ({"instance_owner": {}}, "instance_handle", INSTANCE),
    ({"vector": ...}, "vector", NO_VECTOR),
    ({"vector": None}, "vector", NO_VECTOR),
    ({"vector": ..., "text": "A"}, "vector", ONLY_DIMENSIONS),
    ({"vector": ..., "vector_dim": ..., "text": " \n"}, "text", EMPTY),
    ({"vector": ..., "vector_dim": ..., "text": ["A"]}, "text", "text must be a string."),
    (
        {"vector": ..., "vector_dim": ..., "text": "A", "instance_handle": "other"},
        "instance_handle",
        INSTANCE,
    ),
    ({"vector": "1,2,3"}, "vector", "vector is neither a list nor base64."),
    ({"vector": "AAAA"}, "vector", BASE64),
    ({"vector": ""}, "vector", BASE64),
    ({"vector": "AAAAAAAAAAAAAAAA"}, "vector", NO_DIRECTION),
    ({"vector": "AACAPwAAgD8AAMB/"}, "vector", "vector holds a number that is not finite."),
    ({"vector": "AACAPwAAgD8AAIA/\n"}, "vector", "vector is neither a list nor base64."),
    ({"vector": "AACAPwAAgD8AAI_/"}, "vector", "vector is neither a list nor base64."),
    ({"vector": "\u1234" * 16}, "vector", "vector is neither a list nor base64."),
    ({"vector": {"0": 1}}, "vector", "vector must be a list of numbers."),
    ({"vector": 1}, "vector", "vector must be a list of numbers."),
    ({"vector": []}, "vector", "vector is empty."),
    ({"vector": ["1", "2", "3"]}, "vector", NUMBERS),
    ({"vector": [True, 2, 3]}, "vector", NUMBERS),
    ({"vector": [1, None, 3]}, "vector", NUMBERS),
    ({"vector": [1, {}, 3]}, "vector", NUMBERS),
    ({"vector": [[1, 2, 3]]}, "vector", FLAT),
    ({"vector": [[1], [2], [3]]}, "vector", FLAT),
    ({"vector": [1, [2], 3]}, "vector", FLAT),
    ({"vector": [[1, 2], [], 3]}, "vector", FLAT),
    ({"vector": [0, 0, 0]}, "vector", NO_DIRECTION),
    ({"vector": [0.0, -0.0, 0]}, "vector", NO_DIRECTION),
    ({"vector": [1e-30, 1e-30, 1e-30]}, "vector", NO_DIRECTION),
    ({"vector": [1e-46, 1e-60, 0]}, "vector", NO_DIRECTION),
    ({"vector": [1e38, 1e38, 1e38]}, "vector", TOO_LARGE),
    ({"vector": [1, 2, 1e39]}, "vector", TOO_LARGE),
    ({"vector": [1, 2, -1e308]}, "vector", TOO_LARGE),
    ({"vector_dim": ...}, "vector_dim", "vector_dim is required."),
    ({"vector_dim": None}, "vector_dim", "vector_dim is required."),
    ({"vector_dim": "3"}, "vector_dim", WHOLE),
    ({"vector_dim": 3.0}, "vector_dim", WHOLE),
    ({"vector_dim": True}, "vector_dim", WHOLE),
    ({"vector_dim": [3]}, "vector_dim", WHOLE),
    ({"text": 5}, "text", "text must be a string."),
    ({"text": ["a"]}, "text", "text must be a string."),
    (
        {"text": "a\x00b"},
        "text",
        "The text holds the character U+0000, which cannot be stored.",
    ),
    ({"metadata": []}, "metadata", "metadata must be a JSON object."),
    ({"metadata": "{}"}, "metadata", "metadata must be a JSON object."),
    ({"metadata": 5}, "metadata", "metadata must be a JSON object."),
    ({"metadata": False}, "metadata", "metadata must be a JSON object."),
    (
        {"metadata": {"a": 2**63}},
        "metadata.a",
        "The number does not fit into 64 bits; send it as a string.",
    ),
    (
        {"metadata": {"a": {"b": ["\x00"]}}},
        "metadata.a.b[0]",
        "The text holds the character U+0000, which cannot be stored.",
    ),
    (
        {"metadata": {"a\x00": 1}},
        "metadata (a key)",
        "The text holds the character U+0000, which cannot be stored.",
    ),
]


def changed(text_id: str, changes: dict[str, Any]) -> dict[str, Any]:
    body = item(text_id, [1, 2, 3]) | changes
    return {name: value for name, value in body.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "field", "message"), BAD_FIELDS, ids=[ascii(each[0])[:60] for each in BAD_FIELDS]
)
def test_a_bad_field_is_refused_by_upload_and_by_put(
    cast: Cast, changes: dict[str, Any], field: str, message: str
) -> None:
    kept = item("kept", [1, 0, 0], text="as it was")
    assert cast.alice.post(PROJECT, {"embeddings": [kept]}).status == 201
    before = cast.alice.get(PROJECT).body

    good = [item("first", [1, 2, 3]), item("last", [1, 2, 3])]
    batch = [good[0], changed("bad", changes), good[1]]
    for answer, location in [
        (cast.erin.post(PROJECT, {"embeddings": batch}), f"body.embeddings[1].{field}"),
        (cast.erin.put(f"{PROJECT}/kept", changed("kept", changes)), f"body.{field}"),
    ]:
        problem = refusal(answer)
        # An id in the address stands in for one in the body, except for a wrong one.
        assert problem["errors"] == [
            {"location": location, "message": message},
        ]
        assert problem["detail"] == f"{location}: {message}"
    assert cast.alice.get(PROJECT).body == before


@pytest.mark.parametrize(
    ("vector", "declared", "field", "detail"),
    [
        (
            [1, 2],
            3,
            "vector",
            "dimension validation failed: vector length mismatch for text_id 'bad': actual vector "
            "has 2 elements but vector_dim declares 3",
        ),
        (
            [1, 2, 3, 4],
            3,
            "vector",
            "dimension validation failed: vector length mismatch for text_id 'bad': actual vector "
            "has 4 elements but vector_dim declares 3",
        ),
        (
            [1, 2, 3, 4],
            4,
            "vector_dim",
            "dimension validation failed: vector dimension mismatch: embedding declares 4 "
            "dimensions but LLM service 'model' expects 3 dimensions",
        ),
        (
            [1, 2, 3],
            -3,
            "vector_dim",
            "dimension validation failed: vector dimension mismatch: embedding declares -3 "
            "dimensions but LLM service 'model' expects 3 dimensions",
        ),
    ],
)
def test_wrong_dimensions_are_told_in_the_words_clients_parse(
    cast: Cast, vector: list[float], declared: int, field: str, detail: str
) -> None:
    bad = item("bad", vector) | {"vector_dim": declared}
    for answer, location in [
        (cast.erin.post(PROJECT, {"embeddings": [bad]}), f"body.embeddings[0].{field}"),
        (cast.erin.put(f"{PROJECT}/bad", bad), f"body.{field}"),
    ]:
        problem = refusal(answer)
        assert problem["detail"] == detail
        assert [each["location"] for each in problem["errors"]] == [location]
    assert cast.alice.get(PROJECT)["total_count"] == 0


@pytest.mark.parametrize("missing", [..., None])
def test_an_uploaded_item_needs_its_id(cast: Cast, missing: Any) -> None:
    answer = cast.alice.post(PROJECT, {"embeddings": [changed("", {"text_id": missing})]})
    assert refusal(answer)["detail"] == "body.embeddings[0].text_id: text_id is required."


def test_put_refuses_another_id_than_its_address_has(cast: Cast) -> None:
    answer = cast.alice.put(f"{PROJECT}/a", item("b", [1, 2, 3]))
    assert refusal(answer)["errors"] == [
        {
            "location": "body.text_id",
            "message": "text_id in the body differs from the one in the URL.",
        }
    ]
    assert cast.alice.get(PROJECT)["total_count"] == 0


def test_metadata_is_nested_64_levels_at_most(cast: Cast) -> None:
    for answer in [
        cast.erin.post(PROJECT, {"embeddings": [item("a", [1, 2, 3], metadata=deep(65))]}),
        cast.erin.put(f"{PROJECT}/a", item("a", [1, 2, 3], metadata=deep(65))),
    ]:
        problem = refusal(answer)
        assert problem["detail"].endswith(": It is nested deeper than 64 levels.")
        assert "metadata.a.a" in problem["errors"][0]["location"]
    assert cast.alice.get(PROJECT)["total_count"] == 0


# --- The body as a whole --------------------------------------------------------------------------
ITEM = orjson.dumps(item("a", [1, 2, 3]))
BODIES: list[tuple[bytes, str]] = [
    (b"  \n", "body"),
    (b"{", "body"),
    (b'{"embeddings": [' + ITEM + b"],}", "body"),
    (b'{"embeddings": [' + ITEM + b"]} {}", "body"),
    (b"{'embeddings': []}", "body"),
    (b'{"embeddings": [' + ITEM + b"]} // done", "body"),
    (b'\xff\xfe{"embeddings": []}', "body"),
    (b'{"embeddings": ["\xed\xa0\x80"]}', "body"),
    ('{"embeddings": []}'.encode("utf-16"), "body"),
    (b'{"embeddings": [{"text_id": "\\ud800"}]}', "body"),
    (b'{"embeddings": [{"text_id": "a\nb"}]}', "body"),
    (b"null", "body.embeddings"),
    (b"[]", "body.embeddings"),
    (b'"embeddings"', "body.embeddings"),
    (b"5", "body.embeddings"),
    (b"{}", "body.embeddings"),
    (ITEM, "body.embeddings"),
    (b'{"embeddings": null}', "body.embeddings"),
    (b'{"embeddings": {}}', "body.embeddings"),
    (b'{"embeddings": "x"}', "body.embeddings"),
    (b'{"embeddings": []}', "body.embeddings"),
    (b'{"embeddings": [null]}', "body.embeddings[0]"),
    (b'{"embeddings": [5]}', "body.embeddings[0]"),
    (b'{"embeddings": [[' + ITEM + b"]]}", "body.embeddings[0]"),
    (b'{"embeddings": [' + ITEM + b', "x"]}', "body.embeddings[1]"),
    (b'{"embeddings": [' + ITEM[:-1] + b', "text": "a", "text": "b"}]}', "body.embeddings[0]"),
    (b'{"embeddings": [' + ITEM[:-1] + b', "vector": [3, 2, 1]}]}', "body.embeddings[0]"),
    (
        b'{"embeddings": [' + ITEM[:-1] + b', "metadata": {"a": 1, "a": 2}}]}',
        "body.embeddings[0].metadata",
    ),
    (b'{"embeddings": [' + ITEM + b'], "embeddings": [' + ITEM + b"]}", "body"),
    (
        b'{"embeddings": ['
        + ITEM[:-1]
        + b", "
        + b",".join(b'"f%d": 0' % n for n in range(65))
        + b"}]}",
        "body.embeddings[0]",
    ),
]


@pytest.mark.parametrize(("body", "location"), BODIES, ids=[ascii(each[0])[:50] for each in BODIES])
def test_a_body_of_another_shape_is_refused(cast: Cast, body: bytes, location: str) -> None:
    problem = refusal(cast.alice.post(PROJECT, raw=body))
    assert [each["location"] for each in problem["errors"]] == [location]
    assert problem["detail"] == f"{location}: {problem['errors'][0]['message']}"
    assert cast.alice.get(PROJECT)["total_count"] == 0


@pytest.mark.parametrize("nesting", [100, 2_000, 100_000])
def test_deep_nesting_is_refused_whole(cast: Cast, nesting: int) -> None:
    nested = b"[" * nesting + b"]" * nesting
    for body in [
        nested,
        b'{"embeddings": ' + nested + b"}",
        b'{"embeddings": [' + ITEM[:-1] + b', "metadata": {"a": ' + nested + b"}}]}",
        b'{"embeddings": [{"text_id": "a", "vector": ' + nested + b"}]}",
    ]:
        refusal(cast.alice.post(PROJECT, raw=body))
    assert cast.alice.get(PROJECT)["total_count"] == 0


def test_a_request_holds_at_most_5000_embeddings(cast: Cast) -> None:
    items = [orjson.dumps(item(f"t{row}", [1, 2, 3])) for row in range(MAXIMUM_ITEMS + 1)]
    problem = refusal(cast.alice.post(PROJECT, raw=body_of(items)), 413)
    assert problem["detail"] == (
        "A request holds at most 5000 embeddings, this one 5001; send several."
    )
    assert cast.alice.get(PROJECT)["total_count"] == 0
    answer = cast.alice.post(PROJECT, raw=body_of(items[:-1]))
    assert (answer.status, answer["count"]) == (201, 5000)
    assert cast.alice.get(PROJECT)["total_count"] == 5000


def test_a_flood_of_metadata_values_is_refused(cast: Cast) -> None:
    flood = item("flood", [1, 2, 3], metadata={"a": [0] * 100_000})
    problem = refusal(cast.alice.post(PROJECT, {"embeddings": [flood]}))
    assert "holds more than 100000 values" in problem["detail"]
    assert cast.alice.get(PROJECT)["total_count"] == 0


def test_several_stored_ids_are_named_in_the_order_of_the_request(cast: Cast) -> None:
    def upload(*ids: str) -> Answer:
        return cast.alice.post(PROJECT, {"embeddings": [item(each, [1, 2, 3]) for each in ids]})

    assert upload("a", "b", "c").status == 201
    problem = refusal(upload("new", "c", "newer", "a"), 409)
    assert problem["detail"] == (
        "text_id 'c' already exists (and 1 more); nothing was stored. Delete it first, or replace "
        "it with PUT."
    )
    assert problem["errors"] == [
        {"location": "body.embeddings[1].text_id", "message": "text_id 'c' already exists."},
        {"location": "body.embeddings[3].text_id", "message": "text_id 'a' already exists."},
    ]
    assert cast.alice.get(PROJECT)["total_count"] == 3


# --- What is accepted -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "extra",
    [
        {"instance_handle": "alice/model"},
        {"instance_owner": "alice"},
        {"instance_owner": "alice", "instance_handle": "alice/model"},
        {"instance_owner": None},
        {"text": None},
        {"metadata": None},
        {"user_handle": "bob", "project_handle": "elsewhere", "project_id": 987654},
        {"user_handle": 5, "project_id": None},
        {"id": "x", "embedding": [9, 9, 9], "owner": "sam", "unknown": {"deeply": ["nested"]}},
    ],
    ids=str,
)
def test_other_ways_to_say_the_same_and_unknown_fields_are_taken(
    cast: Cast, extra: dict[str, Any]
) -> None:
    for answer in [
        cast.erin.post(PROJECT, {"embeddings": [item("a", [1, 2, 3]) | extra], "project_id": 1}),
        cast.erin.put(f"{PROJECT}/b", item("b", [1, 2, 3]) | extra),
    ]:
        assert answer.status == 201, answer.body
    for text_id in ("a", "b"):
        found = dict(cast.rita.get(f"{PROJECT}/{text_id}").body)
        del found["created_at"], found["updated_at"]
        assert found == {
            "text_id": text_id,
            "user_handle": "alice",
            "project_handle": "letters",
            "project_id": cast.project.pk,
            "instance_handle": "model",
            "text": "",
            "vector": [1, 2, 3],
            "vector_dim": 3,
            "metadata": {},
        }


METADATA: list[dict[str, Any]] = [
    {},
    {"author": "Ann", "year": 1791, "price": -1.5, "tags": ["a", ["b"]], "none": None, "ok": True},
    {"": "empty key", "a.b": {"c d": "ü日🦊"}, "quote\"'": "\\ / \u2028 \x01"},
    {"large": 2**63 - 1, "small": -(2**63), "tiny": 5e-324, "huge": 1.7976931348623157e308},
    {"[": "]", "vector": [1, 2, 3], "x": [[[[1]]]]},
    deep(64),
]


def test_text_and_metadata_come_back_as_they_were_sent(cast: Cast) -> None:
    texts = [
        "",
        " padded ",
        "line\nbreak\ttab",
        "[[[",
        "ü日🦊\u202e",
        "\\u005b",
        "'; --",
        "x" * 10_000,
    ]
    items = [
        item(f"t{row:02}", [1, 2, 3], text=texts[row % len(texts)], metadata=metadata)
        for row, metadata in enumerate(METADATA * 2)
    ]
    assert cast.alice.post(PROJECT, {"embeddings": items}).status == 201
    found = cast.alice.get(f"{PROJECT}?limit=200")["embeddings"]
    assert [row["text"] for row in found] == [each["text"] for each in items]
    assert [row["metadata"] for row in found] == [each["metadata"] for each in items]


def test_escaped_brackets_do_not_hide_a_nested_vector(cast: Cast) -> None:
    # Batches are checked for nesting by counting brackets, which escapes could balance.
    text = b'{"embeddings": [{"text_id": "a", "text": "\\u005b%s", "instance_handle": "model", '
    nested, flat = (
        b'"vector": [1, [2], 3], "vector_dim": 3}]}',
        (b'"vector": [1, 2, 3], "vector_dim": 3}]}'),
    )
    refusal(cast.alice.post(PROJECT, raw=text.replace(b"%s", b"") + nested))
    assert cast.alice.get(PROJECT)["total_count"] == 0
    assert cast.alice.post(PROJECT, raw=text.replace(b"%s", b"[") + flat).status == 201
    assert cast.alice.get(f"{PROJECT}/a")["text"] == "[["


def test_numbers_keep_32_bits(cast: Cast) -> None:
    sent = [0.0208508, 1 / 3, -7]
    assert cast.alice.post(PROJECT, {"embeddings": [item("a", sent)]}).status == 201
    # Half precision, which other servers store, would give 0.0208435.
    assert cast.alice.get(f"{PROJECT}/a")["vector"] == [0.0208508, 0.33333334, -7.0]


@pytest.mark.parametrize(
    "vector",
    [
        [1, 2, 3],
        [1e-17, 0, 0],
        [1e17, 1e17, -1e17],
        [1e-10, 1e10, 0],
        [2**59, 1, 1],
        [1e0, 0, 5e-324],
    ],
)
def test_every_vector_that_is_taken_is_like_itself(cast: Cast, vector: list[float]) -> None:
    body = {"embeddings": [item("a", vector), item("b", vector)]}
    assert cast.alice.post(PROJECT, body).status == 201
    hits = cast.alice.get("/v1/similars/alice/letters/a")["results"]
    assert [hit["id"] for hit in hits] == ["b"]
    assert hits[0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert hits[0]["similarity"] <= 1


# --- The metadata schema --------------------------------------------------------------------------
def set_schema(caller: Caller, schema: Any) -> None:
    answer = caller.patch("/v1/projects/alice/letters", {"metadataScheme": schema})
    assert answer.status == 200, answer.body


VIOLATIONS: list[tuple[Any, list[tuple[str, str]]]] = [
    (..., [("author", "author is required")]),
    (None, [("author", "author is required")]),
    ({}, [("author", "author is required")]),
    ({"year": 1791}, [("author", "author is required")]),
    ({"author": 5}, [("author", "Invalid type. Expected: string, given: integer")]),
    (
        {"year": 12, "source": {"page": "iv"}},
        [
            ("author", "author is required"),
            ("year", "Must be greater than or equal to 1700"),
            ("source.page", "Invalid type. Expected: integer, given: string"),
        ],
    ),
]


@pytest.mark.parametrize(
    ("metadata", "violations"), VIOLATIONS, ids=[str(v[0]) for v in VIOLATIONS]
)
def test_metadata_against_the_schema_is_told_line_by_line(
    cast: Cast, metadata: Any, violations: list[tuple[str, str]]
) -> None:
    set_schema(cast.alice, REQUIRED_AUTHOR)
    good = item("good", [1, 2, 3], metadata={"author": "Ann", "year": 1791, "more": True})
    bad = changed("bad", {"metadata": metadata})
    head = "metadata validation failed for text_id 'bad': metadata validation failed:"
    for answer, location in [
        (cast.erin.post(PROJECT, {"embeddings": [good, bad]}), "body.embeddings[1].metadata"),
        (cast.erin.put(f"{PROJECT}/bad", bad), "body.metadata"),
    ]:
        problem = refusal(answer)
        first, *lines = problem["detail"].split("\n")
        assert first == head
        assert sorted(lines) == sorted(f"  - {field}: {reason}" for field, reason in violations)
        assert sorted((each["location"], each["message"]) for each in problem["errors"]) == sorted(
            (f"{location}.{field}", reason) for field, reason in violations
        )
    assert cast.alice.get(PROJECT)["total_count"] == 0
    assert cast.erin.post(PROJECT, {"embeddings": [good]}).status == 201


@pytest.mark.parametrize(
    "schema", [{}, {"type": "object"}, {"properties": {"a": {"type": "null"}}}]
)
@pytest.mark.parametrize("metadata", [..., None])
def test_a_schema_demands_metadata_even_where_it_would_take_an_empty_object(
    cast: Cast, schema: dict[str, Any], metadata: Any
) -> None:
    set_schema(cast.alice, schema)
    bad = changed("bad", {"metadata": metadata})
    for answer in [
        cast.erin.post(PROJECT, {"embeddings": [item("a", [1, 2, 3], metadata={}), bad]}),
        cast.erin.put(f"{PROJECT}/bad", bad),
    ]:
        assert refusal(answer)["detail"] == (
            "metadata validation failed for text_id 'bad': metadata validation failed:\n"
            "  - metadata: metadata is required, because the project has a metadata schema"
        )
    assert cast.alice.get(PROJECT)["total_count"] == 0
    assert (
        cast.erin.post(PROJECT, {"embeddings": [item("a", [1, 2, 3], metadata={})]}).status == 201
    )


def test_a_changed_schema_binds_only_what_is_uploaded_from_then_on(cast: Cast) -> None:
    old = item("old", [1, 2, 3], metadata={"year": "unknown"})
    assert cast.alice.post(PROJECT, {"embeddings": [old]}).status == 201
    before = cast.alice.get(PROJECT).body

    set_schema(cast.alice, REQUIRED_AUTHOR)
    assert cast.rita.get(PROJECT).body == before
    assert cast.rita.get(f"{PROJECT}/old")["metadata"] == {"year": "unknown"}
    assert cast.rita.get("/v1/similars/alice/letters/old").status == 200
    refusal(cast.erin.post(PROJECT, {"embeddings": [old | {"text_id": "new"}]}))
    refusal(cast.erin.put(f"{PROJECT}/old", old))
    assert cast.rita.get(PROJECT).body == before

    better = old | {"metadata": {"author": "Ann", "year": 1791}}
    assert cast.erin.put(f"{PROJECT}/old", better).status == 200
    set_schema(cast.alice, None)
    assert cast.erin.put(f"{PROJECT}/old", old).status == 200


def test_a_refused_item_never_echoes_what_the_project_holds(cast: Cast) -> None:
    secret = item("a", [1, 2, 3], text="hush", metadata={"secret": "swordfish"})
    assert cast.alice.post(PROJECT, {"embeddings": [secret]}).status == 201
    answer = cast.erin.post(PROJECT, {"embeddings": [item("a", [3, 2, 1], text="loud")]})
    refusal(answer, 409)
    assert b"hush" not in answer.content
    assert b"swordfish" not in answer.content


# --- Sizes ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("dimensions", [1, 3, 512, 4096, 16_000])
def test_vectors_of_1_to_16000_dimensions_are_stored_found_and_returned(
    cast: Cast, dimensions: int
) -> None:
    make_instance("alice", "sized", dimensions=dimensions)
    make_project("alice", "sized", instance="sized")
    path, rows = "/v1/embeddings/alice/sized", np.abs(vectors(3, dimensions, seed=dimensions))
    items = [item(f"t{n}", row.tolist(), instance_handle="sized") for n, row in enumerate(rows)]
    assert cast.alice.post(path, {"embeddings": items[:2]}).status == 201
    assert cast.alice.put(f"{path}/t2", items[2]).status == 201

    found = cast.alice.get(path)["embeddings"]
    assert np.array_equal(np.array([row["vector"] for row in found], dtype=np.float32), rows)
    assert {row["vector_dim"] for row in found} == {dimensions}
    normed = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float64)
    similarities = {f"t{n}": pytest.approx(normed[0] @ normed[n], abs=1e-6) for n in range(3)}
    for answer in [
        cast.alice.get("/v1/similars/alice/sized/t0?threshold=0"),
        cast.alice.post("/v1/similars/alice/sized?threshold=0", {"vector": rows[0].tolist()}),
    ]:
        assert {hit["id"]: hit["similarity"] for hit in answer["results"]}.items() <= (
            similarities.items()
        )
        assert len(answer["results"]) >= 2
    short = item("t3", rows[0].tolist()[:-1] or [1, 2], instance_handle="sized")
    refusal(cast.alice.post(path, {"embeddings": [short]}))
