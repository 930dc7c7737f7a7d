"""The map of a project: its texts as points in a plane, coloured, chosen from, exported."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

import numpy as np
import orjson
from csp.constants import SELF, UNSAFE_INLINE
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils.translation import gettext
from django_htmx.http import HttpResponseClientRefresh

from accounts.policy import Level, level_of
from common.errors import Conflict, FieldError, Invalid, NotFound
from common.spreadsheets import harmless
from console import selectors as shown
from console.forms import MapForm
from console.pages import ProjectPage
from embeddings import filters, projections, selectors
from embeddings.models import ProjectionMethod
from embeddings.projections import NO_VALUE, OTHER, Colouring
from embeddings.projections import Map as Drawn
from projects.selectors import count_embeddings

PAGE = 25
# Around one of them, for those who choose without a mouse.
AROUND = 50
_MOST_CORNERS = 200
_KEYS_FROM = 200
_WORDS = {"other": OTHER, "none": NO_VALUE}
_EXPORTED_AT_ONCE = 500
_EXCERPT = 280


@dataclass(frozen=True)
class Selection:
    """Some of a map's texts.

    places: which, in the order of their ids. words: what they have in common. query: the
    parameters that choose them; empty for all. marks: what tells the browser which they are.
    """

    places: Sequence[int]
    words: str
    query: dict[str, str]
    marks: dict[str, str]


class MapPage(ProjectPage):
    """What all addresses of a map have in common: which one, its colours, and a selection."""

    tab = "map"
    parameters = frozenset({"method"})

    @cached_property
    def method(self) -> ProjectionMethod:
        """Return which way of drawing the address names."""
        given = self.request.GET.get("method", ProjectionMethod.PCA.value)
        if given not in ProjectionMethod.values:
            raise _invalid("method", gettext("The method of a map is pca or umap."))
        return ProjectionMethod(given)

    def drawn(self) -> Drawn:
        """Return the map; raise NotFound where there is none yet."""
        projection = projections.projection_of(self.project, self.method)
        if projection is None or not projection.number:
            raise NotFound(gettext("This map has not been drawn yet."))
        wanted = self.request.GET.get("number")
        if wanted is not None and wanted != str(projection.number):
            raise Conflict(gettext("This map was drawn anew meanwhile. Load the page again."))
        return projections.map_of(projection)

    def colouring(self, drawn: Drawn) -> Colouring | None:
        """Return the colours by the key that the address names; None for none."""
        key = self.request.GET.get("key")
        if not key:
            return None
        return projections.colour(self.project, drawn, filters.parse_path(key, "query.key"))

    def selection(self, drawn: Drawn, colouring: Colouring | None) -> Selection:
        """Return the texts that the address chooses; all where it chooses none."""
        given = self.request.GET
        chosen = [name for name in ("area", "around", "value", "group") if given.get(name)]
        if len(chosen) > 1:
            raise _invalid(
                chosen[1], gettext("Choose by an area, around a text, or by a value: one of them.")
            )
        if not chosen:
            return Selection(range(len(drawn.text_ids)), "", {}, {})
        name, wanted = chosen[0], given[chosen[0]]
        if name == "area":
            places: Any = projections.inside(drawn.points, _corners(wanted))
            words = gettext("in the area")
            marks = {"kind": "area", "value": wanted}
        elif name == "around":
            place = drawn.place_of(wanted)
            if place is None:
                raise _invalid("around", gettext("This map has no text with this id."))
            places = np.sort(projections.around(drawn.points, place, AROUND))
            words = gettext("around %(text)s") % {"text": wanted[:80]}
            marks = {"kind": "places", "value": " ".join(map(str, places.tolist()))}
        else:
            code, words = self._coloured(name, wanted, colouring)
            places = np.flatnonzero(colouring.codes == code)  # type: ignore[union-attr]
            marks = {"kind": "code", "value": str(code)}
        return Selection(places.tolist(), words, {name: wanted}, marks)

    def _coloured(self, name: str, wanted: str, colouring: Colouring | None) -> tuple[int, str]:
        """Return the code of a group, and what its texts have in common."""
        key = self.request.GET.get("key", "")
        if colouring is None:
            raise _invalid(name, gettext("Say which metadata key the value is at."))
        if name == "group":
            code = _WORDS.get(wanted)
            words = {
                OTHER: gettext("with other values at %(key)s"),
                NO_VALUE: gettext("without a value at %(key)s"),
            }.get(code or 0, "") % {"key": key}
        else:
            code = next((each.code for each in colouring.groups if each.value == wanted), None)
            words = f"{key}: {wanted[:80]}"
        if code is None:
            raise _invalid(name, gettext("The map has no colour for this."))
        return code, words


class Map(MapPage):
    """The page: the plot, its legend, and the table of the same texts."""

    parameters = frozenset({"method", "key", "area", "around", "value", "group", "start"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the map; a first one is drawn for whoever comes first."""
        count_embeddings(self.project)
        rows: int = self.project.number_of_embeddings  # type: ignore[attr-defined]
        projection = projections.show(self.project, rows, self.method)
        context: dict[str, Any] = {
            "method": self.method.value,
            "methods": [
                {"name": each.value, "label": each.label, "chosen": each == self.method}
                for each in ProjectionMethod
            ],
            "projection": projection,
            "may_draw": level_of(self.project) >= Level.EDITOR,
            "has_umap": projections.has_umap(),
            "least": projections.LEAST_FOR_UMAP,
            "rows": rows,
        }
        if projection is not None and projection.number:
            drawn = projections.map_of(projection)
            colouring = self.colouring(drawn)
            context |= self._chosen(drawn, self.selection(drawn, colouring))
            if self.is_partial("chosen"):
                return self.show("console/parts/map_chosen.html", context)
            context |= self._drawn(drawn, colouring, context)
            context["is_outdated"] = not projection.is_active and projections.is_outdated(
                projection, self.project, rows
            )
        response = self.show("console/project/map.html", context)
        if "drawn" in context:
            # BokehJS makes style elements. Nothing else on the page does, and no other page has it.
            policy = {"style-src": [SELF, UNSAFE_INLINE]}
            response._csp_update = policy  # type: ignore[attr-defined]
        return response

    def post(self, request: HttpRequest) -> HttpResponse:
        """Have a map drawn anew, in the background."""
        given = request.POST.get("method", "")
        if given not in ProjectionMethod.values:
            raise _invalid("method", gettext("The method of a map is pca or umap."))
        projections.ask(**self.where, method=ProjectionMethod(given))
        address = reverse("map", args=[self.owner, self.handle])
        return HttpResponseRedirect(f"{address}?{urlencode({'method': given})}")

    def _drawn(
        self, drawn: Drawn, colouring: Colouring | None, chosen: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what stands around the plot."""
        explained = (drawn.projection.explained_x or 0) + (drawn.projection.explained_y or 0)
        legend = (
            () if colouring is None else _legend(colouring, chosen["kept"], chosen["selection"])
        )
        return {
            "drawn": drawn,
            "explained": 100 * explained,
            "form": MapForm(self.request.GET),
            "keys": self._keys(drawn),
            "colouring": colouring,
            "legend": list(legend),
            "codes": range(NO_VALUE + 1),
        }

    def _chosen(self, drawn: Drawn, selection: Selection) -> dict[str, Any]:
        """Return a page of the texts that are chosen."""
        start = _whole(self.request.GET.get("start", "0"), "start")
        places = selection.places[start : start + PAGE]
        cards = shown.cards_named(self.project, [drawn.text_ids[place] for place in places])
        kept = {
            name: self.request.GET[name] for name in ("method", "key") if self.request.GET.get(name)
        }
        here = {**kept, **selection.query}
        total = len(selection.places)
        before = f"?{urlencode({**here, 'start': max(0, start - PAGE)})}"
        after = f"?{urlencode({**here, 'start': start + PAGE})}"
        return {
            "selection": selection,
            "total": total,
            "first": start + 1,
            "last": min(start + PAGE, total),
            "rows_shown": [
                _row(drawn, place, cards, urlencode({**kept, "around": drawn.text_ids[place]}))
                for place in places
            ],
            "kept": kept,
            "all": f"?{urlencode(kept)}",
            "export": urlencode(here),
            "before": before if start else None,
            "next": after if start + PAGE < total else None,
        }

    def _keys(self, drawn: Drawn) -> list[str]:
        """Return keys of the metadata of some of the texts."""
        step = max(1, len(drawn.text_ids) // _KEYS_FROM)
        return shown.keys_of(self.project, drawn.text_ids[::step][:_KEYS_FROM])


class Progress(MapPage):
    """How far a map is that is being drawn; asked for time and again."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the progress; the whole page is loaded anew once it is over."""
        projection = projections.projection_of(self.project, self.method)
        if projection is None or not projection.is_active:
            if request.headers.get("HX-Request"):
                return HttpResponseClientRefresh()
            address = reverse("map", args=[self.owner, self.handle])
            return HttpResponseRedirect(f"{address}?{urlencode({'method': self.method.value})}")
        context = {"projection": projection, "method": self.method.value}
        return self.show("console/parts/map_progress.html", context)


class Points(MapPage):
    """Where the texts are."""

    parameters = frozenset({"method", "number"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return x and y of each, float32, little-endian: of all first x, then y."""
        drawn = self.drawn()
        return _binary(np.ascontiguousarray(drawn.points.T).tobytes())


class Colours(MapPage):
    """What colours the texts have by a key."""

    parameters = frozenset({"method", "number", "key"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return a byte for each, its group; or a float32, little-endian, on a scale of numbers."""
        drawn = self.drawn()
        colouring = self.colouring(drawn)
        if colouring is None:
            raise _invalid("key", gettext("Say which metadata key."))
        numbers = colouring.numbers
        return _binary(colouring.codes.tobytes() if numbers is None else numbers.tobytes())


class Text(MapPage):
    """What one point stands for; asked for where the mouse rests."""

    parameters = frozenset({"method", "number", "place"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return how the text begins, as JSON."""
        drawn = self.drawn()
        place = _whole(request.GET.get("place", ""), "place")
        if place >= len(drawn.text_ids):
            raise _invalid("place", gettext("The map has no such point."))
        text_id = drawn.text_ids[place]
        card = shown.cards_named(self.project, [text_id]).get(text_id)
        body = {
            "text_id": text_id,
            "title": text_id if card is None else card.title,
            "text": gettext("Deleted meanwhile.") if card is None else card.excerpt[:_EXCERPT],
            "address": reverse("text", args=[self.owner, self.handle, text_id]),
        }
        return HttpResponse(orjson.dumps(body), content_type="application/json")


class Export(MapPage):
    """The texts of a selection, as a file."""

    parameters = frozenset({"method", "key", "area", "around", "value", "group", "format"})

    def get(self, request: HttpRequest) -> HttpResponseBase:
        """Return them as lines of JSON, or as a table for spreadsheets."""
        kind = request.GET.get("format", "jsonl")
        if kind not in ("jsonl", "csv"):
            raise _invalid("format", gettext("The format of an export is jsonl or csv."))
        drawn = self.drawn()
        places = self.selection(drawn, self.colouring(drawn)).places
        rows = self._parts(drawn, places)
        media_type = "application/x-ndjson" if kind == "jsonl" else "text/csv; charset=utf-8"
        lines = _json_lines(rows) if kind == "jsonl" else _csv_lines(rows)
        response = StreamingHttpResponse(lines, content_type=media_type)
        name = f"{self.project.handle}-map.{kind}"
        response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return response

    def _parts(self, drawn: Drawn, places: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        """Return the texts that are still stored; read while they are written."""
        for start in range(0, len(places), _EXPORTED_AT_ONCE):
            some = places[start : start + _EXPORTED_AT_ONCE]
            stored = selectors.described(self.project, [drawn.text_ids[place] for place in some])
            yield [
                {"text_id": text_id, "text": stored[text_id][0], "metadata": stored[text_id][1]}
                | dict(zip("xy", drawn.points[place].tolist(), strict=True))
                for place in some
                if (text_id := drawn.text_ids[place]) in stored
            ]


def _json_lines(parts: Iterator[list[dict[str, Any]]]) -> Iterator[bytes]:
    for rows in parts:
        yield b"".join(
            orjson.dumps({**row, "metadata": orjson.Fragment(row["metadata"])}) + b"\n"
            for row in rows
        )


def _csv_lines(parts: Iterator[list[dict[str, Any]]]) -> Iterator[str]:
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(["text_id", "text", "metadata", "x", "y"])
    for rows in parts:
        for row in rows:
            words = (row["text_id"], row["text"], row["metadata"].decode())
            writer.writerow([*(harmless(each) for each in words), row["x"], row["y"]])
        yield lines.getvalue()
        lines.seek(0)
        lines.truncate()
    yield lines.getvalue()


def _binary(data: bytes) -> HttpResponse:
    return HttpResponse(data, content_type="application/octet-stream")


def _legend(
    colouring: Colouring, kept: dict[str, str], selection: Selection
) -> Iterator[dict[str, Any]]:
    names = {code: word for word, code in _WORDS.items()}
    labels = {OTHER: gettext("other values"), NO_VALUE: gettext("no value")}
    for group in colouring.groups:
        query = {"value": group.value}
        if group.code in names:
            query = {"group": names[group.code]}
        yield {
            "code": group.code,
            "label": labels.get(group.code) or group.value or gettext("(empty)"),
            "is_value": group.code not in names,
            "count": group.count,
            # An empty value cannot be told from none.
            "address": f"?{urlencode({**kept, **query})}" if all(query.values()) else None,
            "chosen": selection.query == query,
        }


def _row(drawn: Drawn, place: int, cards: dict[str, shown.Card], around: str) -> dict[str, Any]:
    text_id = drawn.text_ids[place]
    x, y = drawn.points[place].tolist()
    card = cards.get(text_id)
    return {"place": place, "text_id": text_id, "card": card, "x": x, "y": y, "around": around}


def _corners(given: str) -> list[tuple[float, float]]:
    """Return the corners of a polygon: numbers with a comma between, pairs with a semicolon."""
    problem = gettext(
        "An area is 3 to %(most)s corners, such as 0,0;1,0;1,1: x and y with a comma between them."
    ) % {"most": _MOST_CORNERS}
    try:
        corners = [tuple(float(word) for word in pair.split(",")) for pair in given.split(";")]
    except ValueError as error:
        raise _invalid("area", problem) from error
    if not 3 <= len(corners) <= _MOST_CORNERS or any(len(each) != 2 for each in corners):
        raise _invalid("area", problem)
    if not all(math.isfinite(number) and abs(number) < 1e30 for each in corners for number in each):
        raise _invalid("area", problem)
    return [(x, y) for x, y in corners]


def _whole(given: str, name: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 9):
        raise _invalid(name, gettext("%(name)s is a whole number from 0.") % {"name": name})
    return int(given)


def _invalid(name: str, problem: str) -> Invalid:
    return Invalid(problem, errors=[FieldError(f"query.{name}", problem)])
