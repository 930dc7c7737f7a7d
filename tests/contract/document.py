"""Compares answers with what the OpenAPI document says about them, to the letter."""

from functools import cache
from typing import Any

import jsonschema_rs

from config.documentation import document as served
from tests.contract.world import described_at
from tests.factories import Answer


@cache
def operation(method: str, template: str) -> dict[str, Any]:
    """Return the description of an operation."""
    found: dict[str, Any] = served()["paths"][described_at(method, template)][method.lower()]
    return found


def difference(method: str, template: str, answer: Answer) -> str:
    """Return how an answer differs from its description, "" where it does not."""
    described = operation(method, template)["responses"].get(str(answer.status))
    if described is None:
        return f"status {answer.status} is not documented"
    media = described.get("content", {})
    if not media:
        return f"a body, but none is documented: {answer.content[:80]!r}" if answer.content else ""
    content_type = answer.headers.get("Content-Type", "")
    if content_type not in media:
        return f"content type {content_type!r} is not documented"
    missing = set(described.get("headers", {})) - set(answer.headers)
    if missing:
        return f"the headers {missing} are missing"
    validator = _validator(method, template, answer.status, content_type)
    return "; ".join(
        f"{each.instance_path}: {each.message}" for each in validator.iter_errors(answer.body)
    )


@cache
def _validator(method: str, template: str, status: int, content_type: str) -> Any:
    described = operation(method, template)["responses"][str(status)]
    schema = _strict(described["content"][content_type]["schema"])
    return jsonschema_rs.validator_for(
        {**schema, "components": _components()}, validate_formats=True
    )


@cache
def _components() -> Any:
    return _strict(served()["components"])


def _strict(schema: Any) -> Any:
    """Return an OpenAPI 3.0 schema as a JSON Schema that knows null and allows no other fields."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(each) for name, each in schema.items()}
    if isinstance(strict.get("properties"), dict) and strict.get("type") == "object":
        strict.setdefault("additionalProperties", False)
    if strict.pop("nullable", None) is True:
        return {"anyOf": [strict, {"type": "null"}]}
    return strict
