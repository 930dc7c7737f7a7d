"""The demo: a public project of Wikipedia summaries that shows what searching by meaning is.

The data lies beside this file; CREDITS.md says who wrote the texts, and under which licence.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import transaction

from accounts.models import User
from accounts.policy import BOOTSTRAP_ADMIN
from accounts.services import create_user, revoke_keys
from common.errors import Conflict
from common.handles import SYSTEM
from embeddings import files
from embeddings.files import Rejected
from embeddings.imports import Outcome, import_rows, project_to_fill
from llm_services.models import BUILTIN_HANDLE

OWNER = "demo"
HANDLE = "wikipedia-vital"
DATA = Path(__file__).parent / "wikipedia_vital.parquet"

_TEXT = {"type": "string", "minLength": 1}
_SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "A Wikipedia article",
    "type": "object",
    "properties": {
        "title": _TEXT,
        "language": {"type": "string", "enum": ["en", "fr", "es"]},
        "category": {**_TEXT, "description": "The topic, in the article's language."},
        "description": {"type": ["string", "null"]},
        "url": {
            "type": "string",
            "pattern": "^https:",
            "description": "The article and its authors.",
        },
        "license": _TEXT,
    },
    "required": ["title", "language", "category", "url", "license"],
    "additionalProperties": False,
}
_PROJECT: dict[str, Any] = {
    "description": (
        "Summaries of 8,000 Wikipedia articles in English, French and Spanish. Texts: CC BY-SA 4.0 "
        "(https://creativecommons.org/licenses/by-sa/4.0/) by the Wikipedia authors; each url "
        "names the article."
    ),
    "instance_owner": SYSTEM,
    "instance_handle": BUILTIN_HANDLE,
    "metadataScheme": _SCHEMA,
    "public_read": True,
}


def load_demo(
    *, on_progress: Callable[[Outcome], object], on_rejected: Callable[[Rejected], object]
) -> Outcome:
    """Make what is missing of the demo: the account, the project, rows of it.

    The account has neither password nor key: the demo is for reading. Raises Conflict where
    somebody made a project of that name on another LLM service.
    """
    _ensure_account()
    project, _ = project_to_fill(BOOTSTRAP_ADMIN, owner=OWNER, handle=HANDLE, create=_PROJECT)
    return import_rows(
        project,
        lambda expected: files.read(DATA, "parquet", expected, batch_size=1_000),
        on_progress=on_progress,
        on_rejected=on_rejected,
    )


@transaction.atomic
def _ensure_account() -> None:
    if User.objects.filter(handle=OWNER).exists():
        return
    try:
        account = create_user(actor=BOOTSTRAP_ADMIN, handle=OWNER, name="Armarium demo")
    except Conflict:
        # Another process makes it at this moment.
        return
    revoke_keys(account.user.api_keys)
