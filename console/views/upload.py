"""Bringing texts in a file: choosing it, saying what its columns are, watching it being stored."""

import csv
import io
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from accounts.policy import Level
from common.errors import DomainError, Invalid
from common.spreadsheets import harmless
from console.forms import UploadForm
from console.pages import ProjectPage
from console.words import translated
from embeddings import import_jobs
from embeddings.files import Column, Use, Uses, shown
from embeddings.models import ImportJob

_RECENT = 10
_PROBLEMS = 20
_DETAILS = 6
_USES = {
    Use.ID: gettext_lazy("The id"),
    Use.TEXT: gettext_lazy("The text"),
    Use.VECTOR: gettext_lazy("The vector"),
    Use.OBJECT: gettext_lazy("Metadata: all of its keys"),
    Use.VALUE: gettext_lazy("Metadata"),
    Use.STRING: gettext_lazy("Metadata, as text"),
    Use.NUMBER: gettext_lazy("Metadata, as number"),
    Use.BOOLEAN: gettext_lazy("Metadata, as true or false"),
    Use.NO: gettext_lazy("Leave it out"),
}
_KINDS = {
    "text": gettext_lazy("text"),
    "number": gettext_lazy("numbers"),
    "boolean": gettext_lazy("true or false"),
    "object": gettext_lazy("objects"),
    "list": gettext_lazy("lists"),
    "mixed": gettext_lazy("of several kinds"),
    "empty": gettext_lazy("empty at first"),
}


class _UploadPage(ProjectPage):
    """A page for those who may add texts."""

    tab = "texts"
    level = Level.EDITOR

    def job(self, job_id: UUID) -> ImportJob:
        """Return one upload of the project."""
        return import_jobs.import_job_for(**self.where, job_id=job_id)

    def to_job(self, job: ImportJob) -> HttpResponse:
        """Return the way to the page of an upload."""
        return HttpResponseRedirect(reverse("upload-file", args=[self.owner, self.handle, job.pk]))


# The token is in a body that may be very large: it is read once we know that they may send it.
@method_decorator(csrf_exempt, name="dispatch")
class Upload(_UploadPage):
    """Choosing a file, or pasting what it would hold; and the uploads so far."""

    bulk_media_types = frozenset({"multipart/form-data"})
    tells_too_large = True

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the form."""
        return self._form(UploadForm())

    @method_decorator(csrf_protect)
    def post(self, request: HttpRequest) -> HttpResponse:
        """Keep the file, and go on to its columns."""
        form = UploadForm(request.POST, request.FILES)
        if form.is_valid():
            given = form.cleaned_data
            try:
                job = import_jobs.offer(**self.where, **given["offered"])
            except DomainError as error:
                form.add_error("pasted" if given["pasted"] else "file", translated(error.detail))
            else:
                return self.to_job(job)
        return self._form(form, status=400)

    def _form(self, form: UploadForm, *, status: int = 200) -> HttpResponse:
        recent = import_jobs.import_jobs_of(**self.where)[:_RECENT]
        context = {"form": form, "recent": recent, "most_bytes": import_jobs.most_bytes()}
        return self.show("console/project/upload.html", context, status=status)


class UploadFile(_UploadPage):
    """One file: what its columns are for, then how far it is, then what became of it."""

    parameters = frozenset({"seen"})

    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Return the columns with a guess at each, or how far it is."""
        job = self.job(job_id)
        if job.is_draft:
            guesses = {each.name: each.guess for each in import_jobs.columns_of(job)}
            return self._columns(job, guesses, replacing=False)
        return self._progress(job)

    def post(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Have the rows stored; or, on demand, only show again what would be."""
        job = self.job(job_id)
        columns = import_jobs.columns_of(job)
        chosen = {
            each.name: _use(request.POST.get(f"use-{number}", each.guess))
            for number, each in enumerate(columns)
        }
        replacing = request.POST.get("existing") == "replace"
        if "check" in request.POST:
            return self._columns(job, chosen, replacing=replacing)
        try:
            uses = Uses(chosen)
        except Invalid:
            return self._columns(job, chosen, replacing=replacing, status=400)
        import_jobs.begin(**self.where, job_id=job_id, uses=uses, replacing=replacing)
        return self.to_job(job)

    def _columns(
        self, job: ImportJob, chosen: dict[str, Use], *, replacing: bool, status: int = 200
    ) -> HttpResponse:
        columns = import_jobs.columns_of(job)
        context = {
            "job": job,
            "columns": [
                {
                    "column": each,
                    "field": f"use-{number}",
                    "kind": _kind(each),
                    "chosen": chosen[each.name],
                }
                for number, each in enumerate(columns)
            ],
            "uses": [(use, _USES[use]) for use in _offered(job)],
            "replacing": replacing,
            "embedded": Use.VECTOR not in chosen.values(),
            **self._preview(job, chosen, columns),
        }
        if self.is_partial("preview"):
            return self.show("console/parts/upload_preview.html", context, status=status)
        return self.show("console/project/upload_columns.html", context, status=status)

    def _preview(
        self, job: ImportJob, chosen: dict[str, Use], columns: Sequence[Column]
    ) -> dict[str, Any]:
        dimensions = self.project.instance.dimensions
        others = [
            each
            for each in columns
            if each.length > 1 and each.length != dimensions and chosen[each.name] is not Use.VALUE
        ]
        try:
            rows = import_jobs.preview(job, Uses(chosen))
        except DomainError as error:
            return {"wrong": translated(error.detail), "others": others}
        shown_rows = [
            {
                "row": row,
                "text": shown(row.text),
                "details": [(key, shown(value)) for key, value in row.metadata.items()][:_DETAILS],
                "more": max(0, len(row.metadata) - _DETAILS),
            }
            for row in rows
        ]
        bad = sum(1 for row in rows if row.problem)
        return {"preview": shown_rows, "bad": bad, "others": others}

    def _progress(self, job: ImportJob) -> HttpResponse:
        done = None if job.fraction is None else int(100 * job.fraction)
        context = {
            "job": job,
            "percent": done,
            "left": _left(job),
            # Said aloud once for every tenth.
            "step": f"{job.state} {(done or 0) // 10 * 10}",
            "seen": self.request.GET.get("seen", ""),
            "problems": [] if job.is_active else list(job.problems.all()[:_PROBLEMS]),
            "refreshed": self.is_partial("progress"),
        }
        if self.is_partial("progress"):
            return self.show("console/parts/upload_progress.html", context)
        return self.show("console/project/upload_progress.html", context)


class UploadCancel(_UploadPage):
    """Stopping an upload."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Stop it, or forget a file whose rows nobody asked to be stored."""
        job = import_jobs.cancel(**self.where, job_id=job_id)
        if not job.uses:
            messages.success(request, gettext("The file is discarded."))
            return self.to("upload")
        messages.success(request, gettext("Stopped. What was stored before stays."))
        return self.to_job(job)


class UploadRetry(_UploadPage):
    """Going on with an upload that stopped."""

    http_method_names = ["post", "options"]

    def post(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Go on where it stopped."""
        return self.to_job(import_jobs.retry(**self.where, job_id=job_id))


class UploadErrors(_UploadPage):
    """The rows that could not be stored, as a table to be kept."""

    def get(self, request: HttpRequest, job_id: UUID) -> HttpResponse:
        """Return row, id and reason of each as CSV."""
        job = self.job(job_id)
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["row", "text_id", "reason"])
        for each in job.problems.all().iterator():
            writer.writerow([each.row, harmless(each.text_id), harmless(each.reason)])
        # Marked, so that spreadsheets read it as UTF-8.
        response = HttpResponse(
            table.getvalue().encode("utf-8-sig"), content_type="text/csv; charset=utf-8"
        )
        response.headers["Content-Disposition"] = f'attachment; filename="rejected-{job.pk}.csv"'
        return response


def _use(value: str) -> Use:
    try:
        return Use(value)
    except ValueError as error:
        raise Invalid(gettext("A column cannot be used like this.")) from error


def _offered(job: ImportJob) -> list[Use]:
    """Return what the columns of a file can be for: what is in CSV are texts at first."""
    left_out = {Use.VALUE} if job.format == "csv" else {Use.NUMBER, Use.BOOLEAN}
    return [use for use in _USES if use not in left_out]


def _kind(column: Column) -> str:
    if column.kind == "numbers":
        return gettext("lists of %(number)d numbers") % {"number": column.length}
    return str(_KINDS[column.kind])


def _left(job: ImportJob) -> int | None:
    """Return how many seconds an upload will probably take yet, None where nobody knows."""
    if not (job.is_active and job.started_at and job.fraction and job.fraction > 0.02):
        return None
    took_s = (timezone.now() - job.started_at).total_seconds()
    return max(1, round(took_s / job.fraction * (1 - job.fraction)))
