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
from console.forms import SearchForm, TextsForm, VectorForm
from console.pages import ProjectPage, refuse
from embeddings import filters, selectors
from embeddings.filters import Condition
from embeddings.hybrid import Asked, Mode
from embeddings.selectors import Exclusion, Found, FusedFound, Order, Row, Wanted

PAGE = 25
_NEIGHBOURS = 8
_FACETS = 20
_FILTER = ("key", "value", "filter")
_KEPT = (*_FILTER, "sort", "order")


class Texts(ProjectPage):
    """A page of texts in some order."""

    tab = "texts"
    parameters = frozenset({*_KEPT, "after"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return those that the filter keeps, after the place where the page before ended."""
        form = TextsForm(request.GET)
        context: dict[str, Any] = {"form": form}
        status = 200
        if form.is_valid():
            context |= self._listed(form)
        else:
            status = 400
        if self.is_partial("texts"):
            return self.show("console/parts/texts.html", context, status=status)
        return self.show("console/project/texts.html", context, status=status)

    def _listed(self, form: TextsForm) -> dict[str, Any]:
        condition, key = form.cleaned_data["condition"], form.cleaned_data["key"]
        cursor = self.request.GET.get("after")
        after = None if cursor is None else key_of(cursor)
        rows, total, following = self._part(form.order_of_texts, after, condition)
        kept = {name: self.request.GET[name] for name in _KEPT if self.request.GET.get(name)}
        next_page = None
        if following is not None:
            next_page = f"?{urlencode({**kept, 'after': cursor_after(following)})}"
        return {
            "cards": [shown.card_of(row) for row in rows],
            "total": total,
            "filtered": condition is not None,
            "next": next_page,
            "first": f"?{urlencode(kept)}" if cursor is not None else None,
            "keys": _keys(rows),
            **self._facets(key, kept),
        }

    def _part(
        self, order: Order, after: str | None, condition: Condition | None
    ) -> tuple[list[Row], int | None, str | None]:
        """Return some texts, how many there are in all, and what the next page begins after."""
        if order == Order():
            # An index has them in this order.
            place: dict[str, Any] = {"offset": 0} if after is None else {"after": after}
            listing = selectors.embeddings_of(
                **self.where, limit=PAGE, condition=condition, **place
            )
            rows = listing.rows()
            return rows, listing.total, listing.last if listing.has_more else None
        part = selectors.sorted_embeddings_of(
            **self.where, order=order, limit=PAGE, after=after, condition=condition
        )
        return part.rows, part.total, part.following

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


def _keys(rows: list[Row]) -> list[str]:
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
    parameters = frozenset({*_FILTER, "q", "mode", "text_id", "threshold", "limit", "unlike"})

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
        self, form: SearchForm, search: Callable[[dict[str, Any], Wanted], Found | FusedFound]
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
        if isinstance(found, FusedFound):
            vectors, cards = found.vectors, shown.fused_cards_of(self.project, found.fused.hits)
        else:
            vectors, cards = found, shown.cards_of(self.project, found.hits)
        return {
            "found": found,
            "ranking": None if vectors is None else vectors.ranking,
            "cards": cards,
            "explanation": None if vectors is None else selectors.explanation_of(vectors),
            "took_ms": max(1, round(took_ms)),
            "given": given,
            "lower": self._lower(given),
            "by_meaning": self._by_meaning(given),
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

    def _like_words(self, given: dict[str, Any], wanted: Wanted) -> Found | FusedFound:
        if given["mode"] is not Mode.VECTOR:
            return selectors.matching_words(
                SessionCredentials(self.actor),
                owner=self.owner,
                handle=self.handle,
                words=given["q"],
                asked=Asked(given["mode"], threshold=given["threshold"] or None),
                wanted=wanted,
            )
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

    def _by_meaning(self, given: dict[str, Any]) -> str | None:
        """Return the address of the same search by meaning, where words alone were looked for."""
        if given["mode"] is not Mode.TEXT or not given["q"]:
            return None
        query = {**self.request.GET.dict(), "mode": Mode.VECTOR.value}
        return f"{reverse('search', args=[self.owner, self.handle])}?{urlencode(query)}"
