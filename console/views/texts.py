"""The texts of a project: browsed, opened, searched."""

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import orjson
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext

from accounts.sessions import SessionCredentials
from common.errors import DomainError, NotFound, Unauthenticated
from common.pagination import cursor_after, key_of
from console import selectors as shown
from console.forms import FilterForm, SearchForm, VectorForm
from console.pages import ProjectPage, refuse
from embeddings import filters, selectors
from embeddings.selectors import Exclusion, Found, Wanted

PAGE = 25
_NEIGHBOURS = 8
_FACETS = 20
_FILTER = ("key", "value", "filter")


class Texts(ProjectPage):
    """A page of texts in the order of their ids."""

    tab = "texts"
    parameters = frozenset({*_FILTER, "after"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return those that the filter keeps, after the place where the page before ended."""
        form = FilterForm(request.GET)
        context: dict[str, Any] = {"form": form}
        status = 200
        if form.is_valid():
            context |= self._listed(form)
        else:
            status = 400
        if self.is_partial("texts"):
            return self.show("console/parts/texts.html", context, status=status)
        return self.show("console/project/texts.html", context, status=status)

    def _listed(self, form: FilterForm) -> dict[str, Any]:
        condition, key = form.cleaned_data["condition"], form.cleaned_data["key"]
        cursor = self.request.GET.get("after")
        place: dict[str, Any] = {"offset": 0} if cursor is None else {"after": key_of(cursor)}
        listing = selectors.embeddings_of(**self.where, limit=PAGE, condition=condition, **place)
        rows = listing.rows()
        kept = {name: self.request.GET[name] for name in _FILTER if self.request.GET.get(name)}
        following = urlencode({**kept, "after": cursor_after(listing.last)})
        return {
            "cards": [shown.card_of(row) for row in rows],
            "total": listing.total,
            "filtered": condition is not None,
            "next": f"?{following}" if listing.has_more else None,
            "first": f"?{urlencode(kept)}" if cursor is not None else None,
            "keys": _keys(rows),
            **self._facets(key, kept),
        }

    def _facets(self, key: str, kept: dict[str, str]) -> dict[str, Any]:
        """Return the values at the key that the form names, and how frequent each is."""
        if not key:
            return {}
        path = filters.parse_path(key, "query.key")
        narrowed = kept.get("filter")
        condition = filters.parse_text(narrowed, "query.filter") if narrowed else None
        _, facets = selectors.facets_of(**self.where, path=path, condition=condition, limit=_FACETS)
        values = []
        for text, count in facets.values:
            value = orjson.loads(text)
            word = value if isinstance(value, str) else text.decode()
            address = urlencode({**kept, "key": key, "value": word})
            chosen = word == kept.get("value")
            values.append({"value": word, "count": count, "address": address, "chosen": chosen})
        without = {**kept}
        without.pop("value", None)
        return {"facets": values, "distinct": facets.distinct, "all": f"?{urlencode(without)}"}


def _keys(rows: list[selectors.Row]) -> list[str]:
    """Return the keys that the metadata of some texts has, in their order."""
    keys = (each.path for row in rows for each in shown.details_of(orjson.loads(row.metadata)))
    return list(dict.fromkeys(keys))[:40]


class Text(ProjectPage):
    """One text."""

    tab = "texts"

    def get(self, request: HttpRequest, text_id: str) -> HttpResponse:
        """Return the text, its metadata, the texts nearest to it, and those before and after."""
        try:
            _, row = selectors.embedding_for(**self.where, text_id=text_id)
        except NotFound as error:
            raise shown.text_missing(self.project, text_id) from error
        found = selectors.similar_to(
            SessionCredentials(self.actor),
            owner=self.owner,
            handle=self.handle,
            text_id=row.text_id,
            wanted=Wanted(limit=_NEIGHBOURS, offset=0, threshold=0),
        )
        before, after = shown.neighbours_of(self.project, row.text_id)
        metadata = orjson.loads(row.metadata)
        context = {
            "row": row,
            "card": shown.card_of(row),
            "metadata": shown.details_of(metadata),
            "json": orjson.dumps(metadata, option=orjson.OPT_INDENT_2).decode(),
            "cards": shown.cards_of(self.project, found.hits),
            "before": before,
            "after": after,
        }
        return self.show("console/project/text.html", context)


class Search(ProjectPage):
    """Looking for texts by words or a stored text (in the address), or a vector (in the body)."""

    tab = "search"
    parameters = frozenset({*_FILTER, "q", "text_id", "threshold", "limit", "unlike"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return what is like words or a stored text; only the form where there is neither."""
        search = self._like_text if "text_id" in request.GET else self._like_words
        if not (request.GET.get("q") or request.GET.get("text_id")):
            return self._page(SearchForm(initial=request.GET.dict()), VectorForm())
        form = SearchForm(request.GET)
        results = self._results(form, search) if form.is_valid() else {}
        return self._page(form, VectorForm(), results)

    def post(self, request: HttpRequest) -> HttpResponse:
        """Return what is like a vector."""
        form = VectorForm(request.POST)
        results = self._results(form, self._like_vector) if form.is_valid() else {}
        return self._page(SearchForm(), form, results)

    def _page(
        self, form: SearchForm, vector_form: VectorForm, results: dict[str, Any] | None = None
    ) -> HttpResponse:
        used = vector_form if vector_form.is_bound else form
        context = {
            "form": form,
            "vector_form": vector_form,
            "used": used,
            "by_id": "text_id" in self.request.GET,
            **(results or {}),
        }
        status = 400 if used.is_bound and used.errors else 200
        if self.is_partial("results"):
            return self.show("console/parts/results.html", context, status=status)
        return self.show("console/project/search.html", context, status=status)

    def _results(
        self, form: SearchForm, search: Callable[[dict[str, Any], Wanted], Found]
    ) -> dict[str, Any]:
        given = form.cleaned_data
        began = time.perf_counter()
        try:
            found = search(given, self._wanted(given))
        except NotFound:
            form.add_error("text_id", gettext("This project has no text with this id."))
            return {}
        except Unauthenticated:
            # Who searches by words may cost the owner money.
            raise
        except DomainError as error:
            refuse(form, error)
            return {}
        took_ms = (time.perf_counter() - began) * 1000
        return {
            "found": found,
            "cards": shown.cards_of(self.project, found.hits),
            "explanation": selectors.explanation_of(found),
            "took_ms": max(1, round(took_ms)),
            "given": given,
            "lower": self._lower(given),
        }

    def _wanted(self, given: dict[str, Any]) -> Wanted:
        exclusion = None
        if given["unlike"] and given["text_id"]:
            _, row = selectors.embedding_for(**self.where, text_id=given["text_id"])
            value = shown.value_at(row.metadata, given["unlike"])
            if value is not None:
                exclusion = Exclusion(tuple(given["unlike"].split(".")), value)
        return Wanted(
            limit=given["limit"],
            offset=0,
            threshold=given["threshold"],
            filter=given["condition"],
            exclusion=exclusion,
        )

    def _like_text(self, given: dict[str, Any], wanted: Wanted) -> Found:
        return selectors.similar_to(
            SessionCredentials(self.actor),
            owner=self.owner,
            handle=self.handle,
            text_id=given["text_id"],
            wanted=wanted,
        )

    def _like_words(self, given: dict[str, Any], wanted: Wanted) -> Found:
        return selectors.similar_to_words(
            SessionCredentials(self.actor),
            owner=self.owner,
            handle=self.handle,
            words=given["q"],
            wanted=wanted,
        )

    def _like_vector(self, given: dict[str, Any], wanted: Wanted) -> Found:
        return selectors.similar_to_query(
            SessionCredentials(self.actor),
            owner=self.owner,
            handle=self.handle,
            body=lambda: bytes(given["vector"]),
            wanted=wanted,
            for_words=wanted,
        )

    def _lower(self, given: dict[str, Any]) -> str | None:
        """Return the address of the same search without a least similarity."""
        if self.request.method != "GET" or not given["threshold"]:
            return None
        query = {**self.request.GET.dict(), "threshold": "0"}
        address = reverse("search", args=[self.owner, self.handle])
        return f"{address}?{urlencode(query)}"
