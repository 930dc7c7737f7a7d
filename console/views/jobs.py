"""What goes on in the background: looking at it, stopping it, trying it again."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.translation import gettext

from accounts.policy import require_admin
from common import jobs
from common.errors import Conflict, Invalid, NotFound
from console import work
from console.pages import Page
from console.words import translated
from embeddings import embedding_jobs, indexes, reembedding


class Jobs(Page):
    """What is running, waiting, failed and done."""

    needs_account = True
    parameters = frozenset({"seen"})

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return what goes on in the projects that one edits."""
        groups = work.groups_for(self.actor)
        counts = {group.state: len(group.works) for group in groups}
        told = "-".join(str(counts[state]) for state in (work.RUNNING, work.WAITING, work.FAILED))
        context = {
            "groups": groups,
            "counts": counts,
            "told": told,
            # A screen reader is told again only when there is something new.
            "is_news": request.GET.get("seen", told) != told,
            "is_admin": self.actor.is_admin,
        }
        if self.is_partial("jobs"):
            return self.show("console/parts/jobs.html", {**context, "is_part": True})
        return self.show("console/jobs.html", context)


class JobAction(Page):
    """Doing something about one of them."""

    http_method_names = ["post", "options"]
    needs_account = True

    def post(self, request: HttpRequest) -> HttpResponse:
        """Do it by the service that the API calls, and go back to the list."""
        kind, action = request.POST.get("kind", ""), request.POST.get("action", "")
        does = self._actions().get((kind, action))
        if does is None:
            raise Invalid(gettext("The list of jobs has no such button; load it again."))
        try:
            does()
        except (Conflict, NotFound) as refusal:
            # It went on meanwhile: the list shows how it is now.
            messages.warning(request, translated(refusal.detail))
        else:
            messages.success(request, self._said(action))
        return HttpResponseRedirect(reverse("jobs"))

    def _actions(self) -> dict[tuple[str, str], Callable[[], Any]]:
        return {
            ("texts", "cancel"): lambda: embedding_jobs.cancel(**self._where, job_id=self._job),
            ("texts", "retry"): lambda: embedding_jobs.retry(**self._where, job_id=self._job),
            ("texts", "forget"): lambda: embedding_jobs.delete(**self._where, job_id=self._job),
            ("index", "retry"): lambda: indexes.try_again(**self._where),
            ("model", "pause"): lambda: reembedding.pause(**self._where),
            ("model", "resume"): lambda: reembedding.resume(**self._where),
            ("model", "cancel"): lambda: reembedding.forget(**self._where),
            ("job", "retry"): self._retry_job,
        }

    @property
    def _where(self) -> dict[str, Any]:
        given = self.request.POST
        return {
            "actor": self.actor,
            "owner": given.get("owner", ""),
            "handle": given.get("handle", ""),
        }

    @property
    def _job(self) -> UUID:
        try:
            return UUID(self.request.POST.get("id", ""))
        except ValueError as error:
            raise NotFound(gettext("There is no such job.")) from error

    def _retry_job(self) -> None:
        require_admin(self.actor)
        number = self.request.POST.get("id", "")
        if not (number.isascii() and number.isdigit() and len(number) < 19):
            raise NotFound(gettext("There is no such job."))
        jobs.retry(int(number))

    @staticmethod
    def _said(action: str) -> str:
        return {
            "cancel": gettext("It is cancelled."),
            "retry": gettext("It is tried again."),
            "forget": gettext("It is forgotten."),
            "pause": gettext("It pauses after the texts that are under way."),
            "resume": gettext("It goes on."),
        }[action]
