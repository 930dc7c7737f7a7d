"""Metadata schemas: what a project may store as one, and whether a document matches it.

A schema comes from a stranger and runs on every upload, so saving one is where the work is: nothing
in it may lead outside the document, and what it can cost is bounded before it is ever compiled.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import jsonschema_rs

MAX_SCHEMA_BYTES: Final = 64 * 1024
MAX_SCHEMA_DEPTH: Final = 32
MAX_SCHEMA_NODES: Final = 10_000
MAX_DOCUMENT_DEPTH: Final = 64
MAX_DOCUMENT_VALUES: Final = 100_000
MAX_VIOLATIONS: Final = 20

# jsonschema-rs recurses on the C stack and a stack overflow ends the process. 128 in-place levels
# on each of 64 document levels ran in a thread with 2 MiB of stack, 64 levels in 1 MiB.
_MAX_CHAIN = 64
_MAX_NESTING = 512
# One step is about 20 ns of jsonschema-rs 0.60, so that a document costs at most some 0.4 s.
_STEP_BUDGET = 20_000_000
_UPLOAD_SECONDS = 3.0
_MERGE_BUDGET = 300_000
_EXPLAIN_SECONDS = 0.2
# The detailed explanation compiles every subschema by itself: about 0.7 µs a node of each.
_EXPLAIN_NODES = 200_000
_ECHO = 80

_DRAFT_7 = "http://json-schema.org/draft-07/schema"
_DIALECTS: Final[Mapping[str, type[jsonschema_rs.Validator]]] = {
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    _DRAFT_7: jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
}
_OLD_DRAFTS = frozenset({"http://json-schema.org/draft-06/schema", _DRAFT_7})

# (size of the compiled pattern, worst steps a character seen for a pattern that just fits): what is
# above the last one costs more than 0.2 ms a character. ".{1,255}" needs half a MiB.
_PATTERN_TIERS = (
    (1 << 12, 1),
    (1 << 14, 5),
    (1 << 15, 25),
    (1 << 16, 130),
    (1 << 17, 500),
    (1 << 18, 3000),
    (1 << 20, 9000),
)
# For all of them: compiling 1 MiB takes 5 ms, and the validator keeps them in memory.
_PATTERNS_BYTES = 4 << 20

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS = ("$anchor", "$dynamicAnchor")
# Keywords that a draft does not know, and neither runs nor checks the shape of.
_SINCE_2019 = frozenset(
    {
        "$anchor",
        "$dynamicAnchor",
        "$dynamicRef",
        "$recursiveRef",
        "contentSchema",
        "dependentRequired",
        "dependentSchemas",
        "maxContains",
        "minContains",
        "prefixItems",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_FOREIGN: Final[Mapping[str, frozenset[str]]] = {
    "http://json-schema.org/draft-06/schema": _SINCE_2019
    | {"if", "then", "else", "contentEncoding", "contentMediaType"},
    _DRAFT_7: _SINCE_2019,
    "https://json-schema.org/draft/2019-09/schema": frozenset(
        {"$dynamicAnchor", "$dynamicRef", "prefixItems"}
    ),
    "https://json-schema.org/draft/2020-12/schema": frozenset({"$recursiveRef", "additionalItems"}),
}
_INPLACE_ONE = ("not", "if", "then", "else")
_INPLACE_LIST = ("allOf", "anyOf", "oneOf")
_INPLACE_MAP = ("dependentSchemas", "dependencies")
_UNUSED_MAP = ("$defs", "definitions")
_OBJECT_WIDE = ("additionalProperties", "unevaluatedProperties", "propertyNames")
_ARRAY_WIDE = ("additionalItems", "unevaluatedItems", "contains")
_NUMBER_KEYWORDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

Symbol = tuple[str, str | int | None]
_ANY_MEMBER: Symbol = ("object", None)
_ANY_ITEM: Symbol = ("array", None)


class InvalidSchema(ValueError):
    """A text that cannot be a metadata schema; the message is a sentence for who sent it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One way in which a document breaks its schema.

    ``field`` is the dotted path of the value: ``author``, ``author.name``, ``tags.0`` for the first
    item of a list, ``(root)`` for the document itself. A missing property is named, not its parent.
    """

    field: str
    reason: str


class Budget:
    """The time that checking the documents of one upload may take together.

    It is what the thread really computed, not a bound as for one document: bounds are far too high
    for ordinary documents, and thousands of them add up.
    """

    def __init__(self, seconds: float = _UPLOAD_SECONDS) -> None:
        self.seconds = seconds


def check_schema(source: object) -> str:
    """Return the text to store for a metadata schema, given as text or as parsed JSON.

    A text is returned as it came; a parsed object is written compactly, in its own key order.

    Decisions the contract leaves open:

    * Drafts 06, 07, 2019-09 and 2020-12; 07 when ``$schema`` is absent.
    * The schema must be an object: a bare ``true`` or ``false`` is refused.
    * Every reference must start with ``#`` and exist. A ``$id`` (or ``id``) at the root only names
      the document, and is accepted: as all references are fragments nothing resolves against it,
      and it is removed before compiling, so that the validator never sees an address. Below the
      root it would move the base of the references beside it, and is refused.
    * Recursion is allowed where each round goes into a property or an item.

    Raises:
        InvalidSchema: not JSON, not a schema, too large, too costly, or pointing outside itself.
    """
    text = source if isinstance(source, str) else _written(source)
    _compiled(text)
    return text


@lru_cache(maxsize=64)
def validator_for(schema_text: str) -> MetadataValidator:
    """Return the compiled validator of a stored schema; the most recent ones are kept.

    Raises:
        InvalidSchema: the text would not pass check_schema().
    """
    return MetadataValidator(schema_text)


def describe(text_id: str, violations: Sequence[Violation]) -> str:
    """Return the detail text that v1 clients parse."""
    lines = "".join(f"\n  - {each.field}: {each.reason}" for each in violations)
    return f"metadata validation failed for text_id '{text_id}': metadata validation failed:{lines}"


class MetadataValidator:
    """Checks documents against one schema. Use validator_for() to get one."""

    def __init__(self, schema_text: str) -> None:
        self._root, self._dialect, self._graph, self._validator = _compiled(schema_text)
        self._parts: jsonschema_rs.ValidatorMap | None = None

    def violations(self, metadata: object, budget: Budget | None = None) -> list[Violation]:
        """Return how the document breaks the schema; empty when it is valid.

        Formats (``date``, ``email``, ``uri`` …) are asserted, as upstream does; unknown ones are
        not. At most MAX_VIOLATIONS are listed. A document whose check could take longer than about
        half a second (some 100 000 values against hundreds of subschemas each) is itself one; so is
        the document at which the budget of an upload, given for each of its documents, runs out.
        """
        if budget is None:
            return self._violations(metadata)
        if budget.seconds <= 0:
            return [Violation("(root)", _UPLOAD_TOO_COSTLY)]
        began = time.thread_time()
        found = self._violations(metadata)
        budget.seconds -= time.thread_time() - began
        return found

    def _violations(self, metadata: object) -> list[Violation]:
        refusal = self._too_costly(metadata)
        if refusal:
            return [Violation("(root)", refusal)]
        if self._validator.is_valid(metadata):
            return []
        return self._explained(metadata)

    def _too_costly(self, metadata: object) -> str | None:
        size = _size_of(metadata)
        if isinstance(size, str):
            return size
        values, characters = size
        graph = self._graph
        if graph.steps * values + graph.scans * characters <= _STEP_BUDGET:
            return None
        if graph.costs_at_most(metadata, _STEP_BUDGET):
            return None
        return _DOCUMENT_TOO_COSTLY

    def _explained(self, metadata: object) -> list[Violation]:
        # The errors of jsonschema-rs are not used: they are built all at once, each with copies of
        # the values around it (5 000 missing properties of a 100 000-value document ran out of
        # memory), and nested anyOf overflows the stack.
        if self._graph.compile_cost > _EXPLAIN_NODES:
            return [Violation("(root)", "does not match the schema")]
        if self._parts is None:
            self._parts = jsonschema_rs.validator_map_for(
                self._root,
                offline=True,
                validate_formats=True,
                pattern_options=_pattern_options(),
            )
        return _Explanation(self._dialect, self._graph, self._parts).of(self._root, metadata)


_DOCUMENT_TOO_COSTLY = (
    "checking this document against the schema of the project would take too long; "
    "make the document smaller or the schema simpler"
)
_UPLOAD_TOO_COSTLY = (
    "checking the documents of this upload against the schema of the project takes too long; "
    "upload fewer of them at once"
)


# Reading


def _written(source: object) -> str:
    if not isinstance(source, Mapping):
        raise InvalidSchema(_NOT_AN_OBJECT)
    try:
        return json.dumps(dict(source), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise InvalidSchema(_TOO_DEEP) from None
    except (TypeError, ValueError):
        raise InvalidSchema(
            "The metadata schema holds a value that JSON cannot express, such as NaN or Infinity; "
            "use plain JSON values."
        ) from None


_NOT_AN_OBJECT = (
    'The metadata schema must be a JSON object such as {"type": "object"}; '
    "use {} to accept every document."
)
_TOO_DEEP = (
    f"The metadata schema is nested deeper than {MAX_SCHEMA_DEPTH} levels; "
    "move inner parts to definitions and refer to them with $ref."
)
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _parsed(text: str) -> dict[str, Any]:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidSchema(_BAD_CHARACTER) from None
    if size > MAX_SCHEMA_BYTES:
        raise InvalidSchema(
            f"The metadata schema has {size} bytes; at most {MAX_SCHEMA_BYTES} are allowed."
        )
    # Before parsing: the parser recurses with the nesting.
    depth = 0
    for character in _STRINGS.sub("", text):
        if character in "[{":
            depth += 1
            if depth > MAX_SCHEMA_DEPTH:
                raise InvalidSchema(_TOO_DEEP)
        elif character in "]}":
            depth -= 1
    try:
        root = json.loads(
            text,
            parse_constant=_refuse_number,
            parse_float=_float,
            parse_int=_int,
            object_pairs_hook=_object,
        )
    except json.JSONDecodeError as error:
        raise InvalidSchema(
            f"The metadata schema is not valid JSON: {error.msg} at line {error.lineno}, "
            f"column {error.colno}."
        ) from None
    if not isinstance(root, dict):
        raise InvalidSchema(_NOT_AN_OBJECT)
    _check_strings(root)
    return root


def _refuse_number(literal: str) -> float:
    raise InvalidSchema(
        f"The metadata schema holds the number {_echo(literal)}, which is out of range; "
        "use finite numbers, and integers of at most 64 bits."
    )


def _float(literal: str) -> float:
    number = float(literal)
    return _refuse_number(literal) if number in (float("inf"), float("-inf")) else number


def _int(literal: str) -> int:
    # int() of thousands of digits raises by itself, so the length goes first.
    if len(literal) > 20 or not -(2**63) <= int(literal) < 2**64:
        _refuse_number(literal)
    return int(literal)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        name = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise InvalidSchema(
            f"The metadata schema names the key {_echo(name)} twice in one object; remove one."
        )
    return found


_BAD_CHARACTER = (
    "The metadata schema holds U+0000 or half of a surrogate pair, which cannot be stored; "
    "remove the character."
)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _check_strings(root: object) -> None:
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            if _UNSTORABLE.search(value):
                raise InvalidSchema(_BAD_CHARACTER)
        elif isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _compiled(text: str) -> tuple[dict[str, Any], str, _Graph, jsonschema_rs.Validator]:
    root = _parsed(text)
    dialect = _dialect_of(root)
    root["$schema"] = dialect
    for name in ("$id", "id"):
        given = root.get(name)
        if isinstance(given, str) and not given.startswith("#"):
            del root[name]
    try:
        # Only yes or no, as an error would copy the schema around it; and before the graph, which
        # may then trust that keywords have the shape of their draft.
        if not jsonschema_rs.meta.is_valid(root):
            raise InvalidSchema(_against_its_draft(root, dialect))
        graph = _Graph(root, dialect)
        validator = _DIALECTS[dialect](
            root, offline=True, validate_formats=True, pattern_options=_pattern_options()
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        raise InvalidSchema(
            f"The metadata schema cannot be used: {_echo(str(error).partition(chr(10))[0])}."
        ) from None
    return root, dialect, graph, validator


def _dialect_of(root: Mapping[str, Any]) -> str:
    given = root.get("$schema", _DRAFT_7)
    name = given.removesuffix("#") if isinstance(given, str) else ""
    for dialect in _DIALECTS:
        # Both schemes are common in the wild; the address is only ever compared.
        if name.partition("://")[2] == dialect.partition("://")[2]:
            return dialect
    raise InvalidSchema(
        f"The metadata schema names the dialect {_echo(given)} in $schema; "
        f"supported are {', '.join(_DIALECTS)}."
    )


def _against_its_draft(root: dict[str, Any], dialect: str) -> str:
    """Return the sentence for a schema that its meta-schema refuses, naming the innermost cause."""
    keyword, value = next(
        (
            (keyword, part[keyword])
            for part in reversed(list(_dicts(root)))
            for keyword in part
            if not jsonschema_rs.meta.is_valid({"$schema": dialect, keyword: part[keyword]})
        ),
        (None, None),
    )
    if keyword is None:
        return f"The metadata schema is not valid JSON Schema of {dialect}; check its keywords."
    if keyword == "pattern" and isinstance(value, str):
        return _bad_pattern(value)
    return (
        f"The metadata schema is not valid JSON Schema of {dialect}: the keyword "
        f"{_echo(keyword)} cannot be {_echo(json.dumps(value, ensure_ascii=False))}; correct it."
    )


def _dicts(root: object) -> Iterator[dict[str, Any]]:
    pending = [root]
    while pending:
        value = pending.pop(0)
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


# What a schema costs


def _pattern_options() -> jsonschema_rs.RegexOptions:
    return jsonschema_rs.RegexOptions(size_limit=_PATTERN_TIERS[-1][0])


@lru_cache(maxsize=1024)
def _pattern_cost(pattern: str) -> tuple[int, int]:
    """Return the most bytes a compiled pattern takes and the most steps a character costs.

    Raises:
        InvalidSchema: the linear-time engine does not take the pattern.
    """
    for size, cost in _PATTERN_TIERS:
        options = jsonschema_rs.RegexOptions(size_limit=size)
        try:
            jsonschema_rs.Draft7Validator(
                {"pattern": pattern}, offline=True, pattern_options=options
            )
        except ValueError:
            continue
        return size, cost
    raise InvalidSchema(_bad_pattern(pattern))


def _bad_pattern(pattern: str) -> str:
    return (
        f"The metadata schema holds the pattern {_echo(pattern)}, which is not a regular "
        "expression that runs in linear time: look-around, back-references and large repetitions "
        "are not available; simplify it."
    )


@dataclass(slots=True)
class _Node:
    """A subschema, what applying it costs, and the subschemas it applies.

    ``inplace`` go to the same value, ``inner`` to its members or items. A step is a unit of work
    for each value, a scan one for each character of it (numbers count as characters too).
    """

    schema: Mapping[str, Any]
    pointer: str
    steps: int = 1
    scans: int = 0
    inplace: list[tuple[int, int]] = field(default_factory=list)
    inner: list[tuple[Symbol, int, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Closure:
    """All that one value meets: the sum over a node and everything it applies in place."""

    steps: int
    scans: int
    chain: int
    inner: Mapping[Symbol, Mapping[int, int]]


class _Graph:
    """The subschemas of a document and what they can cost.

    Two costs are bounded when a schema is saved. The nodes after expanding every local reference
    (a reference back to where we are counts once), as the contract asks. And the work that one
    value of a document can cause: many references lead to the same definition harmlessly when each
    is taken for another property, but two for the *same* property double the work with each level
    of the document, which for a recursive schema is 2^64.
    """

    def __init__(self, root: dict[str, Any], dialect: str) -> None:
        self._root = root
        self._dialect = dialect
        self._nodes: dict[int, _Node] = {}
        self._anchors: dict[str, dict[str, Any]] = {}
        self._references: list[tuple[int, str, str]] = []
        self._transitions: dict[tuple[_State, Symbol], _State] = {}
        self._merges = 0
        self._pattern_bytes = 0
        self._add_all([(root, "#")])
        self._resolve_all()
        # The virtual node of uniqueItems: it meets every value below its list.
        self._below = -1
        node = self._nodes[self._below] = _Node({}, "", steps=20, scans=2)
        node.inner = [(_ANY_MEMBER, self._below, 1), (_ANY_ITEM, self._below, 1)]
        for node in list(self._nodes.values()):
            self._weigh(node)
        self.compile_cost = self._check_expansion()
        self._closures = self._closed()
        self.steps, self.scans = self._check_multiplicity()

    def _known(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        foreign = _FOREIGN[self._dialect]
        if foreign.isdisjoint(schema):
            return schema
        # A reference that this draft ignores still has no business outside.
        for keyword in foreign.intersection(_REFERENCES).intersection(schema):
            self._target(str(schema[keyword]), keyword, exists=False)
        return {key: value for key, value in schema.items() if key not in foreign}

    def node_of(self, schema: object) -> _Node | None:
        """Return what is known about a subschema object of this document."""
        return self._nodes.get(id(schema))

    def target_of(self, schema: Mapping[str, Any], keyword: str) -> Any:
        """Return the subschema that a reference leads to."""
        return self._target(str(schema[keyword]), keyword)[0]

    def _add_all(self, pending: list[tuple[Any, str]]) -> None:
        while pending:
            schema, pointer = pending.pop()
            if not isinstance(schema, dict) or id(schema) in self._nodes:
                continue
            if schema is not self._root:
                _refuse_base(schema)
            known = self._known(schema)
            self._nodes[id(schema)] = _Node(known, pointer)
            if len(self._nodes) > MAX_SCHEMA_NODES:
                raise InvalidSchema(_TOO_COSTLY)
            self._check_anchors(schema, known)
            for keyword in _REFERENCES:
                if keyword in known:
                    self._references.append((id(schema), keyword, str(known[keyword])))
            pending.extend((child, pointer + path) for path, child in _children(known))

    def _check_anchors(self, schema: dict[str, Any], known: Mapping[str, Any]) -> None:
        named = [known[keyword] for keyword in _ANCHORS if keyword in known]
        identifier = schema.get("$id")
        if isinstance(identifier, str):
            # What is left of them starts with #, which up to draft 07 is how an anchor is written.
            named.append(identifier[1:])
        for name in set(named):
            if name and self._anchors.setdefault(name, schema) is not schema:
                raise InvalidSchema(
                    f"The metadata schema gives the anchor {_echo(name)} twice; rename one."
                )

    def _resolve_all(self) -> None:
        # The list grows: a target outside the known keywords is a subschema of its own.
        for source, keyword, reference in self._references:
            target, pointer = self._target(reference, keyword)
            if isinstance(target, dict):
                if id(target) not in self._nodes:
                    # Under a keyword of no draft, where the meta-schema did not look.
                    here = {**target, "$schema": self._dialect}
                    if not jsonschema_rs.meta.is_valid(here):
                        raise InvalidSchema(_against_its_draft(target, self._dialect))
                    self._add_all([(target, pointer)])
                self._nodes[source].inplace.append((id(target), 1))

    def _target(self, reference: str, keyword: str, *, exists: bool = True) -> tuple[Any, str]:
        if not reference.startswith("#"):
            raise InvalidSchema(
                f"The metadata schema refers to {_echo(reference)} in {keyword}, outside itself; "
                "copy what it needs into its definitions and refer to it with #/definitions/…"
            )
        if not exists:
            return True, ""
        dangling = InvalidSchema(
            f"The metadata schema refers to {_echo(reference)} in {keyword}, which does not exist; "
            "add it or correct the reference."
        )
        fragment = unquote(reference[1:])
        target: Any = self._root
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise dangling
            target = self._anchors[fragment]
            return target, self._nodes[id(target)].pointer
        for part in fragment.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(target, dict) and name in target:
                target = target[name]
            elif isinstance(target, list) and name.isdecimal() and name.isascii():
                if int(name[:9]) >= len(target):
                    raise dangling
                target = target[int(name[:9])]
            else:
                raise dangling
            if isinstance(target, dict):
                # Also on the way: it would move the base of what lies below.
                _refuse_base(target)
        if not isinstance(target, dict | bool):
            raise dangling
        return target, "#" + "".join(
            _step(p.replace("~1", "/").replace("~0", "~")) for p in fragment.split("/")[1:]
        )

    def _weigh(self, node: _Node) -> None:
        """Fill in what a node costs and what it applies; figures are measured steps of 20 ns."""
        schema = node.schema
        # To know what others have evaluated, unevaluated… runs them again (2.7 times, measured).
        times = 3 if {"unevaluatedItems", "unevaluatedProperties"} & schema.keys() else 1
        node.inplace = [(child, times) for child, _ in node.inplace]
        node.steps += len(schema) + 2 * len(schema.get("required", ()))
        node.scans += sum(keyword in schema for keyword in ("minLength", "maxLength"))
        limits = [schema[keyword] for keyword in _NUMBER_KEYWORDS if keyword in schema]
        node.scans += len(limits)
        node.steps += _exotic_cost([*limits, schema.get("multipleOf")])
        node.scans += 2 * ("multipleOf" in schema)
        node.scans += 5 * sum(
            keyword in schema for keyword in ("format", "contentMediaType", "contentEncoding")
        )
        if "pattern" in schema:
            node.scans += self._pattern(schema["pattern"])
        if "enum" in schema or "const" in schema:
            steps, scans = _constants_cost(schema)
            node.steps += steps
            node.scans += scans
        if schema.get("uniqueItems") is True:
            node.inner.append((_ANY_ITEM, self._below, 1))
        for keyword in ("dependentRequired", "dependencies"):
            for names in schema.get(keyword, {}).values():
                node.steps += 2 * len(names) if isinstance(names, list) else 2
        for pattern in schema.get("patternProperties", ()):
            # Each is tried on each name of the object, whether it is then applied or not.
            matcher = -2 - len(self._nodes)
            self._nodes[matcher] = _Node({}, "", steps=4, scans=self._pattern(pattern))
            node.inner.append((_ANY_MEMBER, matcher, times))
        for keyword in (*_INPLACE_ONE, *_INPLACE_LIST, *_INPLACE_MAP):
            node.inplace += [(id(child), times) for child in _below(schema, keyword)]
        self._descend(node, times)

    def _pattern(self, pattern: str) -> int:
        size, cost = _pattern_cost(pattern)
        self._pattern_bytes += size
        if self._pattern_bytes > _PATTERNS_BYTES:
            raise InvalidSchema(
                "The patterns of the metadata schema are too large together; use fewer of them, or "
                "replace repetitions such as .{1,255} by minLength and maxLength."
            )
        return cost

    def _descend(self, node: _Node, times: int) -> None:
        schema = node.schema

        def add(symbol: Symbol, child: object, count: int = times) -> None:
            if isinstance(child, dict):
                node.inner.append((symbol, id(child), count))

        properties = schema.get("properties", {})
        for name, child in properties.items():
            add(("object", name), child)
        for child in schema.get("patternProperties", {}).values():
            add(_ANY_MEMBER, child)
        for keyword in _OBJECT_WIDE:
            add(_ANY_MEMBER, schema.get(keyword))
        for name in properties:
            # What the node lists is not additional: take it off the sum again.
            add(("object", name), schema.get("additionalProperties"), -times)
        first = schema.get("prefixItems", [])
        rest = schema.get("items")
        if isinstance(rest, list):
            first, rest = rest, schema.get("additionalItems")
        elif "additionalItems" in schema:
            add(_ANY_ITEM, schema["additionalItems"])
        add(_ANY_ITEM, rest)
        for index, child in enumerate(first):
            add(("array", index), child)
            add(("array", index), rest, -times)
        add(_ANY_ITEM, schema.get("unevaluatedItems"))
        add(_ANY_ITEM, schema.get("contains"))

    def _order(self, start: int, *, inner: bool) -> Iterator[int]:
        """Yield what a node leads to, children first; refuse endless recursion in place."""
        done: set[int] = set()
        active: dict[int, Iterator[int]] = {start: iter(self._next(start, inner=inner))}
        path = [start]
        while path:
            here = path[-1]
            child = next(active[here], None)
            if child is None:
                path.pop()
                del active[here]
                done.add(here)
                yield here
            elif child in active:
                if not inner:
                    raise InvalidSchema(
                        "The metadata schema refers to itself without going into a property or an "
                        f"item at {_echo(self._nodes[child].pointer)}, which never ends; "
                        "break the circle."
                    )
            elif child not in done:
                path.append(child)
                active[child] = iter(self._next(child, inner=inner))

    def _next(self, number: int, *, inner: bool) -> list[int]:
        node = self._nodes[number]
        children = [child for child, _ in node.inplace]
        if inner:
            children += [child for _, child, count in node.inner if count > 0]
        return children

    def _check_expansion(self) -> int:
        """Refuse too many nodes after expansion; return the sum over all nodes."""
        expanded: dict[int, tuple[int, int]] = {}
        root = id(self._root)
        for start in (root, *self._nodes):
            if start in expanded:
                continue
            for number in self._order(start, inner=True):
                # A child that is not counted yet is one we are inside of: a recursion.
                children = [expanded.get(child, (1, 0)) for child in self._next(number, inner=True)]
                nodes = 1 + sum(count for count, _ in children)
                depth = 1 + max((depth for _, depth in children), default=0)
                if nodes > MAX_SCHEMA_NODES or depth > _MAX_NESTING:
                    raise InvalidSchema(_TOO_COSTLY)
                expanded[number] = nodes, depth
        return sum(nodes for nodes, _ in expanded.values())

    def _closed(self) -> dict[int, _Closure]:
        closures: dict[int, _Closure] = {}
        for start in self._nodes:
            if start in closures:
                continue
            for number in self._order(start, inner=False):
                if number not in closures:
                    closures[number] = self._closure(number, closures)
        return closures

    def _closure(self, number: int, closures: Mapping[int, _Closure]) -> _Closure:
        node = self._nodes[number]
        steps, scans, chain = node.steps, node.scans, 1
        inner: dict[Symbol, dict[int, int]] = {}
        for symbol, child, count in node.inner:
            targets = inner.setdefault(symbol, {})
            targets[child] = targets.get(child, 0) + count
        for other, times in node.inplace:
            part = closures[other]
            steps += times * part.steps
            scans += times * part.scans
            chain = max(chain, 1 + part.chain)
            for symbol, counts in part.inner.items():
                targets = inner.setdefault(symbol, {})
                self._merges += len(counts)
                for child, count in counts.items():
                    targets[child] = targets.get(child, 0) + times * count
            # Checked on the way, as the numbers double with each level.
            if chain > _MAX_CHAIN or self._merges > _MERGE_BUDGET or steps > _STEP_BUDGET:
                raise InvalidSchema(_TOO_COSTLY)
        return _Closure(steps, scans, chain, inner)

    def _check_multiplicity(self) -> tuple[int, int]:
        """Refuse a schema that one value can make explode; return the most steps and scans a value
        of a document as deep as allowed can cost."""
        roots = {id(self._root)}
        pending = [id(self._root)]
        while pending:
            for counts in self._closures[pending.pop()].inner.values():
                pending.extend(counts.keys() - roots)
                roots |= counts.keys()
        worst = {root: (self._closures[root].steps, self._closures[root].scans) for root in roots}
        own = dict(worst)
        for _ in range(MAX_DOCUMENT_DEPTH):
            deeper = {root: self._deeper(root, own, worst) for root in roots}
            if deeper == worst:
                break
            worst = deeper
            if max(steps for steps, _ in worst.values()) > _STEP_BUDGET:
                raise InvalidSchema(_TOO_COSTLY)
        return worst[id(self._root)]

    def _deeper(
        self,
        root: int,
        own: Mapping[int, tuple[int, int]],
        worst: Mapping[int, tuple[int, int]],
    ) -> tuple[int, int]:
        inner = self._closures[root].inner
        sums = {
            symbol: (
                sum(count * worst[child][0] for child, count in counts.items()),
                sum(count * worst[child][1] for child, count in counts.items()),
            )
            for symbol, counts in inner.items()
        }
        steps, scans = own[root]
        for (kind, name), (some_steps, some_scans) in sums.items():
            wide = sums.get((kind, None), (0, 0)) if name is not None else (0, 0)
            steps = max(steps, some_steps + wide[0])
            scans = max(scans, some_scans + wide[1])
        return steps, scans

    def costs_at_most(self, document: object, budget: int) -> bool:
        """Tell whether checking the document stays within that many steps.

        Walks it with the multiset of subschemas that meet each value, so that one long list does
        not pay for the patterns of another field. Each pattern is taken to match each name.
        """
        merges = 0
        start: _State = ((id(self._root), 1),)
        pending: list[tuple[object, _State]] = [(document, start)]
        totals: dict[_State, tuple[int, int]] = {}
        named: dict[_State, set[Symbol]] = {}
        while pending:
            value, state = pending.pop()
            if state not in totals:
                totals[state] = (
                    sum(count * self._closures[root].steps for root, count in state),
                    sum(count * self._closures[root].scans for root, count in state),
                )
                named[state] = {
                    symbol for root, _ in state for symbol in self._closures[root].inner
                }
                merges += len(state) + len(named[state])
            steps, scans = totals[state]
            budget -= steps + scans * _length_of(value)
            if budget < 0:
                return False
            members: Iterator[tuple[str | int, object]]
            if isinstance(value, dict):
                kind, members = "object", iter(value.items())
            elif isinstance(value, list):
                kind, members = "array", iter(enumerate(value))
            else:
                continue
            for name, member in members:
                symbol: Symbol = (kind, name)
                if symbol not in named[state]:
                    symbol = (kind, None)
                known = self._transitions.get((state, symbol))
                if known is None:
                    known, work = self._moved(state, symbol)
                    merges += work
                    if merges > _MERGE_BUDGET:
                        return False
                    if len(self._transitions) < 10_000:
                        self._transitions[state, symbol] = known
                if known:
                    if isinstance(name, str):
                        # The patterns and propertyNames of the object scan the name as well.
                        pending.append((name, known))
                    pending.append((member, known))
        return True

    def _moved(self, state: _State, symbol: Symbol) -> tuple[_State, int]:
        moved: Counter[int] = Counter()
        work = 1
        for root, count in state:
            inner = self._closures[root].inner
            for each in {symbol, (symbol[0], None)}:
                for child, times in inner.get(each, {}).items():
                    moved[child] += count * times
                    work += 1
        return tuple(sorted((child, count) for child, count in moved.items() if count > 0)), work


_State = tuple[tuple[int, int], ...]
_TOO_COSTLY = (
    "The metadata schema could take too long to check: after following its references it has "
    f"more than {MAX_SCHEMA_NODES} parts, too long a chain of them, or parts that multiply with "
    "the depth of a document; use fewer nested allOf, anyOf and oneOf."
)


def _refuse_base(schema: Mapping[str, Any]) -> None:
    for keyword in ("$id", "id"):
        given = schema.get(keyword)
        if isinstance(given, str) and not given.startswith("#"):
            raise InvalidSchema(
                f"The metadata schema holds {keyword} {_echo(given)} below its root, which changes "
                "where references point; remove it."
            )
    if isinstance(schema.get("$schema"), str):
        raise InvalidSchema(
            "The metadata schema holds $schema below its root; a schema has one dialect, remove it."
        )


def _step(name: str | int) -> str:
    """Return one step of a JSON pointer as jsonschema-rs writes its keys: not percent-encoded."""
    return "/" + str(name).replace("~", "~0").replace("/", "~1")


def _children(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield every subschema of a schema object with the rest of its pointer."""
    for keyword in (*_INPLACE_ONE, *_OBJECT_WIDE, *_ARRAY_WIDE, "items", "contentSchema"):
        value = schema.get(keyword)
        if isinstance(value, dict):
            yield _step(keyword), value
    for keyword in (*_INPLACE_LIST, "prefixItems", "items"):
        value = schema.get(keyword)
        if isinstance(value, list):
            for index, child in enumerate(value):
                yield _step(keyword) + _step(index), child
    for keyword in (*_INPLACE_MAP, *_UNUSED_MAP, "properties", "patternProperties"):
        value = schema.get(keyword)
        if isinstance(value, dict):
            for name, child in value.items():
                yield _step(keyword) + _step(name), child


def _below(schema: Mapping[str, Any], keyword: str) -> list[dict[str, Any]]:
    value = schema.get(keyword)
    if keyword in _INPLACE_ONE:
        value = [value]
    elif isinstance(value, dict):
        value = list(value.values())
    return [child for child in value or () if isinstance(child, dict)]


def _constants_cost(schema: Mapping[str, Any]) -> tuple[int, int]:
    options = [*schema.get("enum", ()), *([schema["const"]] if "const" in schema else ())]
    if all(isinstance(option, str) for option in options):
        # Looked up by hash, where a mixed list is compared one by one at 0.2 to 1 µs an element.
        return 2, 0
    pending, nodes, numbers, steps = list(options), 0, 0, 0
    while pending:
        value = pending.pop()
        nodes += 1
        numbers += isinstance(value, int | float)
        steps += _exotic_cost([value])
        if isinstance(value, dict):
            nodes += len(value)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return steps + 20 * nodes, numbers


def _exotic_cost(limits: Sequence[object]) -> int:
    """Return the steps for comparing any number with limits that are far from 1."""
    lengths = [_length_of(limit) for limit in limits if isinstance(limit, float)]
    return sum(length for length in lengths if length > 100)


# What a document costs


def _length_of(value: object) -> int:
    """Return the size of a value to a scan. Numbers are compared as exact fractions where they are
    not small integers: 2 µs, and up to 20 µs when far from 1."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, float):
        return 100 if 1e-15 < abs(value) < 1e15 or value == 0 else 1000
    if isinstance(value, int):
        return 1 if -(2**53) < value < 2**53 else 200
    return 0


def _size_of(document: object) -> tuple[int, int] | str:
    """Return how many values and characters a document has, or why it is too large to check."""
    values, characters = 1, 0
    level: list[object] = [document]
    for _ in range(MAX_DOCUMENT_DEPTH + 1):
        inner: list[object] = []
        for value in level:
            kind = type(value)
            if kind is str:
                characters += len(value)  # type: ignore[arg-type]
            elif kind is dict:
                inner.extend(value.values())  # type: ignore[attr-defined]
                characters += sum(map(len, value))  # type: ignore[call-overload]
            elif kind is list:
                inner.extend(value)  # type: ignore[arg-type]
            elif value is not None:
                characters += _length_of(value)
        values += len(inner)
        if values > MAX_DOCUMENT_VALUES:
            return f"has more than {MAX_DOCUMENT_VALUES} values"
        if not inner:
            return values, characters
        level = inner
    return f"is nested deeper than {MAX_DOCUMENT_DEPTH} levels"


# Saying what is wrong

Path = tuple[str | int, ...]
_LEAVES = (
    "type",
    "enum",
    "const",
    *_NUMBER_KEYWORDS,
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "contentEncoding",
    "contentMediaType",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
)


class _Explanation:
    """Finds the values that break a schema, asking jsonschema-rs about one subschema at a time."""

    def __init__(self, dialect: str, graph: _Graph, parts: jsonschema_rs.ValidatorMap) -> None:
        self._dialect = dialect
        self._graph = graph
        self._parts = parts
        self._found: dict[Violation, None] = {}
        self._pending: list[tuple[Any, Any, Path]] = []
        self._seen: set[tuple[int, Path]] = set()
        self._reported = False
        self._deadline = 0.0

    def of(self, root: dict[str, Any], document: object) -> list[Violation]:
        # By the clock: what one question costs depends on the part of the document it is about.
        self._deadline = time.monotonic() + _EXPLAIN_SECONDS
        self._pending = [(root, document, ())]
        while self._pending and len(self._found) <= MAX_VIOLATIONS:
            schema, value, path = self._pending.pop()
            if self._is_late():
                self._add(path, "does not match the schema")
                continue
            self._reported = False
            before = len(self._pending)
            for schema_below, value_below, path_below in self._applied(schema, value, path):
                if self._is_late():
                    break
                if (id(schema_below), path_below) in self._seen:
                    self._reported = True
                elif not self._holds(schema_below, value_below):
                    self._seen.add((id(schema_below), path_below))
                    self._pending.append((schema_below, value_below, path_below))
                    if len(self._pending) > before + MAX_VIOLATIONS:
                        break
            if before == len(self._pending) and not self._reported:
                self._add(path, "does not match the schema")
            # A stack answers the last one first; keep the order of the schema.
            self._pending[before:] = reversed(self._pending[before:])
        found = list(self._found)
        if len(found) > MAX_VIOLATIONS:
            found[MAX_VIOLATIONS:] = [
                Violation("(root)", f"only the first {MAX_VIOLATIONS} violations are listed")
            ]
        return found

    def _is_late(self) -> bool:
        return time.monotonic() > self._deadline or len(self._found) > MAX_VIOLATIONS

    def _add(self, path: Path, reason: str) -> None:
        self._found[Violation(_dotted(path), reason)] = None
        self._reported = True

    def _holds(self, schema: Any, value: Any) -> bool:
        if isinstance(schema, bool):
            return schema
        node = self._graph.node_of(schema)
        part = self._parts.get(node.pointer) if node else None
        # Without a validator of its own a subschema is taken to hold; its parent then says so much.
        return part is None or part.is_valid(value)

    def _leaf(self, keyword: str, given: Any, value: Any) -> bool:
        text = json.dumps(given)
        return _leaf_validator(self._dialect, keyword, text).is_valid(value)

    def _applied(self, schema: Any, value: Any, path: Path) -> Iterator[tuple[Any, Any, Path]]:
        """Report what breaks here; yield what is applied here or below and may hold the cause."""
        if isinstance(schema, bool):
            self._add(path, "is not allowed")
            return
        node = self._graph.node_of(schema)
        schema = node.schema if node else schema
        for keyword in _REFERENCES:
            if keyword in schema:
                yield self._graph.target_of(schema, keyword), value, path
        if "$ref" in schema and self._dialect in _OLD_DRAFTS:
            # Up to draft 07 the keywords beside $ref do not count.
            return
        for keyword in _LEAVES:
            if keyword in schema and not self._leaf(keyword, schema[keyword], value):
                self._add(path, _reason(keyword, schema[keyword], value))
        yield from self._combined(schema, value, path)
        if isinstance(value, dict):
            yield from self._members(schema, value, path)
        elif isinstance(value, list):
            yield from self._items(schema, value, path)

    def _combined(
        self, schema: Mapping[str, Any], value: Any, path: Path
    ) -> Iterator[tuple[Any, Any, Path]]:
        for part in schema.get("allOf", ()):
            yield part, value, path
        choices = schema.get("anyOf")
        if choices and not any(self._holds(choice, value) for choice in choices):
            self._add(path, "Must validate at least one schema (anyOf)")
        choices = schema.get("oneOf")
        if choices:
            count = sum(self._holds(choice, value) for choice in choices)
            if count != 1:
                self._add(path, "Must validate one and only one schema (oneOf)")
        if "not" in schema and self._holds(schema["not"], value):
            self._add(path, "Must not validate the schema (not)")
        if "if" in schema:
            branch = "then" if self._holds(schema["if"], value) else "else"
            if branch in schema:
                yield schema[branch], value, path

    def _members(
        self, schema: Mapping[str, Any], value: dict[str, Any], path: Path
    ) -> Iterator[tuple[Any, Any, Path]]:
        for name in schema.get("required", ()):
            if name not in value:
                self._add((*path, name), f"{_echo(name)} is required")
                if len(self._found) > MAX_VIOLATIONS:
                    return
        for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
            for name, needed in schema.get(keyword, {}).items():
                if name not in value:
                    continue
                if not isinstance(needed, list):
                    yield needed, value, path
                    continue
                for other in needed:
                    if other not in value:
                        self._add((*path, other), f"{_echo(other)} is required with {_echo(name)}")
        properties = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        for name, member in value.items():
            if self._is_late():
                return
            below = (*path, name)
            known = name in properties
            if known:
                yield properties[name], member, below
            for pattern, part in patterns.items():
                if self._is_late():
                    return
                if self._leaf("pattern", pattern, name):
                    known = True
                    yield part, member, below
            if not known and "additionalProperties" in schema:
                if schema["additionalProperties"] is False:
                    self._add(below, f"Additional property {_echo(name)} is not allowed")
                else:
                    yield schema["additionalProperties"], member, below
            if "propertyNames" in schema and not self._holds(schema["propertyNames"], name):
                self._add(below, f"{_echo(name)} is not an allowed property name")

    def _items(
        self, schema: Mapping[str, Any], value: list[Any], path: Path
    ) -> Iterator[tuple[Any, Any, Path]]:
        first, rest = schema.get("prefixItems", []), schema.get("items")
        if isinstance(rest, list):
            first, rest = rest, schema.get("additionalItems")
        for index, item in enumerate(value):
            part = first[index] if index < len(first) else rest
            if part is not None:
                yield part, item, (*path, index)
        if "contains" in schema:
            count = sum(self._holds(schema["contains"], item) for item in value)
            least, most = schema.get("minContains", 1), schema.get("maxContains", len(value))
            if not least <= count <= most:
                self._add(
                    path,
                    f"has {count} items that match the schema of contains, expected "
                    + (f"at least {least}" if count < least else f"at most {most}"),
                )


@lru_cache(maxsize=1024)
def _leaf_validator(dialect: str, keyword: str, text: str) -> jsonschema_rs.Validator:
    return _DIALECTS[dialect](
        {"$schema": dialect, keyword: json.loads(text)},
        offline=True,
        validate_formats=True,
        pattern_options=_pattern_options(),
    )


def _reason(keyword: str, given: Any, value: Any) -> str:
    shown = _echo(given if isinstance(given, str) else json.dumps(given, ensure_ascii=False))
    if keyword == "type":
        wanted = "/".join(given) if isinstance(given, list) else given
        return f"Invalid type. Expected: {wanted}, given: {_type_of(value)}"
    if keyword == "enum":
        return f"must be one of the following: {shown}"
    sentences = {
        "const": "does not match: {}",
        "minimum": "Must be greater than or equal to {}",
        "maximum": "Must be less than or equal to {}",
        "exclusiveMinimum": "Must be greater than {}",
        "exclusiveMaximum": "Must be less than {}",
        "multipleOf": "Must be a multiple of {}",
        "minLength": "String length must be greater than or equal to {}",
        "maxLength": "String length must be less than or equal to {}",
        "pattern": "Does not match pattern '{}'",
        "format": "Does not match format '{}'",
        "contentEncoding": "is not encoded as {}",
        "contentMediaType": "is not valid {}",
        "minItems": "Array must have at least {} items",
        "maxItems": "Array must have at most {} items",
        "uniqueItems": "array items must be unique",
        "minProperties": "Must have at least {} properties",
        "maxProperties": "Must have at most {} properties",
    }
    return sentences[keyword].format(shown)


def _type_of(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def _dotted(path: Path) -> str:
    return _echo(".".join(map(str, path)), limit=200) or "(root)"


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _echo(value: object, *, limit: int = _ECHO) -> str:
    """Return a value for a message: short, and on one line, as each line is one violation."""
    text = str(value)
    short = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text[: limit + 1])
    return short if len(short) <= limit else short[: limit - 1] + "…"
