"""What filters mean, in plain Python: read from the JSON itself, by none of the program's code."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Document = dict[str, Any]


def keeps(given: dict[str, Any], document: Document) -> bool:
    """Tell whether a filter keeps a document."""
    return all(_member(name, value, document) for name, value in given.items())


def _member(name: str, value: Any, document: Document) -> bool:
    if name in ("and", "$and"):
        return all(keeps(each, document) for each in value)
    if name in ("or", "$or"):
        return any(keeps(each, document) for each in value)
    if name in ("not", "$not"):
        return not keeps(value, document)
    return _all_hold(value if isinstance(value, dict) else {"eq": value}, name, document)


def _all_hold(operators: dict[str, Any], path: str, document: Document) -> bool:
    return all(_holds(name.lstrip("$"), each, path, document) for name, each in operators.items())


def _holds(operator: str, operand: Any, path: str, document: Document) -> bool:
    if operator == "not":
        return not _all_hold(operand, path, document)
    if operator in ("ne", "nin"):
        return not _holds({"ne": "eq", "nin": "in"}[operator], operand, path, document)
    found = list(_found(path, document))
    if operator == "exists":
        return bool(found) is operand
    if operator == "in":
        return any(_holds("eq", each, path, document) for each in operand)
    if operator == "contains":
        wanted = operand if isinstance(operand, list) else [operand]
        return all(any(_contains(value, each) for value in found) for each in wanted)
    if operator == "eq" and operand is None and not found:
        return True
    return any(_TESTS[operator](value, operand) for value in _with_elements(found))


def _found(path: str, document: Document) -> Iterator[Any]:
    """Return the values at a path."""
    if re.match(r"\\(\$|(and|or|not)\Z)", path):
        path = path[1:]
    keys = _keys(path)
    values: list[Any] = [document]
    for key in keys:
        objects = [each for each in _with_elements(values) if isinstance(each, dict)]
        values = [each[key] for each in objects if key in each]
    yield from values
    if len(keys) > 1 and path == ".".join(keys) and path in document:
        yield document[path]


def _keys(path: str) -> list[str]:
    keys, rest = [""], path
    while rest:
        if rest[:2] in ("\\.", "\\\\"):
            keys[-1] += rest[1]
            rest = rest[2:]
            continue
        if rest[0] == ".":
            keys.append("")
        else:
            keys[-1] += rest[0]
        rest = rest[1:]
    return keys


def _with_elements(values: Iterable[Any]) -> Iterator[Any]:
    """Return the values, and in place of lists their elements."""
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _contains(value: Any, operand: Any) -> bool:
    if isinstance(value, list):
        return any(_same(each, operand) for each in value)
    return isinstance(value, str) and isinstance(operand, str) and operand in value


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return repr(type(value))
    return "number" if isinstance(value, int | float) else repr(type(value))


def _same(value: Any, operand: Any) -> bool:
    return (
        _kind(value) == _kind(operand) and not isinstance(value, list | dict) and value == operand
    )


def _ordered(holds: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda value, operand: _kind(value) == _kind(operand) and holds(value, operand)


def _between(value: Any, bounds: Any) -> bool:
    return _TESTS["gte"](value, bounds[0]) and _TESTS["lte"](value, bounds[1])


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _same,
    "gt": _ordered(lambda value, operand: value > operand),
    "gte": _ordered(lambda value, operand: value >= operand),
    "lt": _ordered(lambda value, operand: value < operand),
    "lte": _ordered(lambda value, operand: value <= operand),
    "prefix": _ordered(lambda value, operand: value.startswith(operand)),
    "between": _between,
}
