"""The metadata schema of a project: reading, drafting, trying and changing it."""

import json
import re
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext

from accounts.policy import Level, level_of
from common.errors import DomainError, Forbidden
from console.forms import SchemaForm
from console.pages import ProjectPage, refuse
from embeddings import schemas
from embeddings.schemas import Trial
from projects import services
from projects.metadata import InvalidSchema

_keyword = re.compile("the keyword (\\S+) cannot be (.+); correct it")


class Schema(ProjectPage):
    """What the metadata of the project's texts must look like."""

    tab = "schema"
    parameters = frozenset({"draft"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the schema; on demand, a draft of one from what is stored."""
        schema = self.project.metadata_schema
        if "draft" not in request.GET:
            return self._page(SchemaForm(initial={"schema": schema}))
        draft = schemas.draft_for(**self.where)
        form = SchemaForm(initial={"schema": draft.schema})
        return self._page(form, {"draft": draft})

    def post(self, request: HttpRequest) -> HttpResponse:
        """Compare a schema with what is stored, and save it where that is what was asked for."""
        if level_of(self.project) < Level.OWNER:
            raise Forbidden(gettext("Only the owner of a project changes its schema."))
        form = SchemaForm(request.POST)
        if not form.is_valid():
            return self._page(form, status=400)
        schema = form.cleaned_data["schema"]
        try:
            trial = self._trial(schema, after=form.cleaned_data["after"])
        except InvalidSchema as error:
            form.add_error("schema", _with_line(str(error), schema))
            return self._page(form, status=400)
        wants_to_save = "save" in request.POST
        may_break = "anyway" in request.POST
        if not (wants_to_save or may_break):
            return self._page(form, {"trial": trial})
        if trial is not None and (trial.broken or not trial.is_complete) and not may_break:
            return self._page(form, {"trial": trial, "asked": True})
        try:
            services.update_project(**self.where, changes={"metadataScheme": schema or None})
        except DomainError as error:
            refuse(form, error, metadataScheme="schema")
            return self._page(form, status=400)
        said = gettext("The schema is saved.") if schema else gettext("The schema is removed.")
        messages.success(request, said)
        return self.to("schema")

    def _trial(self, schema: str, *, after: str) -> Trial | None:
        return schemas.try_schema(**self.where, schema=schema, after=after) if schema else None

    def _page(
        self, form: SchemaForm, context: dict[str, Any] | None = None, *, status: int = 200
    ) -> HttpResponse:
        values = {
            "form": form,
            "may_change": level_of(self.project) >= Level.OWNER,
            "lines": _lines(form),
            **(context or {}),
        }
        if self.is_partial("trial"):
            return self.show("console/parts/schema_trial.html", values, status=status)
        return self.show("console/project/schema.html", values, status=status)


def _lines(form: SchemaForm) -> int:
    """Return how high the field should be."""
    return min(40, max(12, str(form["schema"].value() or "").count("\n") + 2))


def _with_line(problem: str, schema: str) -> str:
    """Return what is wrong with a schema, with the line in which it is where that can be told."""
    try:
        json.loads(schema)
    except json.JSONDecodeError as error:
        return gettext("Line %(line)d, column %(column)d: %(problem)s") % {
            "line": error.lineno,
            "column": error.colno,
            "problem": problem,
        }
    except (ValueError, RecursionError):
        return problem
    named = _keyword.search(problem)
    if named is None:
        return problem
    # Where the keyword has this value; in several places, nobody knows which is meant.
    wrong = re.compile(rf'"{re.escape(named[1])}"\s*:\s*"?{re.escape(named[2][:20])}')
    lines = [number for number, line in enumerate(schema.splitlines(), 1) if wrong.search(line)]
    if len(lines) != 1:
        return problem
    return gettext("Line %(line)d: %(problem)s") % {"line": lines[0], "problem": problem}
