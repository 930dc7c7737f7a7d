"""The addresses of the pages."""

from django.urls import URLPattern, URLResolver, path, register_converter
from django.urls.converters import StringConverter

from console.views import dashboard, jobs, manage, project, session, texts


class TextId(StringConverter):
    """The id of a text: the whole rest of the path, slashes and line breaks included."""

    regex = r"(?:.|\n)+"


register_converter(TextId, "text_id")

_PROJECT = "p/<str:owner>/<str:handle>"
_ACCOUNT = "manage/accounts/<str:user>"

urlpatterns: list[URLPattern | URLResolver] = [
    path("", dashboard.Projects.as_view(), name="projects"),
    path("new-project", dashboard.NewProject.as_view(), name="new-project"),
    path("sign-in", session.SignIn.as_view(), name="sign-in"),
    path("sign-out", session.SignOut.as_view(), name="sign-out"),
    path("appearance", session.Appearance.as_view(), name="appearance"),
    path(_PROJECT, project.to_overview),
    path(f"{_PROJECT}/", project.Overview.as_view(), name="overview"),
    path(f"{_PROJECT}/texts", texts.Texts.as_view(), name="texts"),
    path(f"{_PROJECT}/texts/<text_id:text_id>", texts.Text.as_view(), name="text"),
    path(f"{_PROJECT}/search", texts.Search.as_view(), name="search"),
    path(f"{_PROJECT}/sharing", project.Sharing.as_view(), name="sharing"),
    path(f"{_PROJECT}/audit-log", manage.ProjectAuditLog.as_view(), name="audit-log"),
    path(f"{_PROJECT}/sharing/remove", project.Unshare.as_view(), name="unshare"),
    path(f"{_PROJECT}/sharing/public", project.Public.as_view(), name="public"),
    path(f"{_PROJECT}/settings", project.Settings.as_view(), name="settings"),
    path(f"{_PROJECT}/settings/transfer", project.Transfer.as_view(), name="transfer"),
    path(f"{_PROJECT}/settings/delete", project.Delete.as_view(), name="delete"),
    path("jobs/", jobs.Jobs.as_view(), name="jobs"),
    path("jobs/act", jobs.JobAction.as_view(), name="job-action"),
    path("manage/", manage.Manage.as_view(), name="manage"),
    path("manage/doctor", manage.Doctor.as_view(), name="manage-doctor"),
    path("manage/sanity-check", manage.Sanity.as_view(), name="manage-sanity"),
    path("manage/audit-log", manage.AuditLog.as_view(), name="manage-audit"),
    path("manage/accounts", manage.Accounts.as_view(), name="manage-accounts"),
    path("manage/new-account", manage.NewAccount.as_view(), name="manage-new-account"),
    path(_ACCOUNT, manage.Account.as_view(), name="manage-account"),
    path(f"{_ACCOUNT}/access", manage.AccountAccess.as_view(), name="manage-access"),
    path(f"{_ACCOUNT}/password", manage.AccountPassword.as_view(), name="manage-password"),
    path(f"{_ACCOUNT}/delete", manage.AccountDeletion.as_view(), name="manage-delete"),
]
