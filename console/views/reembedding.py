"""The model of a project: what it is, and the way to another one."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.utils.functional import cached_property
from django.utils.translation import gettext, gettext_lazy

from accounts.policy import Actor, Level, level_of
from common.errors import Conflict, DomainError, Forbidden, Invalid, NotFound
from console.model_forms import ChooseModelForm, CompareForm, EstimateForm
from console.pages import ProjectPage, refuse
from console.words import translated
from embeddings import reembedding
from embeddings.models import ReembeddingState
from llm_services.models import Instance
from llm_services.selectors import builtin_instance, instances_of
from projects import services
from projects.selectors import count_embeddings, warnings_about

_NEAREST = 10
_STEPS: dict[str, Callable[..., Any]] = {
    "pause": reembedding.pause,
    "resume": reembedding.resume,
    "switch": reembedding.switch,
    "rollback": reembedding.roll_back,
    "forget": reembedding.forget,
}
_DONE = {
    "pause": gettext_lazy("It pauses after the texts that are under way."),
    "resume": gettext_lazy("It goes on."),
    "switch": gettext_lazy("The vectors are exchanged in the background, in one moment."),
    "rollback": gettext_lazy("The former vectors return in the background, in one moment."),
    "forget": gettext_lazy("The vectors aside are deleted; the project stays as it is."),
}
_WORKING = {ReembeddingState.FILLING, ReembeddingState.SWITCHING, ReembeddingState.ROLLING_BACK}
_COMPARABLE = {ReembeddingState.READY, ReembeddingState.SWITCHED}


class ProjectModel(ProjectPage):
    """The model of a project, and its re-embedding; editors look, the owner decides."""

    tab = "settings"
    level = Level.EDITOR
    parameters = frozenset({"price", "compare"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the page; the part about a re-embedding alone where only that is wanted."""
        if self.is_partial("progress"):
            return self.show("console/project/progress.html", self._progress())
        return self._page()

    def post(self, request: HttpRequest) -> HttpResponse:
        """Base the project on another model of as many dimensions, or an empty one on any."""
        self.must_own()
        form = self._others(request.POST)
        if form.is_valid():
            chosen = form.chosen
            changes = {"instance_owner": chosen.owner.handle, "instance_handle": chosen.handle}
            try:
                services.update_project(**self.where, changes=changes)
            except DomainError as error:
                refuse(form, error, instance_handle="instance")
            else:
                said = gettext("The project is based on %(model)s now.")
                messages.success(request, said % {"model": chosen})
                return self.to("project-model")
        return self._page(change=form)

    def must_own(self) -> None:
        """Raise Forbidden for anybody but the owner and administrators."""
        if level_of(self.project) < Level.OWNER:
            raise Forbidden(
                gettext("Only the owner of %(project)s and administrators may do this.")
                % {"project": self.project}
            )

    def _page(self, **given: ChooseModelForm) -> HttpResponse:
        """Return the page, with the forms that were filled in wrongly in place of new ones."""
        is_owner = level_of(self.project) >= Level.OWNER
        context: dict[str, Any] = {
            "warnings": warnings_about(self.project),
            "is_owner": is_owner,
            **self._progress(),
        }
        if is_owner:
            context |= {"begin": self._choices(), "change": self._others()}
        if context["report"] is None:
            context |= self._estimate()
        context |= given
        status = 400 if given or context.get("price_form_is_wrong") else 200
        return self.show("console/project/model.html", context, status=status)

    def _choices(self, *given: Any) -> ChooseModelForm:
        """Return the form with the models that the project's owner may use, but that of now."""
        return ChooseModelForm(*given, instances=self._usable)

    def _others(self, *given: Any) -> ChooseModelForm:
        """Return the form with those that stored vectors can stay with: of as many dimensions."""
        count_embeddings(self.project)
        wanted = self.project.instance.dimensions
        is_empty = not self.project.number_of_embeddings  # type: ignore[attr-defined]
        usable = [each for each in self._usable if is_empty or each.dimensions == wanted]
        return ChooseModelForm(*given, instances=usable)

    @cached_property
    def _usable(self) -> list[Instance]:
        owner = Actor(user=self.project.owner)
        rows = [builtin_instance(), *instances_of(owner, self.project.owner.handle)]
        return [each for each in rows if each.pk != self.project.instance_id]

    def _progress(self) -> dict[str, Any]:
        """Return how far a re-embedding is, and what may be done about it."""
        try:
            report = reembedding.report_for(**self.where)
        except NotFound:
            return {"report": None}
        state = report.reembedding.state
        context: dict[str, Any] = {
            "report": report,
            "state": state,
            "done": max(0, report.rows - report.lacking),
            "is_working": state in _WORKING,
            "is_comparable": state in _COMPARABLE,
            "is_owner": level_of(self.project) >= Level.OWNER,
        }
        if "compare" in self.request.GET:
            context |= self._comparison()
        return context

    def _comparison(self) -> dict[str, Any]:
        form = CompareForm(self.request.GET)
        if not form.is_valid():
            raise Invalid(gettext("Compare with 1 to 200 texts."))
        queries = form.cleaned_data["compare"] or 1
        try:
            found = reembedding.comparison_for(**self.where, k=_NEAREST, queries=queries)
        except Conflict as error:
            return {"comparison_refused": translated(error.detail)}
        return {"comparison": found}

    def _estimate(self) -> dict[str, Any]:
        """Return what it would take, where that is asked for: all texts are read."""
        if "price" not in self.request.GET:
            return {"price_form": EstimateForm()}
        form = EstimateForm(self.request.GET)
        if not form.is_valid():
            return {"price_form": form, "price_form_is_wrong": True}
        price = form.cleaned_data["price"]
        estimate = reembedding.estimate_for(**self.where, price_per_million_tokens=price)
        return {"price_form": form, "estimate": estimate}


class Reembed(ProjectModel):
    """The beginning of a re-embedding."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Begin to embed the project's texts with another model, aside."""
        form = self._choices(request.POST)
        if form.is_valid():
            chosen = form.chosen
            try:
                reembedding.start(
                    **self.where, instance_owner=chosen.owner.handle, instance_handle=chosen.handle
                )
            except DomainError as error:
                refuse(form, error, instance_handle="instance")
            else:
                messages.success(
                    request,
                    gettext("The texts are embedded in the background. This page can be closed."),
                )
                return self.to("project-model")
        return self._page(begin=form)


class Step(ProjectModel):
    """What is done with a re-embedding."""

    http_method_names = ["post", "options"]
    level = Level.OWNER

    def post(self, request: HttpRequest) -> HttpResponse:
        """Pause, resume, switch, roll back, or forget."""
        step = request.POST.get("step", "")
        if step not in _STEPS:
            raise Invalid(gettext("Choose one of the steps that the page offers."))
        _STEPS[step](**self.where)
        messages.success(request, _DONE[step])
        return self.to("project-model")
