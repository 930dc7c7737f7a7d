"""Requests that the usual client would not send."""

from io import BytesIO
from typing import Any

import orjson

from tests.factories import Answer, Caller


def ask_raw(caller: Caller, method: str, path: str, body: bytes = b"", **environ: Any) -> Answer:
    """Send a request with WSGI variables of one's own, such as HTTP_TRANSFER_ENCODING."""
    sent = {
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "wsgi.input": BytesIO(body),
        **environ,
    }
    if caller.key is not None:
        sent.setdefault("HTTP_AUTHORIZATION", f"Bearer {caller.key}")
    response = caller.client.generic(method, path, **sent)
    content = response.content
    parsed = orjson.loads(content) if "json" in response.headers["Content-Type"] else None
    return Answer(response.status_code, parsed, response.headers, content)
