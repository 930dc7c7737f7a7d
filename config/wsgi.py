"""The WSGI application that granian serves."""

import os
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
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


django.setup(set_prefix=False)
application = Handler()
