"""The map in a real browser: lasso, list, export; keys, hovering, hostile texts, both schemes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.console.conftest import HOSTILE
from tests.console.test_browser import Person, axe, chromium, pytestmark, server, sync_api
from tests.end_to_end.harness import Armarium

__all__ = ["chromium", "pytestmark", "server"]

# Three groups of texts far from each other, the second one hostile.
ROWS = [
    {
        "text_id": f"{group}{each}",
        "text": HOSTILE if group == "b" else f"Text {group}{each}",
        "metadata": {"group": group, "year": 1700 + each, "title": HOSTILE if group == "b" else ""},
        "vector": [float(place == "abc".index(group)) + 0.01 * (each % 5) for place in range(3)],
        "vector_dim": 3,
        "instance_owner": "maud",
        "instance_handle": "model",
    }
    for group in "abc"
    for each in range(20)
]


@pytest.fixture(scope="module")
def key(server: Armarium) -> str:
    """The key of Maud, whose project `plane` has sixty texts."""
    _, account = server.request("POST", "/v1/users", {"user_handle": "maud"})
    key = str(account["api_key"])
    instance = {
        "instance_handle": "model",
        "endpoint": "https://api.example.org/v1",
        "api_standard": "openai",
        "model": "test",
        "dimensions": 3,
    }
    server.request("POST", "/v1/llm-services/maud", instance, key=key)
    named = {"instance_owner": "maud", "instance_handle": "model"}
    server.request("POST", "/v1/projects/maud", {"project_handle": "plane", **named}, key=key)
    status, _ = server.request("POST", "/v1/embeddings/maud/plane", {"embeddings": ROWS}, key=key)
    assert status == 201
    return key


@pytest.fixture
def person(chromium: Any, server: Armarium, key: str) -> Iterator[Person]:
    """Maud, with a wide window."""
    someone = Person(chromium, server)
    someone.sign_in(key)
    yield someone
    assert someone.complaints == []
    someone.context.close()


def opened(someone: Person, query: str = "key=group") -> Any:
    """Return the page once its map is painted."""
    someone.page.goto(f"/p/maud/plane/map?{query}")
    someone.page.wait_for_selector("#map[data-painted]")
    return someone.page


def place_of(page: Any, text_id: str) -> tuple[float, float]:
    """Return where a text is on the screen, by the numbers of the table."""
    row = page.locator("tbody tr", has=page.locator(f'a[href$="/texts/{text_id}"]'))
    number = int(row.get_attribute("data-place"))
    found = page.evaluate(
        "async (place) => {"
        " const all = new Float32Array(await (await fetch('map/points')).arrayBuffer());"
        " const figure = Object.values(Bokeh.index)[0].model;"
        " const box = document.getElementById('map').getBoundingClientRect();"
        " const at = (range, value, size) =>"
        "   (value - range.start) / (range.end - range.start) * size;"
        " return [box.left + at(figure.x_range, all[place], box.width),"
        "  box.bottom - at(figure.y_range, all[all.length / 2 + place], box.height)]; }",
        number,
    )
    return found[0], found[1]


def test_lasso_list_and_export(person: Person) -> None:
    page = opened(person)
    page.locator("#map").scroll_into_view_if_needed()
    x, y = place_of(page, "a0")
    plot = page.locator("#map").bounding_box()
    corners = [(-60, -60), (60, -60), (60, 60), (-60, 60), (-60, -55)]
    # A lasso begins on the plot.
    around = [
        (
            min(max(x + dx, plot["x"] + 3), plot["x"] + plot["width"] - 3),
            min(max(y + dy, plot["y"] + 3), plot["y"] + plot["height"] - 3),
        )
        for dx, dy in corners
    ]
    page.mouse.move(*around[0])
    page.mouse.down()
    for corner in around:
        page.mouse.move(*corner, steps=4)
    page.mouse.up()
    page.wait_for_selector(".map-chosen[data-marks=area]")
    assert "20 texts in the area" in page.locator(".map-chosen [role=status]").inner_text()
    # What the browser marks is what the server lists.
    page.wait_for_selector("#map[data-marked='20']")
    assert "area=" in page.url
    with page.expect_download() as download:
        page.get_by_role("link", name="Export as JSONL").click()
    lines = Path(download.value.path()).read_bytes().splitlines()
    assert {orjson.loads(line)["metadata"]["group"] for line in lines} == {"a"}
    # The address is the view.
    page.reload()
    page.wait_for_selector("#map[data-marked='20']")


def test_hostile_texts_stay_texts_on_the_plot(person: Person) -> None:
    page = opened(person, "key=title")
    page.goto("/p/maud/plane/map?key=title&around=b0")
    page.wait_for_selector("#map[data-marked='50']")
    page.locator("#map").scroll_into_view_if_needed()
    x, y = place_of(page, "b0")
    page.mouse.move(x + 30, y)
    page.mouse.move(x, y, steps=3)
    page.locator(".map-tip strong").get_by_text("<script>alert(1)").wait_for()
    assert page.locator("main img, main script").count() == 0


def test_groups_are_chosen_and_the_map_is_moved_with_keys(person: Person) -> None:
    page = opened(person)
    link = page.locator(".map-legend a", has_text="c")
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".map-chosen[data-marks=code]")
    page.wait_for_selector("#map[data-marked='20']")
    width = (
        "(() => { const [view] = Object.values(Bokeh.index); const figure = view.model;"
        " return figure.x_range.end - figure.x_range.start })()"
    )
    before = page.evaluate(width)
    page.locator("#map").focus()
    page.keyboard.press("+")
    assert page.evaluate(width) < before
    page.keyboard.press("0")
    assert page.evaluate(width) == pytest.approx(before)


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 390), ("dark", 1200)], ids=["narrow", "dark"]
)
def test_the_map_fits_and_is_accessible(
    scheme: str, width: int, chromium: Any, server: Armarium, key: str
) -> None:
    viewport = {"width": width, "height": 844}
    someone = Person(chromium, server, color_scheme=scheme, viewport=viewport)
    someone.sign_in(key)
    page = opened(someone, "key=year")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plot, table = page.locator("#map").bounding_box(), page.locator("#chosen").bounding_box()
    assert (table["y"] >= plot["y"] + plot["height"]) is (width == 390)
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (each["id"], [node["html"] for node in each["nodes"]])
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
    assert someone.complaints == []
    someone.context.close()


def test_without_javascript_the_table_holds_the_same(
    chromium: Any, server: Armarium, key: str
) -> None:
    someone = Person(chromium, server, java_script_enabled=False)
    someone.sign_in(key)
    page = someone.page
    page.goto("/p/maud/plane/map?key=group")
    page.get_by_text("The drawing needs JavaScript.").wait_for()
    page.locator(".map-legend a", has_text="a").click()
    page.get_by_text("20 texts").wait_for()
    page.get_by_role("link", name="Around it").first.click()
    page.get_by_text("50 texts").wait_for()
    page.get_by_role("link", name="Next page").click()
    page.get_by_text("26 to 50").wait_for()
    someone.context.close()


assert sync_api
