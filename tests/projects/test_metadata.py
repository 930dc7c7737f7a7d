"""Metadata schemas: what is accepted, what a stranger's schema can do, and what users are told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projects.metadata import (
    MAX_DOCUMENT_DEPTH,
    MAX_DOCUMENT_VALUES,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    MAX_VIOLATIONS,
    Budget,
    InvalidSchema,
    Violation,
    check_schema,
    describe,
    validator_for,
)

DRAFT_2020 = "https://json-schema.org/draft/2020-12/schema"
DRAFT_2019 = "https://json-schema.org/draft/2019-09/schema"
Json = Any


def found(schema: Json, document: Json) -> list[tuple[str, str]]:
    violations = validator_for(check_schema(schema)).violations(document)
    return [(each.field, each.reason) for each in violations]


def nested(depth: int, inside: Json, key: str = "a") -> Json:
    for _ in range(depth):
        inside = {key: inside}
    return inside


def pairs(levels: int, keyword: str, *, below: str | None = None) -> Json:
    """Return a schema whose definitions each apply the next one twice."""

    def use(level: int) -> Json:
        reference = {"$ref": f"#/definitions/d{level}"}
        return {"properties": {below: reference}} if below else reference

    definitions: Json = {f"d{n}": {keyword: [use(n + 1), use(n + 1)]} for n in range(levels)}
    return {
        "allOf": [{"$ref": "#/definitions/d0"}],
        "definitions": {**definitions, f"d{levels}": {"type": "object"}},
    }


# The stored text


def test_text_is_stored_as_it_came() -> None:
    text = '{ "type" : "object",\n "title": "\\u00e9 é" }\n'
    assert check_schema(text) == text


def test_parsed_object_is_stored_compactly_in_its_own_order() -> None:
    assert check_schema({"type": "object", "properties": {"é": {}, "a": {}}}) == (
        '{"type":"object","properties":{"é":{},"a":{}}}'
    )


def test_validators_are_kept() -> None:
    assert validator_for('{"title":"kept"}') is validator_for('{"title":"kept"}')


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": "http://json-schema.org/draft-06/schema#"},
        {"$schema": "http://json-schema.org/draft-07/schema"},
        {"$schema": "https://json-schema.org/draft-07/schema#"},
        {"$schema": DRAFT_2019},
        {"$schema": DRAFT_2020},
        {"$id": "https://example.org/my.schema.json", "type": "object"},
        {"$id": "my.schema.json", "properties": {"a": {"$ref": "#"}}},
        {"properties": {"$ref": {"type": "string"}, "$id": {}, "id": {"const": "http://a/b"}}},
        {"default": {"$ref": "http://127.0.0.1:9/"}, "examples": [{"$id": "x"}]},
        {"properties": {"a": {"$ref": "#/definitions/a~1b"}}, "definitions": {"a/b": {}}},
        {"properties": {"a": {"$ref": "#/definitions/a%20b"}}, "definitions": {"a b": {}}},
        {"properties": {"a": {"$ref": "#/x-own/1"}}, "x-own": [{}, {"type": "string"}]},
        {"$schema": DRAFT_2020, "$defs": {"b": {"$anchor": "b"}}, "$ref": "#/$defs/b"},
        {"$schema": DRAFT_2020, "items": {"$dynamicRef": "#"}},
        {"$schema": DRAFT_2019, "$recursiveAnchor": True, "items": {"$recursiveRef": "#"}},
        {"properties": {"children": {"items": {"$ref": "#"}}, "name": {"type": "string"}}},
        {"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}},
        {"properties": {"a": {"items": {"$ref": "#"}}}, "additionalProperties": {"$ref": "#"}},
        {"anyOf": [{"items": {"$ref": "#"}}, {"additionalProperties": {"$ref": "#"}}]},
        # Keywords of later drafts are unknown to draft 07, whatever they hold.
        {"prefixItems": 5, "$anchor": [1], "dependentRequired": "a", "minContains": {}},
    ],
)
def test_usable_schema_is_accepted(schema: Json) -> None:
    assert json.loads(check_schema(schema)) == schema


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("", "must be a JSON object"),
        ("{", "not valid JSON"),
        ("{'a': 1}", "not valid JSON"),
        ('{"type": "object",}', "line 1 column"),
        ("true", "must be a JSON object"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        (True, "must be a JSON object"),
        ([{}], "must be a JSON object"),
        (None, "must be a JSON object"),
        ({"a": object()}, "JSON cannot express"),
        ({"minimum": float("nan")}, "JSON cannot express"),
        ('{"minimum": NaN}', "not valid JSON"),
        ('{"minimum": -Infinity}', "not valid JSON"),
        ('{"minimum": 1e400}', "infinity"),
        ('{"minimum": ' + "9" * 5000 + "}", "infinity"),
        ('{"minimum": 18446744073709551616}', "64 bits"),
        ('{"type": "object", "type": "string"}', "twice"),
        ('{"title": "\\u0000"}', "U+0000"),
        ('{"\\ud800": 1}', "surrogate"),
        ({"enum": ["\udc00"]}, "surrogate"),
        ({"title": "x" * MAX_SCHEMA_BYTES}, str(MAX_SCHEMA_BYTES)),
        ({"title": "é" * (MAX_SCHEMA_BYTES // 2)}, str(MAX_SCHEMA_BYTES)),
        ({"const": nested(MAX_SCHEMA_DEPTH, {})}, "nested deeper"),
        ("[" * 60_000, "depth limit"),
        ({"type": "nonsense"}, "keyword type cannot be nonsense"),
        ({"properties": {"type": {"type": "string"}}, "required": "x"}, "keyword required cannot"),
        ({"properties": {"a": {"properties": {"b": {"required": "b"}}}}}, "required"),
        ({"multipleOf": 0}, "multipleOf"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "draft-07"),
        ({"$schema": "http://json-schema.org/schema#"}, "supported are"),
        ({"$schema": "file:///etc/passwd"}, "supported are"),
        ({"$schema": 7}, "supported are"),
        ({"properties": {"a": {"$schema": DRAFT_2020}}}, "below its root"),
        ({"properties": {"a": {"$id": "https://example.org/a"}}}, "below its root"),
        ({"properties": {"a": {"id": "https://example.org/a"}}}, "below its root"),
        ({"allOf": [{"$ref": "#/x/y"}], "x": {"$id": "http://a/", "y": {}}}, "below its root"),
        ({"$ref": "other.json"}, "outside itself"),
        ({"$id": "http://a/b", "items": {"$ref": "http://a/b#"}}, "outside itself"),
        ({"$schema": DRAFT_2020, "$dynamicRef": "http://a/b#c"}, "outside itself"),
        ({"$schema": DRAFT_2019, "not": {"$recursiveRef": "b#"}}, "outside itself"),
        ({"definitions": {"a": {"items": {"$dynamicRef": "http://a/b"}}}}, "outside itself"),
        ({"$ref": "#/definitions/absent"}, "does not exist"),
        ({"definitions": {"unused": {"$ref": "#absent"}}}, "does not exist"),
        ({"items": {"$ref": "#/definitions/1"}, "definitions": {}}, "does not exist"),
        ({"allOf": [{"$ref": "#/allOf/9"}]}, "does not exist"),
        ({"items": {"$ref": "#/x/a"}, "x": {"a": {"required": 5}}}, "required"),
        ({"$ref": "#name", "definitions": {"b": {"$id": "#name"}}}, "below its root"),
        ({"$schema": DRAFT_2020, "$ref": "#b", "$defs": {"b": {"$anchor": "b"}}}, "path such as"),
        ({"properties": {"a": {"pattern": "("}}}, "'('"[1:-1]),
        ({"pattern": "(?=a)b"}, "linear time"),
        ({"pattern": r"(a)\1"}, "linear time"),
        ({"pattern": "((a{1,100}){1,100}){1,100}"}, "linear time"),
        ({"patternProperties": {"(?!a)": {}}}, "linear time"),
        ({"allOf": [{"pattern": f"^.{{1,255}}{n}$"} for n in range(9)]}, "too large together"),
        ({"definitions": {"unused": {"patternProperties": {"(?:.{1,255}){20}x": {}}}}}, "linear"),
        ({"$ref": "#"}, "never ends"),
        ({"allOf": [{"$ref": "#"}]}, "never ends"),
        (
            {"anyOf": [{"$ref": "#/definitions/a"}], "definitions": {"a": {"not": {"$ref": "#"}}}},
            "never ends",
        ),
        ({"definitions": {"unused": {"oneOf": [{"$ref": "#/definitions/unused"}]}}}, "never ends"),
        # Two ways to the same value, and through recursion: 2^64.
        (
            {"allOf": [{"properties": {"a": {"$ref": "#"}}}, {"properties": {"a": {"$ref": "#"}}}]},
            "too long",
        ),
        ({"items": {"$ref": "#"}, "contains": {"$ref": "#"}}, "too long"),
        ({"patternProperties": {"a": {"$ref": "#"}, "b": {"$ref": "#"}}}, "too long"),
        ({"properties": {"a": {"$ref": "#"}}, "patternProperties": {"a": {"$ref": "#"}}}, "too lo"),
        ({"allOf": [{}] * 10_000}, "too long"),
        (
            {
                "enum": [{"large": "enough to hide the first rounds of the recursion"}, 1.5],
                "properties": {"a": {"$ref": "#/definitions/t"}},
                "definitions": {
                    "t": {
                        "items": {"$ref": "#/definitions/t"},
                        "contains": {"$ref": "#/definitions/t"},
                    }
                },
            },
            "too long",
        ),
        ({"items": {"$ref": "#"}, "allOf": [{}] * 600}, "too long"),
    ],
)
def test_unusable_schema_is_refused_with_the_reason(source: Json, names: str) -> None:
    with pytest.raises(InvalidSchema) as refusal:
        check_schema(source)
    assert names in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
@pytest.mark.parametrize("below", [None, "a"])
@pytest.mark.parametrize("levels", [8, 11, 12, 13, 30])
def test_pairs_are_cheap_or_refused(levels: int, keyword: str, below: str | None) -> None:
    began = time.monotonic()
    try:
        validator = validator_for(check_schema(pairs(levels, keyword, below=below)))
    except InvalidSchema:
        assert levels >= 11
    else:
        assert levels < 30
        validator.violations(nested(levels, {}))
        validator.violations(nested(levels, 3))
    assert time.monotonic() - began < 1


def test_long_chains_of_references_are_refused() -> None:
    links = {f"d{n}": {"anyOf": [{"$ref": f"#/definitions/d{n + 1}"}]} for n in range(200)}
    with pytest.raises(InvalidSchema, match="chain"):
        check_schema({"definitions": {**links, "d200": {}}})


# Nothing leaves the process


@pytest.fixture
def listener() -> Iterator[tuple[str, list[object]]]:
    """Listen on loopback; the list gets an entry for each connection."""
    calls: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                calls.append(address)
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_no_schema_reaches_the_network(listener: tuple[str, list[object]]) -> None:
    address, calls = listener
    refused = [
        {"$ref": f"{address}/a.json"},
        {"$schema": f"{address}/draft-07/schema#"},
        {"$id": f"{address}/base/", "$ref": "a.json"},
        {"$id": f"{address}/base/", "properties": {"a": {"$ref": "a.json#/b"}}},
        {"definitions": {"a": {"$id": f"{address}/a", "$ref": "b"}}},
        {"definitions": {"a": {"$schema": f"{address}/schema"}}},
        {"$schema": DRAFT_2020, "$dynamicRef": f"{address}/a#b"},
        {"$schema": DRAFT_2020, "$vocabulary": {f"{address}/v": True}, "$ref": f"{address}/v"},
        {"$schema": DRAFT_2019, "items": {"$recursiveRef": f"{address}/a"}},
        {"x-own": {"$id": f"{address}/", "a": {"$ref": "b"}}, "items": {"$ref": "#/x-own/a"}},
    ]
    for schema in refused:
        with pytest.raises(InvalidSchema):
            check_schema(schema)
    accepted = [
        {
            "$id": f"{address}/named.json",
            "properties": {"a": {"$ref": "#/definitions/b"}},
            "definitions": {"b": {"type": "string"}},
        },
        {"const": {"$ref": f"{address}/data"}, "x-own": {"$ref": f"{address}/never-used"}},
        {"$schema": DRAFT_2020, "$vocabulary": {f"{address}/v": False}},
    ]
    for schema in accepted:
        validator_for(check_schema(schema)).violations({"a": 1})
    assert calls == []


def test_no_schema_reads_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "schema.json"
    secret.write_text('{"type": "string"}')
    for reference in (secret.as_uri(), str(secret), f"{secret.as_uri()}#/definitions/a"):
        with pytest.raises(InvalidSchema, match="outside itself"):
            check_schema({"$ref": reference})


# Documents


@pytest.mark.parametrize(
    ("schema", "document", "expected"),
    [
        ({"required": ["author"]}, {}, [("author", "author is required")]),
        (
            {"properties": {"a": {"required": ["b"]}}},
            {"a": {}},
            [("a.b", "b is required")],
        ),
        (
            {"properties": {"year": {"type": "integer"}}},
            {"year": "1999"},
            [("year", "Invalid type. Expected: integer, given: string")],
        ),
        (
            {"properties": {"n": {"type": ["number", "null"]}}},
            {"n": False},
            [("n", "Invalid type. Expected: null/number, given: boolean")],
        ),
        ({"type": "array"}, {}, [("(root)", "Invalid type. Expected: array, given: object")]),
        (
            {"properties": {"tags": {"items": {"type": "string"}}}},
            {"tags": ["a", 1, "b", None]},
            [
                ("tags.1", "Invalid type. Expected: string, given: integer"),
                ("tags.3", "Invalid type. Expected: string, given: null"),
            ],
        ),
        (
            {"properties": {"a": {}}, "additionalProperties": False},
            {"a": 1, "b": 2},
            [("b", "Additional property b is not allowed")],
        ),
        ({"properties": {"a": False}}, {"a": 1}, [("a", "is not allowed")]),
        (
            {"properties": {"l": {"enum": ["de", "en"]}}},
            {"l": "fr"},
            [("l", 'must be one of the following: ["de", "en"]')],
        ),
        ({"properties": {"a": {"const": 1}}}, {"a": True}, [("a", "does not match: 1")]),
        (
            {"properties": {"a": {"minimum": 0}, "b": {"exclusiveMaximum": 1.5}}},
            {"a": -1, "b": 1.5},
            [("a", "Must be greater than or equal to 0"), ("b", "Must be less than 1.5")],
        ),
        (
            {"properties": {"a": {"pattern": "^(a+)+$"}, "b": {"maxLength": 1}}},
            {"a": "a" * 50 + "!", "b": "é!"},
            [
                ("a", "Does not match pattern '^(a+)+$'"),
                ("b", "String length must be less than or equal to 1"),
            ],
        ),
        (
            {"properties": {"d": {"format": "date"}, "e": {"format": "email"}}},
            {"d": "2024-02-30", "e": "nobody"},
            [("d", "Does not match format 'date'"), ("e", "Does not match format 'email'")],
        ),
        ({"properties": {"d": {"format": "our-own"}}}, {"d": "x"}, []),
        (
            {"properties": {"a": {"uniqueItems": True, "minItems": 3}}},
            {"a": [1, 1]},
            [("a", "Array must have at least 3 items"), ("a", "array items must be unique")],
        ),
        (
            {"properties": {"a": {"anyOf": [{"type": "string"}, {"minimum": 5}]}}},
            {"a": 1},
            [("a", "Must validate at least one schema (anyOf)")],
        ),
        (
            {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
            {"a": 1, "b": 1},
            [("(root)", "Must validate one and only one schema (oneOf)")],
        ),
        (
            {"not": {"required": ["a"]}},
            {"a": 1},
            [("(root)", "Must not validate the schema (not)")],
        ),
        (
            {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}},
            {"a": 1},
            [("b", "b is required")],
        ),
        (
            {"dependencies": {"a": ["b"], "c": {"required": ["d"]}}},
            {"a": 1, "c": 1},
            [("b", "b is required"), ("d", "d is required")],
        ),
        (
            {"propertyNames": {"maxLength": 2}},
            {"abc": 1},
            [("abc", "abc is not an allowed property name")],
        ),
        (
            {
                "patternProperties": {"^x": {"type": "string"}},
                "additionalProperties": {"minimum": 1},
            },
            {"x1": 1, "y": 0},
            [
                ("x1", "Invalid type. Expected: string, given: integer"),
                ("y", "Must be greater than or equal to 1"),
            ],
        ),
        (
            {"$schema": DRAFT_2020, "properties": {"a": {}}, "unevaluatedProperties": False},
            {"b": 1},
            [("b", "Additional property b is not allowed")],
        ),
        (
            {"$schema": DRAFT_2020, "prefixItems": [{"type": "string"}], "items": {"minimum": 1}},
            [0, 0],
            [
                ("1", "Must be greater than or equal to 1"),
                ("0", "Invalid type. Expected: string, given: integer"),
            ],
        ),
        # Draft 07 knows neither of these, so they do not show up as the cause.
        (
            {"prefixItems": [False], "minContains": 9, "items": {"type": "string"}},
            [1],
            [("0", "Invalid type. Expected: string, given: integer")],
        ),
        # Beside $ref nothing counts up to draft 07.
        (
            {
                "allOf": [{"$ref": "#/definitions/a%20b~1%25", "required": ["x"]}],
                "definitions": {"a b/%": {"required": ["y"]}},
            },
            {},
            [("y", "y is required")],
        ),
        (
            {"properties": {"kids": {"items": {"$ref": "#"}}, "name": {"type": "string"}}},
            {"kids": [{}, {"kids": [{"name": 1}]}]},
            [("kids.1.kids.0.name", "Invalid type. Expected: string, given: integer")],
        ),
        (
            {"properties": {"": {"type": "null"}, "a/b~c %25é": {"type": "null"}}},
            {"a/b~c %25é": 1},
            [("a/b~c %25é", "Invalid type. Expected: null, given: integer")],
        ),
    ],
)
def test_violations_name_the_field_and_the_reason(
    schema: Json, document: Json, expected: list[tuple[str, str]]
) -> None:
    assert found(schema, document) == expected


def test_detail_has_the_shape_that_clients_parse() -> None:
    assert describe(
        "a/b'c", [Violation("author", "author is required"), Violation("a.0", "x")]
    ) == (
        "metadata validation failed for text_id 'a/b'c': metadata validation failed:"
        "\n  - author: author is required"
        "\n  - a.0: x"
    )


def test_long_and_multiline_values_are_cut_to_one_line() -> None:
    name = "a\nb" * 500
    violations = found(
        {"required": [name], "properties": {"x": {"enum": ["y" * 5000]}}}, {"x": "z" * 5000}
    )
    assert len(violations) == 2
    for violated, reason in violations:
        assert "\n" not in violated + reason
        assert len(violated) < 350
        assert len(reason) < 150


def test_many_violations_are_cut() -> None:
    violations = found({"items": {"type": "string"}}, list(range(1000)))
    assert len(violations) == MAX_VIOLATIONS + 1
    assert violations[-1] == ("(root)", f"only the first {MAX_VIOLATIONS} violations are listed")


def test_document_limits() -> None:
    accepts_all = {"title": "all"}
    assert found(accepts_all, nested(MAX_DOCUMENT_DEPTH, 1)) == []
    assert found(accepts_all, nested(5000, 1)) == [
        ("(root)", f"is nested deeper than {MAX_DOCUMENT_DEPTH} levels")
    ]
    assert found(accepts_all, [1] * MAX_DOCUMENT_VALUES) == [
        ("(root)", f"has more than {MAX_DOCUMENT_VALUES} values")
    ]


MANY = list(range(99_000))
HARD: list[tuple[Json, Json]] = [
    ({"items": {"allOf": [{"minimum": -n} for n in range(190)]}}, MANY),
    ({"items": {"allOf": [{"minimum": -n} for n in range(1900)]}}, MANY),
    ({"items": {"anyOf": [{"minimum": 10**6 + n} for n in range(60)]}}, MANY),
    ({"items": {"enum": [*map(str, range(5000)), 1]}}, [1] * 90_000),
    ({"items": {"enum": [[n] for n in range(4000)]}}, [[3999]] * 240),
    ({"items": {"enum": [1e300 * n for n in range(90)]}}, [1e-300] * 900),
    ({"required": [f"r{n}" for n in range(4000)]}, {"a": MANY}),
    ({"uniqueItems": True}, [{"a": n, "b": [n]} for n in range(24_000)]),
    ({"uniqueItems": True}, [*(1e300 * n for n in range(9000)), *(2**62 + n for n in range(9000))]),
    ({"allOf": [{"pattern": f"(?:[abc]{{1,40}}){{100}}x{n}"} for n in range(1500)]}, "a"),
    ({"properties": {f"p{n}": {"pattern": f"(?:[abc]{{1,40}}){{100}}x{n}"} for n in range(8)}}, {}),
    ({"contains": {"enum": [*range(300), None]}}, [1e-300] * 60),
    ({"contains": {"enum": [*range(300), None]}}, [1e-300] * 350),
    ({"unevaluatedItems": {"const": 1e-300}, "$schema": DRAFT_2020}, [1.5] * 38_000),
    ({"unevaluatedItems": {"const": 1e-300}, "$schema": DRAFT_2020}, [1.5] * 4_000),
    ({"items": {"enum": [*range(300), None]}}, [1e-300] * 15),
    ({"unevaluatedItems": {"enum": list(range(100))}, "$schema": DRAFT_2020}, [1e-300] * 35),
    ({"uniqueItems": True}, [2**62 + n for n in range(9000)]),
    ({"uniqueItems": True}, [2**62 + n for n in range(900)]),
    ({"uniqueItems": True}, [[2**62 + n, 2**62 + m] for n in range(50) for m in range(50)]),
    ({"uniqueItems": True}, [[2**62 + n, 2**62 + m] for n in range(18) for m in range(18)]),
    ({"uniqueItems": True, "items": {"$ref": "#"}}, nested(60, MANY, key="a")),
    ({"items": {"allOf": [True] * 9000}}, MANY),
    ({"items": {"dependentSchemas": {f"p{n}": {} for n in range(3000)}}, "$schema": DRAFT_2020},
     [{}] * 40_000),
    ({"items": {"multipleOf": 1e-300}}, [1.5] * 10_000),
    ({"items": {"multipleOf": 0.5}}, [1e308] * 8_000),
    ({"items": {"multipleOf": 0.5}}, [10**400, -(10**400), 5e-324, 2**63]),
    ({"items": {"minimum": 1e-300}}, [0.1] * 90_000),
    ({"items": {"pattern": "(?:[ab]{1,78}){30}x"}}, ["a" * 3000]),
    ({"items": {"pattern": "(?:[ab]{1,78}){30}x"}}, ["a" * 100_000] * 9),
    ({"items": {"pattern": "(a|b)*a(a|b){478}c"}}, ["ab" * 40_000]),
    ({"patternProperties": {f"^x.*{n}$": {"type": "null"} for n in range(400)}},
     {f"x{n}": 1 for n in range(9000)}),
    ({"properties": {"a": pairs(10, "anyOf")["allOf"][0]}, **pairs(10, "anyOf")}, {"a": 1}),
    ({"anyOf": [{"items": {"$ref": "#"}, "type": "array"}, {"const": 1}]},
     json.loads("[" * 60 + "2" + "]" * 60)),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "document"), HARD, ids=map(str, range(len(HARD))))
def test_hard_documents_are_refused_or_answered_within_a_second(
    schema: Json, document: Json
) -> None:
    began = time.thread_time()
    try:
        validator = validator_for(check_schema(schema))
    except InvalidSchema:
        validator = None
    checked = time.thread_time()
    if validator:
        validator.violations(document)
    assert checked - began < 1
    assert time.thread_time() - checked < 1


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
@pytest.mark.parametrize("chain", [1, 8, 30, 60])
def test_nested_alternatives_do_not_overflow_a_small_stack(keyword: str, chain: int) -> None:
    definitions: Json = {
        f"d{n}": {keyword: [{"$ref": f"#/definitions/d{n + 1}"}]} for n in range(chain // 2)
    }
    definitions[f"d{chain // 2}"] = {"type": "array", "items": {"$ref": "#"}}
    schema = {"allOf": [{"$ref": "#/definitions/d0"}], "definitions": definitions}
    validator = validator_for(check_schema(schema))
    answers: list[list[Violation]] = []
    for depth in (1, 2, 5, 10, 20, 60):
        document: Json = "x"
        for _ in range(depth):
            document = [document]
        before = threading.stack_size(1 << 20)
        thread = threading.Thread(
            target=lambda document=document: answers.append(validator.violations(document))
        )
        thread.start()
        threading.stack_size(before)
        thread.join()
    assert len(answers) == 6
    assert all(answers)


def test_a_batch_of_costly_documents_runs_out_of_its_budget() -> None:
    validator = validator_for(check_schema({"items": {"allOf": [{"type": "integer"}] * 100}}))
    document = [1] * 20_000
    budget = Budget(0.2)
    began = time.thread_time()
    answers = [validator.violations(document, budget) for _ in range(200)]
    assert time.thread_time() - began < 1
    assert answers[0] == []
    assert "upload fewer" in answers[-1][0].reason
    assert validator.violations(document, Budget()) == []


def test_a_batch_of_ordinary_documents_stays_within_its_budget() -> None:
    validator = validator_for(
        check_schema({"properties": {"code": {"pattern": "^.{1,255}$"}, "n": {"minimum": 0.5}}})
    )
    budget = Budget()
    for number in range(5000):
        document = {"code": f"c{number}", "n": number + 1.5, "text": "t" * 2000}
        assert validator.violations(document, budget) == []


def test_thousand_small_documents_take_milliseconds() -> None:
    names = "abcdefghij"
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "maxLength": 20} for name in names},
        "required": ["a"],
    }
    validator = validator_for(check_schema(schema))
    document = dict.fromkeys(names, "value")
    began = time.monotonic()
    assert not any(validator.violations(document) for _ in range(1000))
    # 5 ms where it was written; room for a busy machine.
    assert time.monotonic() - began < 0.2


# Whatever comes

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)
)
KEYWORDS = [
    "$ref",
    "$id",
    "$schema",
    "$anchor",
    "$defs",
    "definitions",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "items",
    "prefixItems",
    "contains",
    "minContains",
    "properties",
    "patternProperties",
    "additionalProperties",
    "propertyNames",
    "required",
    "dependencies",
    "dependentRequired",
    "enum",
    "const",
    "type",
    "pattern",
    "format",
    "multipleOf",
    "minimum",
    "maxLength",
    "uniqueItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
    "contentSchema",
    "a",
]
atoms = scalars | st.sampled_from(
    ["#", "#/definitions/a", "#a", "http://a/b", "string", "a+", "date"]
)
schemas: st.SearchStrategy[Json] = st.recursive(
    atoms | st.just({}),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("keyword", ["enum", "allOf", "patternProperties"])
@pytest.mark.parametrize("value", [None, 5, "x"])
@pytest.mark.parametrize("place", ["$defs", "dependentSchemas", "prefixItems", "contentSchema"])
def test_parts_that_only_another_dialect_reads_are_checked(
    place: str, keyword: str, value: Json
) -> None:
    part: Json = {keyword: value}
    around = {"$defs": {"a": part}, "dependentSchemas": {"a": part}, "prefixItems": [part]}
    with pytest.raises(InvalidSchema, match=f"the keyword '?{keyword}'? cannot be"):
        check_schema({place: around.get(place, part)})
    assert check_schema({"$defs": {"a": {"enum": [1]}}, "contentSchema": {"allOf": [{}]}})


@given(schemas, st.sampled_from([None, DRAFT_2019, DRAFT_2020]), values)
@settings(max_examples=300, deadline=None)
def test_anything_is_stored_or_refused(schema: Json, dialect: str | None, document: Json) -> None:
    if isinstance(schema, dict) and dialect:
        schema = {**schema, "$schema": dialect}
    try:
        text = check_schema(schema)
    except InvalidSchema:
        return
    assert check_schema(text) == text
    for violation in validator_for(text).violations(document):
        assert violation.field
        assert violation.reason


@given(st.text(max_size=40))
def test_any_text_is_stored_or_refused(text: str) -> None:
    try:
        assert check_schema(text) == text
    except InvalidSchema:
        return


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "a": st.integers() | st.text(max_size=3),
            "b": st.lists(st.integers() | st.none(), max_size=4),
            "c": st.fixed_dictionaries({}, optional={"d": st.booleans() | st.text(max_size=2)}),
        },
    )
)
def test_exactly_the_broken_fields_are_named(document: Json) -> None:
    schema = {
        "required": ["a"],
        "properties": {
            "a": {"type": "integer"},
            "b": {"items": {"type": "integer"}},
            "c": {"required": ["d"], "properties": {"d": {"type": "boolean"}}},
        },
    }
    expected = set()
    if not isinstance(document.get("a"), int):
        expected.add("a")
    expected |= {f"b.{n}" for n, item in enumerate(document.get("b", [])) if item is None}
    if "c" in document and not isinstance(document["c"].get("d"), bool):
        expected.add("c.d")
    assert {field for field, _ in found(schema, document)} == expected
