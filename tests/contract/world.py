"""The world of the contract tests: everybody who may ask, and words that only some may read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import md5
from typing import Any

from django.contrib.admindocs.views import simplify_regex
from django.db import connection, transaction
from django.test import override_settings
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from accounts import services as accounts
from accounts.models import Role
from accounts.policy import BOOTSTRAP_ADMIN
from common import projects_api
from embeddings import indexes
from embeddings.models import EmbeddingJob, JobState, Reembedding, ReembeddingState
from llm_services import services as llm_services
from llm_services.models import Instance
from projects.models import Project
from tests.factories import (
    Answer,
    Caller,
    Cast,
    item,
    make_cast,
    make_embedded,
    make_instance,
    make_project,
    make_user,
    stored,
)

ADMIN_KEY = "configured-admin-key-of-the-contract-tests-0123456789"
TEXT_ID = "canary/text id?1"
WORDS = "the words of the contract tests"
# Jobs of Alice's project: one that waits, and one that ended with a failure.
WAITING_JOB = "0198b5a4-2f6e-7cc1-9d53-000000000001"
ENDED_JOB = "0198b5a4-2f6e-7cc1-9d53-000000000002"
TEXT_ID_IN_URL = "canary%2Ftext%20id%3F1"

# Who may read these words is part of the matrix. The keys name what holds them.
# Texts with the ids that the addresses of operations end in.
OPERATIONS = ("count", "facets", "delete", "update")
CANARIES = {
    "email": "canary-email@example.org",
    "endpoint": "canary-endpoint.example.org",
    "provider key": "sk-canary-provider-key",
    "definition": "canary-definition.example.org",
    "description": "canary-description",
    "schema": "canary-schema",
    "sharee": "canary-sharee",
    "text id": "canary/text id?1",
    "text": "canary-text",
    "metadata": "canary-metadata",
}

BAD_KEYS = {"malformed", "wrong key", "deleted account", "revoked", "expired"}
ADMINS = {"admin", "admin key"}
# Those with the rights of the owner's account, and those who may read what it says about itself.
ACCOUNT = {"owner", *ADMINS}
ACCOUNT_READERS = {*ACCOUNT, "owner as reader", "owner as editor", "letters only", "other only"}
OWNERS = {*ACCOUNT, "letters only"}
EDITORS = {*OWNERS, "editor", "owner as editor"}
READERS = {*EDITORS, "reader", "owner as reader"}
SHAREES = {"reader", "editor"}
STRANGERS = {"stranger", "other owner", "admin as reader"}
WITH_KEY = READERS | STRANGERS | {"other only"}
ANYBODY = {*WITH_KEY, "anonymous"}
ACTORS = sorted(ANYBODY | BAD_KEYS)


@dataclass
class Who:
    """Somebody who asks, with the headers that they send."""

    caller: Caller
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """Ask as this person."""
        return self.caller.ask(method, path, body, headers=self.headers)


@dataclass
class World:
    """The cast, and every other kind of actor by its name in the matrix."""

    cast: Cast
    actors: dict[str, Who]

    def __getitem__(self, actor: str) -> Who:
        return self.actors[actor]


def make_world() -> World:
    """Make Alice's things, full of canaries, and Bob's of the same names; and everybody.

    Alice's project has an index. The configured admin key must be ADMIN_KEY.
    """
    cast = make_cast()
    alice = stored("alice")
    alice.email = CANARIES["email"]
    alice.save()
    bob = make_user("bob")
    make_user(CANARIES["sharee"])
    _fill_alice()
    _fill_bob()
    upload(cast.alice, "alice", TEXT_ID, "recall", "batch", *OPERATIONS)
    upload(bob, "bob", TEXT_ID)
    with override_settings(INDEX_THRESHOLD=1):
        indexes.tend(cast.project.pk)

    make_embedded(Instance.objects.get(owner__handle="alice", handle="model"), WORDS)
    _make_jobs(cast.project)
    spare = Instance.objects.get(owner__handle="alice", handle="spare")
    make_embedded(spare, WORDS)
    Reembedding.objects.create(
        project=cast.project,
        instance=spare,
        model_id=spare.embedding_model_id,
        state=ReembeddingState.READY,
    )
    other = make_project("alice", "other")
    keys = {
        "owner as reader": accounts.create_key(user=alice, role_cap=Role.READER),
        "owner as editor": accounts.create_key(user=alice, role_cap=Role.EDITOR),
        "letters only": accounts.create_key(user=alice, project_id=cast.project.pk),
        "other only": accounts.create_key(user=alice, project_id=other.pk),
        "admin as reader": accounts.create_key(user=stored("ada"), role_cap=Role.READER),
        "expired": accounts.create_key(user=alice, expires_at=timezone.now() - timedelta(days=1)),
        "revoked": accounts.create_key(user=alice, name="revoked"),
        "deleted account": make_user("gone").key,
        "wrong key": f"arm_{'x' * 62}",
        "admin key": ADMIN_KEY,
    }
    accounts.revoke_keys(alice.api_keys.filter(name="revoked"))
    accounts.delete_user(actor=BOOTSTRAP_ADMIN, handle="gone")
    actors = {
        "anonymous": Who(cast.nobody),
        "malformed": Who(cast.nobody, {"Authorization": str(cast.alice.key)}),
        "stranger": Who(cast.sam),
        "reader": Who(cast.rita),
        "editor": Who(cast.erin),
        "owner": Who(cast.alice),
        "other owner": Who(bob),
        "admin": Who(cast.ada),
        **{name: Who(Caller(key)) for name, key in keys.items()},
    }
    assert sorted(actors) == ACTORS
    return World(cast, actors)


def _make_jobs(project: Project) -> None:
    EmbeddingJob.objects.create(pk=WAITING_JOB, project=project, total=1)
    ended = EmbeddingJob.objects.create(
        pk=ENDED_JOB, project=project, total=1, failed=1, state=JobState.FINISHED
    )
    ended.items.create(number=0, text_id=CANARIES["text id"], text="", error="It is too long.")


def _fill_alice() -> None:
    share: dict[str, Any] = {"actor": BOOTSTRAP_ADMIN, "owner": "alice"}
    sharees = {"rita": Role.READER, "erin": Role.EDITOR, CANARIES["sharee"]: Role.READER}
    llm_services.create_standard(
        actor=BOOTSTRAP_ADMIN, handle="spare", values={"key_method": "none"}
    )
    endpoint = f"https://{CANARIES['endpoint']}/v1"
    llm_services.update_instance(
        **share,
        handle="model",
        changes={"endpoint": endpoint, "api_key": CANARIES["provider key"]},
    )
    private = f"http://127.0.0.1:9/{CANARIES['endpoint']}"
    make_instance("alice", "spare", endpoint=private, api_key=CANARIES["provider key"])
    llm_services.create_definition(
        **share,
        handle="template",
        values={
            "endpoint": f"https://{CANARIES['definition']}/v1",
            "api_standard": "openai",
            "model": "test-embedding",
            "dimensions": 3,
        },
    )
    for user, role in sharees.items():
        llm_services.share_instance(**share, handle="model", user=user, role=role)
        llm_services.share_instance(**share, handle="spare", user=user, role=role)
        llm_services.share_definition(**share, handle="template", user=user)
    settings = {
        "description": CANARIES["description"],
        "metadataScheme": f'{{"type": "object", "title": "{CANARIES["schema"]}"}}',
    }
    Caller(ADMIN_KEY).patch("/v1/projects/alice/letters", settings)
    granted = {"share_with_handle": CANARIES["sharee"], "role": "reader"}
    Caller(ADMIN_KEY).post("/v1/projects/alice/letters/share", granted)


def _fill_bob() -> None:
    """Give Bob things of the same handles, so that a mistaken look-up finds something."""
    make_instance("bob", "model")
    make_instance("bob", "spare")
    make_project("bob", "letters")
    llm_services.create_definition(
        actor=BOOTSTRAP_ADMIN,
        owner="bob",
        handle="template",
        values={
            "endpoint": "https://bob.example.org/v1",
            "api_standard": "openai",
            "model": "test-embedding",
            "dimensions": 3,
        },
    )


def upload(caller: Caller, owner: str, *text_ids: str) -> None:
    """Store embeddings in somebody's project `letters`; Alice's hold canaries."""
    words = {"text": "", "metadata": {}}
    if owner == "alice":
        words = {"text": CANARIES["text"], "metadata": {"note": CANARIES["metadata"]}}
    rows = [item(each, [1, 0, 0.5], **words) for each in [*text_ids, f"{text_ids[0]}-2"]]
    answer = caller.post(f"/v1/embeddings/{owner}/letters", {"embeddings": rows})
    assert answer.status == 201, answer.body


def found_canaries(answer: Answer) -> set[str]:
    """Return which canaries an answer holds, in body or headers."""
    seen = answer.content.decode() + repr(dict(answer.headers))
    return {name for name, word in CANARIES.items() if word in seen}


# --- The state of the database --------------------------------------------------------------------
_BOOKKEEPING = {
    "django_migrations",
    "django_session",
    "accounts_session",
    "accounts_failedattempts",
}


def fingerprint() -> dict[str, str]:
    """Return a hash of the rows of each table; when a key was last used does not count."""
    tables = [
        name
        for name in connection.introspection.table_names()
        if name not in _BOOKKEEPING and not name.startswith("procrastinate")
    ]
    rows = " UNION ALL ".join(
        f"SELECT '{table}', (to_jsonb(t) - 'last_used_at')::text FROM \"{table}\" t"
        for table in tables
    )
    hashes = {table: md5(usedforsecurity=False) for table in tables}
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM ({rows}) AS all_rows ORDER BY 1, 2")
        for table, row in cursor.fetchall():
            hashes[table].update(row.encode())
    return {table: each.hexdigest() for table, each in hashes.items()}


@contextmanager
def undone() -> Iterator[None]:
    """Undo, at the end, whatever happens in the database meanwhile."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


# --- The URL configuration ------------------------------------------------------------------------
ALIASES = {
    "/v1/llm-definitions": "/v1/llm-service-definitions",
    "/v1/llm-instances": "/v1/llm-services",
}
_METHODS = ("get", "post", "put", "patch", "delete", "trace")


def api_views() -> dict[str, type[Any]]:
    """Return the view class of every address under /v1, by its template such as /v1/users/{user}.

    Generated from the URL configuration.
    """
    return {
        template: view
        for template, view in all_views().items()
        if template == "/v1" or template.startswith("/v1/")
    }


def own_views() -> dict[str, type[Any]]:
    """Return the view class of every address of the Projects API, by its template."""
    return {
        template: view
        for template, view in all_views().items()
        if projects_api.serves(template) and not template.startswith("/docs")
    }


def all_views() -> dict[str, type[Any]]:
    """Return the REST framework views of all addresses."""
    found = {}
    for template, callback in _walk(get_resolver(), ""):
        view = getattr(callback, "cls", None)
        if view is not None:
            found[template] = view
    return found


def _walk(resolver: URLResolver, prefix: str) -> Iterator[tuple[str, Any]]:
    for pattern in resolver.url_patterns:
        address = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern, address)
        elif isinstance(pattern, URLPattern):
            yield _template(address), pattern.callback


def _template(address: str) -> str:
    # simplify_regex writes <name> for groups of both kinds of patterns.
    plain = simplify_regex(address.replace("<str:", "<").replace("<uuid:", "<").replace("^", ""))
    return plain.replace("<", "{").replace(">", "}")


def methods_of(view: type[Any]) -> set[str]:
    """Return the methods that a view implements, in capitals, but HEAD and OPTIONS."""
    return {method.upper() for method in _METHODS if hasattr(view, method)}


def operations() -> set[tuple[str, str]]:
    """Return every (method, template) under /v1."""
    return {
        (method, template) for template, view in api_views().items() for method in methods_of(view)
    }


# The addresses of operations that are those of texts, too: a text may have any id.
_SIMILARS, _EMBEDDINGS = "/v1/similars/{owner}/{project}", "/v1/embeddings/{owner}/{project}"
_OF_A_TEXT = {
    **{("GET", f"{_SIMILARS}/{name}"): f"{_SIMILARS}/{{text_id}}" for name in ("recall", "batch")},
    **{
        (method, f"{_EMBEDDINGS}/{name}"): f"{_EMBEDDINGS}/{{text_id}}"
        for name in OPERATIONS
        for method in ("GET", "PUT", "DELETE")
        if (method, name) not in {("GET", "count"), ("GET", "facets")}
    },
}


def described_at(method: str, template: str) -> str:
    """Return the address by which the document describes a method of a route."""
    return _OF_A_TEXT.get((method.upper(), template)) or without_alias(template)


def without_alias(template: str) -> str:
    """Return the first name of a route."""
    for alias, first in ALIASES.items():
        if template == alias or template.startswith(f"{alias}/"):
            return first + template.removeprefix(alias)
    return template
