"""The administration site: indexes are watched there, set, and built again."""

from typing import Any

import pytest
from django.contrib.auth.models import Permission

from accounts import services as accounts
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings import indexes
from embeddings.models import Embedding, SearchIndex
from projects.models import Project
from tests.admin_site import accepted, act, address, errors, page, queries, sign_in, submit
from tests.factories import Cast, item, make_project, make_user, stored


def build(cast: Cast, settings: Any, handle: str = "letters") -> SearchIndex:
    """Fill a project of Alice's, and build its index."""
    rows = {"embeddings": [item(name, [1, 2, len(name)]) for name in ("a", "bb", "ccc")]}
    assert cast.alice.post(f"/v1/embeddings/alice/{handle}", rows).status == 201
    settings.INDEX_THRESHOLD = 3
    project = Project.objects.get(owner__handle="alice", handle=handle)
    indexes.tend(project.pk)
    return SearchIndex.objects.get(project=project)


def test_the_list_shows_what_was_built(cast: Cast, settings: Any) -> None:
    index = build(cast, settings)
    SearchIndex.objects.update(last_error="OutOfMemory: <script>alert(1)</script>")
    ada = sign_in()
    text = page(ada.get(address(SearchIndex)))
    for shown in ("alice/letters", "Indexed", "OutOfMemory: &lt;script&gt;", "KB"):
        assert shown in text, shown
    text = page(ada.get(address(index, "change")))
    for shown in ("Indexed", "OutOfMemory: &lt;script&gt;", 'name="m"', 'name="target_recall"'):
        assert shown in text, shown
    for fixed in ('name="state"', 'name="segment"', 'name="built_m"', 'name="last_error"'):
        assert fixed not in text, fixed


def test_settings_are_changed_as_the_api_changes_them(cast: Cast, settings: Any) -> None:
    ada, index = sign_in(), build(cast, settings)
    url = address(index, "change")
    accepted(submit(ada, url, ef_search="77", m="10"))
    shown = cast.alice.get("/v1/projects/alice/letters/index")
    assert shown["settings"] == {
        "m": 10,
        "ef_construction": 64,
        "ef_search": 77,
        "target_recall": 0.98,
        "search_language": None,
    }
    accepted(submit(ada, url, ef_search="", search_language="french"))
    shown = cast.alice.get("/v1/projects/alice/letters/index")["settings"]
    assert (shown["ef_search"], shown["search_language"]) == (None, "french")
    accepted(submit(ada, url, search_language=""))
    shown = cast.alice.get("/v1/projects/alice/letters/index")["settings"]
    assert shown["search_language"] is None


@pytest.mark.parametrize(
    ("entered", "field"),
    [
        ({"m": "1"}, "m"),
        ({"m": "x"}, "m"),
        ({"m": "50"}, "ef_construction"),
        ({"ef_search": "5"}, "ef_search"),
        ({"target_recall": "1.5"}, "target_recall"),
        ({"target_recall": ""}, "target_recall"),
    ],
)
def test_a_bad_setting_shows_the_form_again(
    cast: Cast, settings: Any, entered: dict[str, str], field: str
) -> None:
    index = build(cast, settings)
    found = errors(submit(sign_in(), address(index, "change"), **entered))
    assert list(found) == [field]
    kept = SearchIndex.objects.get()
    assert (kept.m, kept.ef_search, kept.target_recall) == (16, None, 0.98)


def test_a_project_leads_to_its_index_and_has_settings_before_it_has_one(cast: Cast) -> None:
    ada = sign_in()
    url = address(SearchIndex(project=cast.project), "change")
    assert f'<a href="{url}">exact</a>' in page(ada.get(address(cast.project, "change")))
    page(ada.get(url))
    accepted(submit(ada, url, m="24"))
    assert SearchIndex.objects.get().m == 24
    gone = address(SearchIndex(project_id=cast.project.pk + 10**6), "change")
    assert ada.get(gone).status_code == 302


def test_building_again_is_asked_for_all_of_the_chosen_or_none(cast: Cast, settings: Any) -> None:
    ada, index = sign_in(), build(cast, settings)
    exact = SearchIndex.objects.create(project=make_project("alice", "small"))
    refused = accepted(act(ada, SearchIndex, "build_again", [index, exact]))
    assert "Project 'alice/small' has no index to rebuild" in refused[0]
    assert not SearchIndex.objects.filter(rebuild_requested=True).exists()
    assert accepted(act(ada, SearchIndex, "build_again", [index])) == [
        "1 index will be built again in the background."
    ]
    assert SearchIndex.objects.filter(rebuild_requested=True).get() == index


def test_projects_have_their_indexes_built_again(cast: Cast, settings: Any) -> None:
    ada, index = sign_in(), build(cast, settings)
    assert ">Build again</button>" in page(ada.get(address(index, "change")))
    refused = accepted(act(ada, Project, "reindex", [cast.project, make_project("alice", "small")]))
    assert "Project 'alice/small' has no index to rebuild" in refused[0]
    assert not SearchIndex.objects.filter(rebuild_requested=True).exists()
    answer = act(ada, Project, "reindex", [cast.project])
    assert accepted(answer) == ["1 index will be built again in the background."]
    assert SearchIndex.objects.get(rebuild_requested=True) == index


def test_indexes_are_neither_made_nor_deleted_and_staff_need_permission(
    cast: Cast, settings: Any
) -> None:
    index = build(cast, settings)
    ada = sign_in()
    assert ada.get(address(SearchIndex, "add")).status_code == 403
    assert ada.post(address(index, "delete"), {"post": "yes"}).status_code == 403
    make_user("stella")
    accounts.set_access(actor=BOOTSTRAP_ADMIN, handle="stella", changes={"is_staff": True})
    stella = sign_in("stella")
    assert stella.get(address(SearchIndex)).status_code == 403
    stored("stella").user_permissions.add(Permission.objects.get(codename="view_searchindex"))
    page(stella.get(address(index, "change")))
    assert stella.post(address(index, "change"), {"m": "20"}).status_code == 403
    assert SearchIndex.objects.get().m == 16


def test_a_project_is_deleted_with_its_index(cast: Cast, settings: Any) -> None:
    build(cast, settings)
    ada = sign_in()
    text = page(ada.get(address(cast.project, "delete")))
    assert "Embeddings: 3" in text
    assert "Search indexes: " not in text
    accepted(ada.post(address(cast.project, "delete"), {"post": "yes"}))
    assert not SearchIndex.objects.exists()
    assert not Embedding.objects.exists()


def test_the_list_takes_as_many_queries_for_two_as_for_many(cast: Cast, settings: Any) -> None:
    ada = sign_in()
    build(cast, settings)
    few = queries(ada, address(SearchIndex))
    for number in range(5):
        make_project("alice", f"more{number}")
        build(cast, settings, f"more{number}")
    assert queries(ada, address(SearchIndex)) == few
