"""The whole administration site: every page of every model, for superusers and for staff."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Permission
from django.db.models import Model
from django.test import Client
from procrastinate.contrib.django.models import ProcrastinateJob
from pytest_django import Settings

from accounts import services as accounts
from accounts.models import ApiKey, FailedAttempts, Session, User
from accounts.policy import BOOTSTRAP_ADMIN
from common import jobs
from common.admin import CompletingFilter
from config.settings import BASE_DIR
from embeddings.models import (
    Embedding,
    EmbeddingJob,
    EmbeddingJobItem,
    ImportProblem,
    Reembedding,
    ReembeddingState,
    RetiredSegment,
    SearchIndex,
)
from llm_services.models import EncryptionCheck
from projects.models import Project
from tests.admin_site import SCRIPT, accepted, act, address, page, queries, registered, sign_in
from tests.admin_world import SECRET, VECTOR, populate
from tests.factories import Cast, make_user, stored

OUR_APPS = {each.label for each in apps.get_app_configs() if Path(each.path).parent == BASE_DIR}
NOT_SHOWN = {
    Session: "its row's key lets in whoever reads it; accounts end theirs in the console",
    EmbeddingJobItem: "its job shows those that failed",
    RetiredSegment: "an emptied table that is dropped within minutes",
    ImportProblem: "its upload's page in the console shows them",
    EncryptionCheck: "one row of random bytes",
    FailedAttempts: "counts of a quarter of an hour",
    apps.get_model("common", "JobFailure"): "its job shows it",
}
EVERY_MODEL = pytest.mark.parametrize("model", registered(), ids=lambda model: model._meta.label)
LIST_QUERIES = 12
FORM_QUERIES = 20


@pytest.fixture(autouse=True)
def _cheap(settings: Settings, tmp_path: Path) -> None:
    """Files in a folder of the test, and passwords that are quick to hash."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    kept = settings.STORAGES["default"]
    there = {**kept, "OPTIONS": {**kept["OPTIONS"], "location": tmp_path / "files"}}
    settings.STORAGES = {**settings.STORAGES, "default": there}


@pytest.fixture
def world(cast: Cast) -> Cast:
    """The cast, and a row of everything."""
    populate(1)
    return cast


class _Elements(HTMLParser):
    """Fails at elements that only somebody else's text could have made."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        assert names.get("src") != "x", attrs
        assert not any(name.startswith("on") for name in names), (tag, attrs)


def clean(response: Any, status: int = 200) -> str:
    """Return a page's text after checking what no page may hold."""
    text = page(response, status)
    _Elements().feed(text)
    assert SECRET not in text
    for number in VECTOR:
        assert str(number) not in text
    return text


def newest(model: type[Model]) -> Model:
    row = model._default_manager.order_by("-pk").first()
    assert row is not None, model
    return row


def choices(client: Client, model: type[Model]) -> list[str]:
    """Return the query strings of all choices that the filters of a list offer."""
    listed = client.get(address(model)).context["cl"]
    found = []
    for spec in listed.filter_specs:
        if isinstance(spec, CompletingFilter):
            field: Any = spec.form.fields[spec.field_path]
            found.append(f"?{spec.field_path}={field.queryset.first().pk}")
        found += [choice["query_string"] for choice in spec.choices(listed)]
    return found


def test_every_model_of_ours_is_there() -> None:
    assert {"accounts", "common", "embeddings", "projects"} <= OUR_APPS
    ours = {model for model in apps.get_models() if model._meta.app_label in OUR_APPS}
    assert ours - set(NOT_SHOWN) - set(registered()) == set()
    assert not set(NOT_SHOWN) & set(registered())


@EVERY_MODEL
def test_lists_searches_filters_and_forms_show_whatever_people_have_entered(
    world: Cast, model: type[Model]
) -> None:
    ada, row = sign_in(), newest(model)
    text = clean(ada.get(address(model)))
    assert str(row.pk) in text
    site = admin.site.get_model_admin(model)
    if site.search_fields:
        for words in ("papers", SCRIPT, "100%", "_"):
            clean(ada.get(address(model), {"q": words}))
    for choice in choices(ada, model):
        clean(ada.get(f"{address(model)}{choice}"))
    if site.date_hierarchy:
        moment = getattr(row, site.date_hierarchy)
        if moment is not None:
            asked = {f"{site.date_hierarchy}__{part}": getattr(moment, part) for part in _PARTS}
            clean(ada.get(address(model), asked))
    for number in range(len(site.list_display)):
        clean(ada.get(address(model), {"o": f"-{number + 1}"}))
    made_here = ada.get(address(model, "add"))
    clean(made_here, 200 if made_here.status_code == 200 else 403)
    for name in ("change", "history"):
        clean(ada.get(address(row, name)))
    deleted = ada.get(address(row, "delete"))
    clean(deleted, 200 if deleted.status_code == 200 else 403)


_PARTS = ("year", "month", "day")


@EVERY_MODEL
def test_pages_take_as_many_queries_for_one_row_as_for_many(
    world: Cast, model: type[Model]
) -> None:
    ada, row = sign_in(), newest(model)
    pages = [address(model), address(row, "change")]
    few = [queries(ada, url) for url in pages]
    for number in range(2, 6):
        populate(number)
    assert [queries(ada, url) for url in pages] == few
    assert few[0] <= LIST_QUERIES
    assert few[1] <= FORM_QUERIES


# --- Staff ----------------------------------------------------------------------------------------
def make_staff(*permissions: str) -> Client:
    """Make Stella, who may sign in and has some of Django's permissions."""
    make_user("stella")
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle="stella", changes={"is_staff": True})
    found = Permission.objects.filter(codename__in=permissions)
    assert len(found) == len(permissions)
    stored("stella").user_permissions.set(found)
    return sign_in("stella")


def completions(model: type[Model]) -> list[tuple[dict[str, str], type[Model]]]:
    """Return what the fields of a model that complete names ask, and for rows of which model."""
    site = admin.site.get_model_admin(model)
    filters: Any = site.list_filter
    fields = {*site.autocomplete_fields, *(each[0] for each in filters if isinstance(each, tuple))}
    label, name = model._meta.app_label, str(model._meta.model_name)
    asked = []
    for each in sorted(fields):
        field: Any = model._meta.get_field(each)
        question = {"app_label": label, "model_name": name, "field_name": each}
        asked.append((question, field.remote_field.model))
    return asked


@EVERY_MODEL
def test_staff_who_may_see_one_kind_see_nothing_else_and_change_nothing(
    world: Cast, model: type[Model]
) -> None:
    row, label = newest(model), f"view_{model._meta.model_name}"
    stella = make_staff(label)
    index = clean(stella.get("/admin/"))
    for each in registered():
        is_this = each is model
        assert (f'href="{address(each)}"' in index) == is_this
        assert stella.get(address(each)).status_code == (200 if is_this else 403)
        assert stella.get(address(newest(each), "change")).status_code == (200 if is_this else 403)
    clean(stella.get(address(model)))
    answer = stella.get(address(row, "change"))
    text = clean(answer)
    assert 'name="_save"' not in text
    # Lines of other kinds, links to them and counts of them, and what can be done, are not there.
    assert not answer.context["inline_admin_formsets"] or model is ProcrastinateJob
    assert not answer.context.get("buttons")
    for each in registered():
        assert each is model or f'href="{address(each)}?' not in text
    for choice in choices(stella, model):
        clean(stella.get(f"{address(model)}{choice}"))
    # Neither a form nor an action does anything.
    assert stella.post(address(model, "add"), {}).status_code == 403
    assert stella.post(address(row, "change"), {}).status_code == 403
    assert stella.post(address(row, "delete"), {"post": "yes"}).status_code == 403
    ada = sign_in()
    everything = ada.get(address(model)).context["action_form"]
    offered = stella.get(address(model)).context["action_form"]
    assert offered is None
    for name, _ in everything.fields["action"].choices if everything else ():
        answer = act(stella, model, name, [row], post="yes")
        assert answer.status_code in (200, 302)
    assert model._default_manager.filter(pk=row.pk).exists()
    for question, related in completions(model):
        wanted = 200 if related is model else 403
        assert stella.get("/admin/autocomplete/", question).status_code == wanted
        assert ada.get("/admin/autocomplete/", question).status_code == 200


def test_staff_cannot_find_out_names_by_a_filter(world: Cast) -> None:
    stella = make_staff("view_embedding")
    answer = stella.get(address(Embedding), {"project": world.project.pk})
    assert answer.status_code == 302
    assert "letters" not in str(stella.get(answer.headers["Location"]).content)


@pytest.mark.parametrize(
    ("permissions", "action", "works"),
    [
        (["view_project"], "make_private", False),
        (["change_project"], "make_private", True),
        (["change_project"], "reindex", False),
    ],
)
def test_actions_need_their_permissions(
    world: Cast, permissions: list[str], action: str, works: bool
) -> None:
    stella, project = make_staff(*permissions), Project.objects.get(handle="papers")
    form = stella.get(address(Project)).context["action_form"]
    assert (form is not None and action in dict(form.fields["action"].choices)) == works
    act(stella, Project, action, [project])
    project.refresh_from_db()
    assert project.public_read != works


# --- Actions that several apps have a part in -----------------------------------------------------
def test_failed_jobs_are_tried_again_all_or_none(world: Cast) -> None:
    ada, failed = sign_in(), ProcrastinateJob.objects.get(status="failed")
    text = clean(ada.get(address(failed, "change")))
    assert "ValueError: &lt;script&gt;" in text
    assert ">Try again</button>" in text
    jobs.defer("embeddings.tend_index", project_id=0)
    waiting = ProcrastinateJob.objects.get(args={"project_id": 0})
    refused = accepted(act(ada, ProcrastinateJob, "retry", [failed, waiting]))
    assert refused == [f"Job {waiting.pk} has not failed: it is todo."]
    failed.refresh_from_db()
    assert failed.status == "failed"
    answer = act(ada, ProcrastinateJob, "retry", [failed])
    assert accepted(answer) == ["1 job waits to be run again."]
    failed.refresh_from_db()
    assert (failed.status, failed.attempts) == ("todo", 0)


def test_staff_try_jobs_again_with_a_permission(world: Cast) -> None:
    failed = ProcrastinateJob.objects.get(status="failed")
    act(make_staff("change_procrastinatejob"), ProcrastinateJob, "retry", [failed])
    failed.refresh_from_db()
    assert failed.status == "todo"


def test_reembeddings_are_resumed_paused_and_forgotten(world: Cast) -> None:
    ada, row = sign_in(), Reembedding.objects.get()
    assert ">Resume</button>" in page(ada.get(address(row, "change")))
    assert accepted(act(ada, Reembedding, "resume", [row])) == [
        "1 re-embedding goes on in the background."
    ]
    row.refresh_from_db()
    assert row.state == ReembeddingState.FILLING
    assert ">Pause</button>" in page(ada.get(address(row, "change")))
    assert accepted(act(ada, Reembedding, "pause", [row])) == ["1 re-embedding is paused."]
    refused = accepted(act(ada, Reembedding, "pause", [row]))
    assert "only one that is filling can be paused" in refused[0]
    accepted(ada.post(address(row, "delete"), {"post": "yes"}))
    assert not Reembedding.objects.exists()


def test_embedding_jobs_are_tried_again_and_cancelled(world: Cast) -> None:
    ada, row = sign_in(), EmbeddingJob.objects.get()
    assert ">Try again what was not stored</button>" in page(ada.get(address(row, "change")))
    accepted(act(ada, EmbeddingJob, "retry", [row]))
    assert ">Cancel</button>" in page(ada.get(address(row, "change")))
    accepted(act(ada, EmbeddingJob, "cancel", [row]))
    row.refresh_from_db()
    assert row.state == "cancelled"


def test_secrets_are_neither_shown_nor_filtered_by(world: Cast) -> None:
    ada = sign_in()
    for model, lookup in (
        (User, "api_keys__digest"),
        (ApiKey, "digest__startswith"),
        (SearchIndex, "project__instance__sealed_key"),
        (Project, "instance__sealed_key__startswith"),
    ):
        assert ada.get(address(model), {lookup: "x"}).status_code == 400, lookup
