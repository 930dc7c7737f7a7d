"""Turns filters and exclusions into SQL conditions on `embedding.metadata`.

A filter becomes one jsonpath, which is bound like any other value: the text of a statement says no
more than that there is one. The metadata's GIN index (`jsonb_path_ops`) looks up which values are
where, so it serves filters that rest on equality; of others it would have to be read as a whole.

jsonpath has a third truth value, for comparisons of different types. Every comparison is put into
`exists($ ? (…))`, which knows two, so that `!` keeps exactly what the comparison does not. In its
lax mode `.key` looks into the objects of a list too, and a comparison at the elements of a list: at
both places one list deep, and no further.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from embeddings.filters import (
    AllOf,
    AnyOf,
    Comparison,
    Condition,
    Negation,
    Operator,
    Scalar,
)
from embeddings.store._values import Exclusion

_SIGNS = {
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
    Operator.PREFIX: "starts with",
}


@dataclass(frozen=True)
class Conditions:
    """What rows must fulfil.

    text: SQL that follows other conditions; "" for nothing.
    parameters: of the text.
    is_indexed: whether the metadata's index finds what the filter keeps; False without a filter.
    """

    text: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    is_indexed: bool = False


def conditions_of(
    condition: Condition | None,
    exclusion: Exclusion | None = None,
    left_out: Condition | None = None,
    without: Sequence[str] = (),
) -> Conditions:
    """Return what rows must fulfil that a filter keeps and that nothing leaves out.

    left_out: another filter, which must not keep them. without: their ids must be none of these.
    """
    text, parameters = _excluding(exclusion)
    if left_out is not None:
        text += " AND (embedding.metadata @@ %(left_out)s::jsonpath) IS TRUE"
        parameters["left_out"] = jsonpath(left_out, keep=False)
    if without:
        # One JSON text instead of an array: what is counted lately is remembered by parameters.
        text += (
            " AND embedding.text_id <> ALL(ARRAY("
            "SELECT jsonb_array_elements_text(%(without)s::jsonb)))"
        )
        parameters["without"] = orjson.dumps(without).decode()
    if condition is None:
        return Conditions(text, parameters)
    is_indexed = _is_indexed(condition)
    kept = "embedding.metadata @@ %(filter)s::jsonpath"
    if not is_indexed:
        # PostgreSQL would use the index for the bare operator, also to read all of it.
        kept = f"({kept}) IS TRUE"
    return Conditions(
        f"{text} AND {kept}", {**parameters, "filter": jsonpath(condition)}, is_indexed
    )


def jsonpath_of(keys: Iterable[str]) -> str:
    """Return the jsonpath of the values that keys lead to, those of lists one by one."""
    return f"${_accessors(keys)}[*]"


def jsonpath(condition: Condition, keep: bool = True) -> str:
    """Return the jsonpath predicate that is true of the metadata that the filter keeps.

    keep: False for that which it does not keep. Only `exists` is ever negated: of a negated `&&`
    or `||`, PostgreSQL looks up too little in the index, and rows would be missing.
    """
    match condition:
        case Negation(inner):
            return jsonpath(inner, not keep)
        case AllOf(parts):
            return _all((jsonpath(each, keep) for each in parts), keep)
        case AnyOf(parts):
            return _any((jsonpath(each, keep) for each in parts), keep)
        case Comparison():
            return _comparison(condition, keep)


def _comparison(comparison: Comparison, keep: bool) -> str:
    places, operator = comparison.path.places, comparison.operator
    match comparison.operand:
        case operand if operator is Operator.EXISTS:
            return _is_there(places, keep is operand)
        case (least, most) if operator is Operator.BETWEEN:
            return _any((_exists(_between(each, least, most), keep) for each in places), keep)
        case tuple(operands) if operator is Operator.CONTAINS:
            held = (
                _any((_exists(_containing(place, each), keep) for place in places), keep)
                for each in operands
            )
            return _all(held, keep)
        case tuple(operands):
            return _is_one_of(places, operands, keep) if operands else _exists("$", not keep)
        case operand if operator is Operator.EQUAL:
            return _is_one_of(places, [operand], keep)
        case operand:
            literal, sign = _literal(operand), _SIGNS[operator]
            return _exists(_where(places, lambda value: f"{value} {sign} {literal}"), keep)


def _is_indexed(condition: Condition) -> bool:
    """Say whether all that the filter keeps has a value that the index is able to look up."""
    match condition:
        case AllOf(parts):
            return any(map(_is_indexed, parts))
        case AnyOf(parts):
            return all(map(_is_indexed, parts))
        case Comparison(operator=Operator.EQUAL, operand=operand):
            return operand is not None
        case Comparison(operator=Operator.IN, operand=tuple() as operands):
            return bool(operands) and None not in operands
        case Comparison(operator=Operator.CONTAINS, operand=tuple() as operands):
            # A string may be a part of another.
            return any(not isinstance(each, str) for each in operands)
        case _:
            return False


# --- jsonpath -------------------------------------------------------------------------------------
Keys = tuple[str, ...]
# Given how a value is reached, the predicate that it must fulfil.
Predicate = Callable[[str], str]


def _is_one_of(places: Sequence[Keys], operands: Sequence[Scalar], keep: bool) -> str:
    """Return the predicate that one of the operands is a value at one of the places."""
    literals = [_literal(each) for each in operands]
    equal = _exists(
        _where(places, lambda value: " || ".join(f"{value} == {each}" for each in literals)), keep
    )
    # What is not there is as good as null.
    return _any([equal, _is_there(places, not keep)], keep) if None in operands else equal


def _is_there(places: Sequence[Keys], keep: bool) -> str:
    return _any((_exists(f"${_accessors(keys)}", keep) for keys in places), keep)


def _where(places: Sequence[Keys], predicate: Predicate) -> str:
    """Return the path to the metadata in which a value at one of the places fulfils a predicate."""
    alternatives = (predicate(f"@{_accessors(keys)}") for keys in places)
    return f"$ ? {_any(alternatives)}"


def _between(keys: Keys, least: Scalar, most: Scalar) -> str:
    """Return the path to the values, elements of a list one by one, that are between both."""
    kind = "string" if isinstance(least, str) else "number"
    bounds = f"@ >= {_literal(least)} && @ <= {_literal(most)}"
    return f'${_accessors(keys)} ? (@.type() == "{kind}" && {bounds})'


def _containing(keys: Keys, operand: Scalar) -> str:
    """Return the path to where a list has the operand as an element, or a string as a part.

    The last key is looked for in an object at hand, where a list is still in one piece.
    """
    *parents, last = keys
    literal, value = _literal(operand), f"@{_accessors([last])}"
    held = f'({value}.type() == "array" && {value} == {literal})'
    if isinstance(operand, str):
        part = f'{value}.type() == "string" && {value} like_regex {literal} flag "q"'
        held = f"({held} || ({part}))"
    return f'${_accessors(parents)} ? (@.type() == "object" && {held})'


def _exists(path: str, keep: bool) -> str:
    return f"exists({path})" if keep else f"!exists({path})"


def _all(parts: Iterable[str], keep: bool = True) -> str:
    return _joined(" && " if keep else " || ", parts)


def _any(parts: Iterable[str], keep: bool = True) -> str:
    return _joined(" || " if keep else " && ", parts)


def _accessors(keys: Iterable[str]) -> str:
    return "".join(f".{_literal(key)}" for key in keys)


def _literal(value: Scalar) -> str:
    """Return a value as jsonpath spells it: as JSON does."""
    return orjson.dumps(value).decode()


def _joined(operator: str, parts: Iterable[str]) -> str:
    wrapped = [f"({part})" for part in parts]
    return wrapped[0] if len(wrapped) == 1 else f"({operator.join(wrapped)})"


# --- Exclusions -----------------------------------------------------------------------------------
def _excluding(exclusion: Exclusion | None) -> tuple[str, dict[str, Any]]:
    """Return the condition that leaves rows out, and its parameters.

    The path is walked with `->`, which looks into objects only: `#>` would take a number in the
    path for an array index. A key that holds the dots itself counts too.
    """
    if exclusion is None:
        return "", {}
    nested = "embedding.metadata"
    parameters: dict[str, Any] = {"value": exclusion.value}
    *parents, last = exclusion.path
    for depth, key in enumerate(parents):
        nested += f" -> %(path_{depth})s::text"
        parameters[f"path_{depth}"] = key
    parameters |= {"last_key": last, "whole": ".".join(exclusion.path)}
    value = _equals(f"({nested}) -> %(last_key)s::text")
    whole = _equals("embedding.metadata -> %(whole)s::text")
    return f" AND NOT ({value} OR {whole})", parameters


def _equals(value: str) -> str:
    # `#>> '{}'` is the text of a scalar; objects and arrays are no values to compare with.
    space = r"E' \t\n\r\f\v'"
    return (
        f"coalesce(jsonb_typeof({value}) IN ('string', 'number', 'boolean')"
        f" AND btrim(({value}) #>> ARRAY[]::text[], {space})"
        f" = btrim(%(value)s::text, {space}), false)"
    )
