"""The addresses of the pages."""

from django.urls import URLPattern, URLResolver, path, register_converter
from django.urls.converters import StringConverter

from console.views import (
    account,
    dashboard,
    jobs,
    manage,
    map,
    models,
    project,
    reembedding,
    resources,
    schema,
    session,
    texts,
    upload,
)


class TextId(StringConverter):
    """The id of a text: the whole rest of the path, slashes and line breaks included."""

    regex = r"(?:.|\n)+"


register_converter(TextId, "text_id")

_PROJECT = "p/<str:owner>/<str:handle>"
_ACCOUNT = "manage/accounts/<str:user>"
_UPLOAD = f"{_PROJECT}/upload/<uuid:job_id>"
_RESOURCES = f"{_PROJECT}/resources"
_MODEL = "models/<str:owner>/<str:handle>"
# No handle is as short as this.
_TEMPLATE = "models/t/<str:owner>/<str:handle>"


def _services(base: str, kind: models.Kind) -> list[URLPattern]:
    """Return the addresses of one model, or of one template."""
    pages = [
        ("", models.Service, ""),
        ("/edit", models.Edit, "edit-"),
        ("/share", models.ShareService, "share-"),
        ("/unshare", models.UnshareService, "unshare-"),
        ("/delete", models.DeleteService, "delete-"),
    ]
    return [
        path(f"{base}{end}", view.as_view(kind=kind), name=f"{prefix}{kind.page}")
        for end, view, prefix in pages
    ]


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
    path(f"{_PROJECT}/map", map.Map.as_view(), name="map"),
    path(f"{_PROJECT}/map/progress", map.Progress.as_view(), name="map-progress"),
    path(f"{_PROJECT}/map/points", map.Points.as_view(), name="map-points"),
    path(f"{_PROJECT}/map/colours", map.Colours.as_view(), name="map-colours"),
    path(f"{_PROJECT}/map/text", map.Text.as_view(), name="map-text"),
    path(f"{_PROJECT}/map/export", map.Export.as_view(), name="map-export"),
    path(f"{_PROJECT}/schema", schema.Schema.as_view(), name="schema"),
    path(f"{_PROJECT}/upload", upload.Upload.as_view(), name="upload"),
    path(_UPLOAD, upload.UploadFile.as_view(), name="upload-file"),
    path(f"{_UPLOAD}/cancel", upload.UploadCancel.as_view(), name="upload-cancel"),
    path(f"{_UPLOAD}/retry", upload.UploadRetry.as_view(), name="upload-retry"),
    path(f"{_UPLOAD}/rejected.csv", upload.UploadErrors.as_view(), name="upload-errors"),
    path(f"{_PROJECT}/sharing", project.Sharing.as_view(), name="sharing"),
    path(f"{_PROJECT}/audit-log", manage.ProjectAuditLog.as_view(), name="audit-log"),
    path(f"{_PROJECT}/sharing/remove", project.Unshare.as_view(), name="unshare"),
    path(f"{_PROJECT}/sharing/public", project.Public.as_view(), name="public"),
    path(f"{_PROJECT}/settings", project.Settings.as_view(), name="settings"),
    path(f"{_PROJECT}/settings/transfer", project.Transfer.as_view(), name="transfer"),
    path(f"{_PROJECT}/settings/delete", project.Delete.as_view(), name="delete"),
    path(f"{_PROJECT}/settings/model", reembedding.ProjectModel.as_view(), name="project-model"),
    path(f"{_PROJECT}/settings/model/reembed", reembedding.Reembed.as_view(), name="reembed"),
    path(f"{_PROJECT}/settings/model/step", reembedding.Step.as_view(), name="reembedding-step"),
    path(_RESOURCES, resources.Resources.as_view(), name="resources"),
    path(f"{_RESOURCES}/files/<uuid:uuid>/download", resources.Download.as_view(), name="download"),
    path(f"{_RESOURCES}/<str:kind>/new", resources.NewResource.as_view(), name="new-resource"),
    path(f"{_RESOURCES}/<str:kind>/<uuid:uuid>", resources.OneResource.as_view(), name="resource"),
    path(
        f"{_RESOURCES}/<str:kind>/<uuid:uuid>/delete",
        resources.DeleteResource.as_view(),
        name="delete-resource",
    ),
    path("models/", models.Models.as_view(), name="models"),
    path("models/new", models.New.as_view(), name="new-model"),
    path("models/new-template", models.New.as_view(kind=models.TEMPLATE), name="new-template"),
    *_services(_TEMPLATE, models.TEMPLATE),
    *_services(_MODEL, models.MODEL),
    path(f"{_MODEL}/test", models.Test.as_view(), name="test-model"),
    path("account/", account.Account.as_view(), name="account"),
    path("account/password", account.Password.as_view(), name="account-password"),
    path("account/keys", account.Keys.as_view(), name="account-keys"),
    path("account/keys/revoke", account.RevokeKey.as_view(), name="revoke-key"),
    path("account/sessions", account.Sessions.as_view(), name="account-sessions"),
    path("account/sessions/end", account.EndSession.as_view(), name="end-session"),
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
