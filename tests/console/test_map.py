"""The map of a project: drawn once, coloured, chosen from, exported."""

import csv
import io
import re
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import orjson
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from embeddings import projections
from embeddings.models import Projection
from tests.console.browser import PROJECT, browser, page
from tests.console.conftest import HOSTILE
from tests.factories import Cast, item
from tests.jobs import run_jobs

MAP = f"{PROJECT}/map"
HTMX = {"HX-Request": "true"}


@pytest.fixture
def alice(texts: Cast) -> Client:
    """A browser of Alice's."""
    return browser("alice")


def shown(client: Client, status: int = 200, **query: Any) -> str:
    """Return the page of the map."""
    return page(client.get(f"{MAP}?{urlencode(query)}"), status)


def exported(client: Client, **query: Any) -> bytes:
    """Return an exported file."""
    response: Any = client.get(f"{MAP}/export?{urlencode(query)}")
    assert response.status_code == 200, response.content
    assert response.headers["Content-Disposition"].startswith('attachment; filename="letters-map.')
    return b"".join(response.streaming_content)


def points(client: Client, **query: Any) -> Any:
    """Return where the texts are: float32 of shape (n, 2)."""
    response = client.get(f"{MAP}/points?{urlencode(query)}")
    assert response.headers["Content-Type"] == "application/octet-stream"
    return np.frombuffer(response.content, dtype="<f4").reshape(2, -1).T


# --- The page -------------------------------------------------------------------------------------
def test_the_first_visit_draws_a_small_map_at_once_and_keeps_it(alice: Client) -> None:
    text = shown(alice)
    assert "<b>4</b> texts" in text
    assert 'data-number="1"' in text
    assert "The drawing needs JavaScript." in text
    shown(browser("rita"))
    assert Projection.objects.get().number == 1
    where = points(alice)
    assert where.shape == (4, 2)
    # Those that are alike are near: the ids are in their order.
    order = sorted(["a/1", "b 2?", "c\n3", HOSTILE])
    near = np.linalg.norm(where[order.index("a/1")] - where[order.index("b 2?")])
    far = np.linalg.norm(where[order.index("a/1")] - where[order.index("c\n3")])
    assert near < far / 3


def test_an_empty_project_says_how_to_begin(cast: Cast) -> None:
    text = shown(browser("alice"))
    assert "No texts yet." in text
    assert "bokeh" not in text
    assert not Projection.objects.exists()


def test_only_a_page_with_a_plot_allows_styles_of_its_own(cast: Cast, texts: Cast) -> None:
    alice = browser("alice")
    policy = alice.get(MAP).headers["Content-Security-Policy"]
    assert "style-src 'self' 'unsafe-inline'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe-eval" not in policy
    for address in (f"{MAP}?method=umap", f"{PROJECT}/texts", f"{MAP}/points"):
        assert "unsafe" not in alice.get(address).headers["Content-Security-Policy"]


def test_changed_texts_are_told_of_and_editors_draw_anew(texts: Cast, alice: Client) -> None:
    shown(alice)
    changed = {"text": "New", "vector": [0, 0, 1], "metadata": {}}
    path = "/v1/embeddings/alice/letters/" + quote("a/1", safe="")
    answer = texts.alice.put(path, item("a/1", [0, 0, 1]) | changed)
    assert answer.status < 300, answer.body
    assert "The texts have changed" in shown(alice)
    reader = shown(browser("rita"))
    assert "Those who edit the project can draw it anew." in reader
    assert "Draw it anew" not in reader
    assert alice.post(MAP, {"method": "pca"}).status_code == 302
    text = shown(alice)
    assert 'hx-get="/p/alice/letters/map/progress?method=pca"' in text
    assert "<progress" in page(alice.get(f"{MAP}/progress?method=pca", headers=HTMX))
    run_jobs()
    refreshed = alice.get(f"{MAP}/progress?method=pca", headers=HTMX)
    assert refreshed.headers["HX-Refresh"] == "true"
    text = shown(alice)
    assert 'data-number="2"' in text
    assert "The texts have changed" not in text


def test_a_map_that_was_drawn_anew_is_not_mixed_with_the_one_before(alice: Client) -> None:
    shown(alice)
    alice.post(MAP, {"method": "pca"})
    run_jobs()
    page(alice.get(f"{MAP}/text?number=1&place=0"), 409)
    assert alice.get(f"{MAP}/text?number=2&place=0").status_code == 200


def test_umap_that_is_not_installed_is_said_plainly(
    alice: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("embeddings.projections.has_umap", lambda: False)
    monkeypatch.setattr("embeddings.projections._making.has_umap", lambda: False)
    text = shown(alice, method="umap")
    assert "UMAP is not installed on this server." in text
    assert "requirements-umap.txt" in text
    assert "not installed" in page(alice.post(MAP, {"method": "umap"}), 409)


def test_a_map_that_failed_says_why(alice: Client) -> None:
    shown(alice)
    Projection.objects.update(state="failed", error="No space left")
    assert "No space left" in shown(alice)


# --- Colours --------------------------------------------------------------------------------------
def test_categories_have_a_legend_with_counts(alice: Client) -> None:
    text = shown(alice, key="author")
    assert re.search(r"<bdi>Ann</bdi></a><span>2<", text)
    assert re.search(r"no value</a><span>1<", text)
    codes = alice.get(f"{MAP}/colours?key=author").content
    assert sorted(codes) == [0, 0, 1, projections.NO_VALUE]


def test_rare_values_share_a_colour_and_numbers_are_a_scale(cast: Cast) -> None:
    rows = [
        item(f"{each:02}", [1, each, 1], metadata={"word": f"w{each}", "year": 1700 + each})
        for each in range(30)
    ]
    assert cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows}).status == 201
    alice = browser("alice")
    text = shown(alice, key="word")
    assert re.search(r"other values</a><span>20<", text)
    assert "<b>20</b> texts" in shown(alice, key="word", group="other")
    text = shown(alice, key="year")
    assert 'data-scale="yes"' in text
    numbers = np.frombuffer(alice.get(f"{MAP}/colours?key=year").content, dtype="<f4")
    assert numbers.tolist() == [1700 + each for each in range(30)]


def test_values_that_only_look_alike_are_kept_apart(cast: Cast) -> None:
    values = [1, True, "1", 1.5, "true", None, [2, 3], {"a": 1}]
    rows = [item(str(each), [1, each, 1], metadata={"x": v}) for each, v in enumerate(values)]
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    codes = browser("alice")
    shown(codes)
    found = list(codes.get(f"{MAP}/colours?key=x").content)
    assert len(set(found[:5])) == 5
    assert found[5] == found[7] == projections.NO_VALUE
    assert found[6] not in found[:6]


# --- Choosing -------------------------------------------------------------------------------------
def area_of(where: Any, reach: float = 0.01) -> str:
    """Return a square around a point, as the address spells it."""
    x, y = (float(each) for each in where)
    corners = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
    return ";".join(f"{x + reach * dx:.6f},{y + reach * dy:.6f}" for dx, dy in corners)


def test_an_area_lists_and_exports_the_same_texts(alice: Client) -> None:
    shown(alice)
    order = sorted(["a/1", "b 2?", "c\n3", HOSTILE])
    area = area_of(points(alice)[order.index("a/1")])
    text = shown(alice, area=area)
    assert "<b>1</b> text" in text
    assert "My dear friend" in text
    assert "Dear Sir" not in text
    part = page(alice.get(f"{MAP}?area={area}", headers={**HTMX, "HX-Target": "chosen"}))
    assert "<html" not in part
    assert "My dear friend" in part
    [line] = exported(alice, area=area).splitlines()
    row = orjson.loads(line)
    assert row["text_id"] == "a/1"
    assert row["metadata"] == {"author": "Ann", "year": 1791}
    assert "No text lies there" in shown(alice, area="90,90;91,90;91,91")


def test_texts_are_chosen_without_a_mouse(alice: Client) -> None:
    assert "My dear friend" in shown(alice, key="author", value="Ann")
    assert "Dear Sir" not in shown(alice, key="author", value="Ann").split('id="chosen"')[1]
    assert "around a/1" in shown(alice, around="a/1")
    assert "<b>1</b> text" in shown(alice, key="author", group="none")


def test_the_table_has_pages(cast: Cast) -> None:
    rows = [item(f"t{each:02}", [1, each, 2], text=f"Text {each:02}.") for each in range(30)]
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    alice = browser("alice")
    first = shown(alice)
    assert "Text 24." in first
    assert "Text 25." not in first
    assert "Text 25." in shown(alice, start=25)


@pytest.mark.parametrize(
    "query",
    [
        {"area": "1,2;3,4"},
        {"area": "1,2;3,4;nan,1"},
        {"area": "1,2;3,4;1e300,1"},
        {"area": ";".join(["1,2"] * 201)},
        {"area": "1,2,3;1,2,3;1,2,3"},
        {"area": "x"},
        {"around": "nothing"},
        {"around": "a/1", "area": "0,0;1,0;1,1"},
        {"value": "Ann"},
        {"key": "author", "value": "Nobody"},
        {"key": "author", "group": "all"},
        {"start": "-1"},
        {"start": "9" * 40},
        {"method": "tsne"},
        {"colour": "red"},
    ],
)
def test_what_cannot_be_chosen_is_refused(query: dict[str, str], alice: Client) -> None:
    shown(alice, 400, **query)


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("text?place=4", 400),
        ("text?place=x", 400),
        ("text", 400),
        ("colours", 400),
        ("points?number=7", 409),
        ("points?method=umap", 404),
        ("export?format=xls", 400),
        ("export?method=umap", 404),
    ],
)
def test_wrong_addresses_of_parts_are_refused(address: str, status: int, alice: Client) -> None:
    shown(alice)
    page(alice.get(f"{MAP}/{address}"), status)


# --- Hostile texts --------------------------------------------------------------------------------
def test_what_people_store_stays_text(alice: Client) -> None:
    text = shown(alice, key=HOSTILE, value=HOSTILE)
    assert "&lt;script&gt;" in text
    order = sorted(["a/1", "b 2?", "c\n3", HOSTILE])
    answer = alice.get(f"{MAP}/text?place={order.index(HOSTILE)}")
    assert answer.headers["Content-Type"] == "application/json"
    assert orjson.loads(answer.content)["title"] == HOSTILE
    shown(alice, around=HOSTILE)


def test_cells_are_no_formulas(cast: Cast) -> None:
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "plain", 'a "b"\nc,d']
    rows = [item(f"={each}", [1, each, 1], text=text) for each, text in enumerate(texts)]
    cast.alice.post("/v1/embeddings/alice/letters", {"embeddings": rows})
    alice = browser("alice")
    shown(alice)
    found = list(csv.DictReader(io.StringIO(exported(alice, format="csv").decode(), newline="")))
    assert [each["text"] for each in found] == [*(f"'{text}" for text in texts[:5]), *texts[5:]]
    assert all(each["text_id"].startswith("'=") for each in found)


def test_deleted_texts_leave_the_list_and_the_export(texts: Cast, alice: Client) -> None:
    shown(alice)
    texts.alice.delete("/v1/embeddings/alice/letters/" + quote("a/1", safe=""))
    assert "Deleted meanwhile." in shown(alice)
    assert len(exported(alice).splitlines()) == 3
    order = sorted(["a/1", "b 2?", "c\n3", HOSTILE])
    text = orjson.loads(alice.get(f"{MAP}/text?place={order.index('a/1')}").content)
    assert text["text"] == "Deleted meanwhile."


# --- Permissions and budgets ----------------------------------------------------------------------
def test_everybody_sees_public_maps_and_only_editors_draw(texts: Cast) -> None:
    texts.alice.patch("/v1/projects/alice/letters", {"public_read": True})
    shown(browser(), key="author")
    for part in ("points", "colours?key=author", "text?place=0", "export"):
        assert browser().get(f"{MAP}/{part}").status_code == 200
    assert browser().post(MAP, {"method": "pca"}).status_code == 302
    assert Projection.objects.get().state == "ready"
    page(browser("rita").post(MAP, {"method": "pca"}), 403)
    assert browser("erin").post(MAP, {"method": "pca"}).headers["Location"].endswith("?method=pca")
    assert Projection.objects.get().state == "waiting"


@pytest.mark.parametrize(
    ("address", "most"),
    [(f"{MAP}?key=author", 14), (f"{MAP}/points", 6), (f"{MAP}/colours?key=author", 7)],
)
def test_maps_take_few_queries(address: str, most: int, texts: Cast, alice: Client) -> None:
    shown(alice)
    alice.get(address)
    with CaptureQueriesContext(connection) as captured:
        assert alice.get(address).status_code == 200
    assert len(captured) <= most
