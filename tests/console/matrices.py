"""Who gets which page of accounts, models and resources; what all rows have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.test import Client

from tests.console.browser import PROJECT, page

ROLES = {"owner", "editor", "reader", "stranger", "admin"}
CAPPED = {"owner as reader", "letters only", "other only"}
_OUTSIDE = {"anonymous", "revoked", "expired"}

AGENT = "0198b5a4-2f6e-7cc1-9d53-000000000011"
FILE = "0198b5a4-2f6e-7cc1-9d53-000000000012"


@dataclass(frozen=True)
class Row:
    """One page or form.

    who: those who get `status`.
    sees: those of the others to whom it is forbidden; to the rest it is not there.
    """

    method: str
    address: str
    who: set[str]
    sees: set[str]
    sent: Mapping[str, str] | None = None
    status: int = 200

    def expected(self, actor: str) -> int:
        """Return the status that an actor gets."""
        if actor in self.who:
            return self.status
        if actor in _OUTSIDE:
            return 302
        return 403 if actor in self.sees else 404


def check(row: Row, browsers: Mapping[str, Client]) -> None:
    """Ask as everybody; of those who may change something only the owner, and last."""
    for actor in sorted(browsers, key=lambda each: each in row.who):
        if actor in row.who and row.method == "POST" and actor != "owner":
            continue
        response: Any = browsers[actor].generic(
            row.method,
            row.address,
            urlencode(row.sent or {}),
            content_type="application/x-www-form-urlencoded",
        )
        status = row.expected(actor)
        assert response.status_code == status, (actor, response.status_code)
        if status == 302 and actor not in row.who:
            assert response.headers["Location"].startswith("/sign-in?next=%2F"), actor
        elif status != 302 and not response.streaming:
            page(response, status)


# --- Accounts -------------------------------------------------------------------------------------
def _account(method: str, address: str, **more: Any) -> Row:
    return Row(method, address, ROLES, CAPPED, **more)


ACCOUNT = {
    "account": Row("GET", "/account/", ROLES | CAPPED, set()),
    "change account": _account("POST", "/account/", sent={"name": "A"}, status=302),
    "account-password": _account("POST", "/account/password", sent={"new": "x"}, status=400),
    "account-keys": _account("GET", "/account/keys"),
    "make key": _account("POST", "/account/keys", sent={"name": "notebook"}),
    "revoke-key": _account("POST", "/account/keys/revoke", sent={"key": "none"}, status=404),
    "account-sessions": _account("GET", "/account/sessions"),
    "end-session": _account(
        "POST", "/account/sessions/end", sent={"session": "others"}, status=302
    ),
}

# --- Models ---------------------------------------------------------------------------------------
_MODEL, _TEMPLATE = "/models/alice/model", "/models/t/alice/template"
_SERVICE = {
    "description": "",
    "endpoint": "https://api.example.org/v1/embeddings",
    "api_standard": "openai",
    "model": "test-embedding",
    "dimensions": "3",
}
# Both are shared with Rita.
_READERS = {"owner", "admin", "reader", *CAPPED}


def _read(address: str, method: str = "GET", **more: Any) -> Row:
    return Row(method, address, _READERS, set(), **more)


def _owned(address: str, sent: Mapping[str, str] | None, **more: Any) -> Row:
    method = "GET" if sent is None else "POST"
    return Row(method, address, {"owner", "admin"}, _READERS, sent=sent, **more)


MODELS = {
    "models": Row("GET", "/models/", ROLES | CAPPED, set()),
    "new-model": _account("GET", "/models/new"),
    "create model": _account(
        "POST", "/models/new", sent={**_SERVICE, "handle": "third"}, status=302
    ),
    "new-template": _account("GET", "/models/new-template"),
    "model": _read(_MODEL),
    "edit-model": _owned(f"{_MODEL}/edit", None),
    "change model": _owned(f"{_MODEL}/edit", _SERVICE, status=302),
    "share-model": _owned(f"{_MODEL}/share", {"user": "sam"}, status=302),
    "unshare-model": _owned(f"{_MODEL}/unshare", {"user": "rita"}, status=302),
    "delete-model": _owned(f"{_MODEL}/delete", {"typed": "model"}, status=400),
    # The name of a host that does not exist: nobody is asked.
    "test-model": _read(f"{_MODEL}/test", "POST", sent={"text": "x" * 3000}, status=400),
    "template": _read(_TEMPLATE),
    "edit-template": _owned(f"{_TEMPLATE}/edit", None),
    "change template": _owned(f"{_TEMPLATE}/edit", _SERVICE, status=302),
    "share-template": _owned(f"{_TEMPLATE}/share", {"user": "sam"}, status=302),
    "unshare-template": _owned(f"{_TEMPLATE}/unshare", {"user": "rita"}, status=302),
    "delete-template": _owned(f"{_TEMPLATE}/delete", {"typed": "template"}, status=302),
}

# --- The model of a project -----------------------------------------------------------------------
_EDITORS = {"owner", "admin", "editor", "letters only"}
_OWNERS = _EDITORS - {"editor"}
_IN_PROJECT = {*_EDITORS, "reader", "owner as reader"}
_SETTINGS = f"{PROJECT}/settings/model"

PROJECT_MODEL = {
    "project-model": Row("GET", _SETTINGS, _EDITORS, _IN_PROJECT),
    "change model": Row(
        "POST", _SETTINGS, _OWNERS, _IN_PROJECT, sent={"instance": "alice/second"}, status=302
    ),
    # One of the texts has no words.
    "reembed": Row(
        "POST",
        f"{_SETTINGS}/reembed",
        _OWNERS,
        _IN_PROJECT,
        sent={"instance": "alice/second"},
        status=400,
    ),
    "reembedding-step": Row(
        "POST", f"{_SETTINGS}/step", _OWNERS, _IN_PROJECT, sent={"step": "no"}, status=400
    ),
}

# --- Resources ------------------------------------------------------------------------------------
_LOOK = {"owner", "admin", "letters only", "owner as reader"}
_CHANGE = _LOOK - {"owner as reader"}
_RESOURCES = f"{PROJECT}/resources"


def _look(address: str) -> Row:
    return Row("GET", f"{_RESOURCES}{address}", _LOOK, _IN_PROJECT)


def _change(address: str, sent: Mapping[str, str] | None, **more: Any) -> Row:
    method = "GET" if sent is None else "POST"
    return Row(method, f"{_RESOURCES}{address}", _CHANGE, _IN_PROJECT, sent=sent, **more)


RESOURCES = {
    "resources": _look(""),
    "new-resource": _change("/agents/new", None),
    "create agent": _change("/agents/new", {"name": "Bea"}, status=302),
    "resource": _look(f"/agents/{AGENT}"),
    "change agent": _change(f"/agents/{AGENT}", {"name": "Bea", "project": "letters"}, status=302),
    "delete-resource": _change(f"/agents/{AGENT}/delete", {}, status=302),
    "download": _look(f"/files/{FILE}/download"),
}

ALL = {**ACCOUNT, **MODELS, **PROJECT_MODEL, **RESOURCES}
