"""The administration site: embeddings are found, read and deleted there, and vectors stay away."""

from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import Permission
from django.db import OperationalError, connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts import services as accounts
from accounts.policy import BOOTSTRAP_ADMIN
from common import admin as common_admin
from common.admin import CappedPaginator
from embeddings import store
from embeddings.admin import EmbeddingAdmin
from embeddings.models import Embedding
from projects.models import Project
from tests.admin_site import SCRIPT, accepted, act, address, page, queries, sign_in
from tests.factories import Cast, make_project, make_user, stored

VECTOR = (0.625, 1.875, -2.375)


def fill(project: Project, texts: dict[str, str], metadata: bytes = b"{}") -> None:
    store.insert(
        project.pk,
        project.instance_id,
        text_ids=list(texts),
        vectors=np.array([VECTOR] * len(texts), dtype=np.float32),
        texts=list(texts.values()),
        metadata=[metadata] * len(texts),
    )


def row(text_id: str) -> Embedding:
    return Embedding.objects.defer("vector").get(text_id=text_id)


def listed(client: Client, **asked: Any) -> list[str]:
    answer = client.get(address(Embedding), asked)
    page(answer)
    return [each.text_id for each in answer.context["cl"].result_list]


def test_one_embedding_shows_everything_but_its_vector(cast: Cast) -> None:
    ada = sign_in()
    fill(cast.project, {SCRIPT: f"first\n{SCRIPT}"}, b'{"<script>alert(1)</script>": "&<b>"}')
    for url in (address(row(SCRIPT), "change"), address(row(SCRIPT), "delete"), address(Embedding)):
        text = page(ada.get(url))
        assert "&lt;script&gt;" in text
        for number in VECTOR:
            assert str(number) not in text
    text = page(ada.get(address(row(SCRIPT), "change")))
    assert "&amp;&lt;b&gt;" in text
    assert f"{np.linalg.norm(VECTOR):.6g}" in text
    assert '<div class="readonly">3</div>' in text


def test_lists_load_no_vectors(cast: Cast) -> None:
    ada = sign_in()
    fill(cast.project, {"a": "x" * 1000})
    with CaptureQueriesContext(connection) as captured:
        text = page(ada.get(address(Embedding)))
    asked = [each["sql"] for each in captured if "embeddings_embedding" in each["sql"]]
    assert asked
    assert not any('"vector"' in each for each in asked)
    assert "x" * 60 in text
    assert "x" * 61 not in text


def test_lists_narrow_down_to_a_project(cast: Cast) -> None:
    ada = sign_in()
    other = make_project("alice", "other")
    fill(cast.project, {"a1": "Cicero", "a2": "Seneca", "b1": "cicero"})
    fill(other, {"a3": "Cicero", "A4": ""})
    assert set(listed(ada)) == {"a1", "a2", "b1", "a3", "A4"}
    assert listed(ada, project=cast.project.pk) == ["a1", "a2", "b1"]
    assert set(listed(ada, q="a")) == {"a1", "a2", "a3"}
    assert listed(ada, q="cicero") == []
    assert listed(ada, q="cicero", project=cast.project.pk) == ["a1", "b1"]
    assert listed(ada, q="a%") == []
    text = page(ada.get(f"{address(Embedding)}?project={cast.project.pk}&q=a"))
    assert "alice/letters</option>" in text
    assert '<input type="hidden" name="q" value="a">' in text


@pytest.mark.parametrize("project", ["x", "0", "9" * 30, "\x00", SCRIPT])
def test_nonsense_in_the_filter_leads_back_to_the_list(cast: Cast, project: str) -> None:
    answer = sign_in().get(address(Embedding), {"project": project})
    assert answer.status_code == 302
    page(sign_in().get(answer.headers["Location"]))


def test_a_search_that_takes_too_long_is_given_up(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_out(*arguments: Any) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    monkeypatch.setattr(EmbeddingAdmin, "get_search_results", time_out)
    answer = sign_in().get(address(Embedding), {"q": "x"})
    assert answer.headers["Location"] == address(Embedding)
    assert accepted(answer) == ["This search took too long; narrow it down."]


def test_counting_stops_at_the_cap(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = sign_in()
    fill(cast.project, {f"t{number:03}": "" for number in range(120)})
    assert ada.get(address(Embedding)).context["cl"].result_count == 120
    monkeypatch.setattr(CappedPaginator, "cap", 60)
    with CaptureQueriesContext(connection) as captured:
        answer = ada.get(address(Embedding))
    assert answer.context["cl"].result_count == 60
    counting = [each["sql"] for each in captured if "COUNT(" in each["sql"]]
    assert counting
    assert all("LIMIT 60" in each for each in counting)
    assert len(listed(ada, p="2")) == 10


def test_embeddings_are_deleted_but_neither_made_nor_changed(cast: Cast) -> None:
    ada = sign_in()
    fill(cast.project, {"a b": "one", "a+b": "two", "c": "three", "d": "four"})
    one = row("a b")
    assert ada.post(address(Embedding, "add"), {"text_id": "new"}).status_code == 403
    assert ada.post(address(one, "change"), {"text_id": "new"}).status_code == 403
    accepted(ada.post(address(one, "delete"), {"post": "yes"}))
    assert listed(ada) == ["a+b", "c", "d"]
    page(act(ada, Embedding, "delete_selected", [row("a+b"), row("c")]))
    accepted(act(ada, Embedding, "delete_selected", [row("a+b"), row("c")], post="yes"))
    assert listed(ada) == ["d"]
    answer = ada.get(address(one, "change"))
    assert answer.status_code == 302


def test_too_many_are_not_deleted_at_once(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = sign_in()
    fill(cast.project, {f"t{number}": "" for number in range(4)})
    monkeypatch.setattr(common_admin, "MAXIMUM_CHOSEN", 3)
    rows: Any = list(Embedding.objects.defer("vector"))
    for post in ("", "yes"):
        answer = act(ada, Embedding, "delete_selected", rows[:1], select_across="1", post=post)
        assert accepted(answer) == ["Delete at most 3 embeddings at once."]
    assert len(listed(ada)) == 4


def test_staff_read_with_permission_and_delete_with_another(cast: Cast) -> None:
    fill(cast.project, {"a": "one"})
    make_user("stella")
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle="stella", changes={"is_staff": True})
    stella = stored("stella")
    stella.user_permissions.add(Permission.objects.get(codename="view_embedding"))
    client = sign_in("stella")
    page(client.get(address(row("a"), "change")))
    assert client.post(address(row("a"), "delete"), {"post": "yes"}).status_code == 403
    stella.user_permissions.add(Permission.objects.get(codename="delete_embedding"))
    answer = client.post(address(row("a"), "delete"), {"post": "yes"})
    assert answer.status_code == 302
    assert not Embedding.objects.exists()


def test_an_embedding_outlives_its_instance(cast: Cast) -> None:
    fill(cast.project, {"a": "one"})
    Embedding.objects.update(instance_id=0)
    page(sign_in().get(address(row("a"), "change")))


def test_lists_take_as_many_queries_for_two_rows_as_for_twenty(cast: Cast) -> None:
    ada = sign_in()
    fill(cast.project, {"a": "", "b": ""})
    few = queries(ada, address(Embedding))
    for number in range(20):
        fill(make_project("alice", f"more{number}"), {"c": "text"})
    assert queries(ada, address(Embedding)) == few
