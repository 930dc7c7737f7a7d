"""Somebody at the administration site: reads its pages, fills in its forms and sends them."""

import re
from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.messages import get_messages
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.factories import stored

# What a browser sends for the empty lines below a form that makes something.
NO_SHARES = {
    "shares-TOTAL_FORMS": "1",
    "shares-INITIAL_FORMS": "0",
    "shares-0-role": "reader",
}
SCRIPT = "<script>alert(1)</script>"
# The site may run no script and apply no style that stands in the page itself.
_INLINE = re.compile(
    r"<script(?![^>]*\bsrc=)(?![^>]*application/json)|<style|\sstyle=|\son[a-z]+=\"", re.IGNORECASE
)


def sign_in(handle: str = "ada") -> Client:
    """Return a browser in which the account is signed in."""
    client = Client(raise_request_exception=True)
    client.force_login(stored(handle))
    return client


def address(row: type[Model] | Model, page: str = "changelist") -> str:
    """Return the address of a model's list or add page, or of a row's change or delete page."""
    name = f"admin:{row._meta.app_label}_{row._meta.model_name}_{page}"
    return reverse(name, args=[row.pk] if isinstance(row, Model) else [])


def page(response: Any, status: int = 200) -> str:
    """Return a page's text after checking what holds for all of them."""
    text = str(response.content.decode())
    assert response.status_code == status, text[:2000]
    assert _INLINE.search(text) is None, _INLINE.search(text)
    assert SCRIPT not in text
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    return text


def entries(response: Any) -> dict[str, Any]:
    """Return what a browser would send if the form of a page were submitted as it is."""
    context = response.context
    sent: dict[str, Any] = {}
    forms = [context["adminform"].form]
    for inline in context["inline_admin_formsets"]:
        forms += [inline.formset.management_form, *inline.formset.forms]
    for form in forms:
        for bound in form:
            value = bound.value()
            for name, part in _parts(bound, value):
                if part is True:
                    sent[name] = "on"
                elif part is not None and part is not False:
                    sent[name] = part
    return sent


def _parts(bound: Any, value: Any) -> list[tuple[str, Any]]:
    widget = bound.field.widget
    if not hasattr(widget, "decompress"):
        return [(bound.html_name, value)]
    parts = zip(widget.widgets_names, widget.decompress(value), strict=True)
    return [(bound.html_name + suffix, part) for suffix, part in parts]


def submit(client: Client, url: str, **changes: Any) -> Any:
    """Open a form, enter some values, send it, and return the answer."""
    sent = entries(client.get(url))
    sent.update(changes)
    return client.post(url, {name: value for name, value in sent.items() if value is not None})


def accepted(response: Any) -> list[str]:
    """Return what the next page will say; fail where the form came back."""
    if response.status_code != 302:
        context = response.context or {}
        raise AssertionError(context["errors"] if "errors" in context else response.content[:500])
    messages = [str(message) for message in get_messages(response.wsgi_request)]
    # They were read.
    response.client.cookies.pop("messages", None)
    return messages


def errors(response: Any) -> dict[str, list[str]]:
    """Return what a form says is wrong, by field."""
    page(response)
    form = response.context["adminform"].form
    return {name: [str(each) for each in messages] for name, messages in form.errors.items()}


def act(client: Client, model: type[Model], action: str, rows: Sequence[Model], **more: Any) -> Any:
    """Choose rows of a list and an action."""
    sent = {"action": action, "_selected_action": [row.pk for row in rows], **more}
    return client.post(address(model), sent)


def queries(client: Client, url: str) -> int:
    """Return how many queries a page takes once the server is warm."""
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        page(client.get(url))
    return len(captured)


def registered() -> list[type[Model]]:
    """Return every model that the site shows."""
    return sorted(admin.site._registry, key=lambda model: model._meta.label)
