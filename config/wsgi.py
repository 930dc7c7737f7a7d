"""The WSGI application that granian serves."""

import os
import time
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http import HttpResponse
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class Request(WSGIRequest):
    """A request whose text is UTF-8, whatever codec its Content-Type names.

    Django looks the charset up and decodes the query string with it, before any of our code runs:
    `charset=hex` or a malformed parameter would end in a bare 500.
    """

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        try:
            parsed = parse_header_parameters(meta.get("CONTENT_TYPE", ""))
        except (LookupError, ValueError):
            parsed = ("", {})
        self.content_type, self.content_params = parsed


class Handler(WSGIHandler):
    """Django's WSGI application, with our requests."""

    request_class = Request

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # Its modules need the settings, which are loaded by now.
        from config.metrics import count_search
        from config.shortcut import Shortcut

        self.count_search = count_search
        self.shortcut = Shortcut()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Answer a request; a whole answer as the list of its one part.

        The server sends a list at once, and walks through anything else part by part, which takes
        a quarter of a search. What has to be done after the answer was sent needs such a walk.
        """
        began = time.perf_counter()
        answer = self.shortcut.answer(environ)
        if answer is not None:
            self.count_search(time.perf_counter() - began)
            headers, content = answer
            start_response("200 OK", headers)
            return [content]
        response: Any = super().__call__(environ, start_response)
        self.shortcut.learn(environ, response)
        if not isinstance(response, HttpResponse) or response._resource_closers:  # type: ignore[attr-defined]
            return response
        response.close()
        return [response.content]


django.setup(set_prefix=False)
application = Handler()
