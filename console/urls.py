"""The addresses of the pages."""

from django.urls import URLPattern, URLResolver, path, register_converter
from django.urls.converters import StringConverter

from console.views import dashboard, project, schema, session, texts, upload


class TextId(StringConverter):
    """The id of a text: the whole rest of the path, slashes and line breaks included."""

    regex = r"(?:.|\n)+"


register_converter(TextId, "text_id")

_PROJECT = "p/<str:owner>/<str:handle>"
_UPLOAD = f"{_PROJECT}/upload/<uuid:job_id>"

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
    path(f"{_PROJECT}/schema", schema.Schema.as_view(), name="schema"),
    path(f"{_PROJECT}/upload", upload.Upload.as_view(), name="upload"),
    path(_UPLOAD, upload.UploadFile.as_view(), name="upload-file"),
    path(f"{_UPLOAD}/cancel", upload.UploadCancel.as_view(), name="upload-cancel"),
    path(f"{_UPLOAD}/retry", upload.UploadRetry.as_view(), name="upload-retry"),
    path(f"{_UPLOAD}/rejected.csv", upload.UploadErrors.as_view(), name="upload-errors"),
    path(f"{_PROJECT}/sharing", project.Sharing.as_view(), name="sharing"),
    path(f"{_PROJECT}/sharing/remove", project.Unshare.as_view(), name="unshare"),
    path(f"{_PROJECT}/sharing/public", project.Public.as_view(), name="public"),
    path(f"{_PROJECT}/settings", project.Settings.as_view(), name="settings"),
    path(f"{_PROJECT}/settings/transfer", project.Transfer.as_view(), name="transfer"),
    path(f"{_PROJECT}/settings/delete", project.Delete.as_view(), name="delete"),
]
