"""The addresses of the pages."""

from django.urls import URLPattern, URLResolver, path, register_converter
from django.urls.converters import StringConverter

from console.views import dashboard, map, project, session, texts


class TextId(StringConverter):
    """The id of a text: the whole rest of the path, slashes and line breaks included."""

    regex = r"(?:.|\n)+"


register_converter(TextId, "text_id")

_PROJECT = "p/<str:owner>/<str:handle>"

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
    path(f"{_PROJECT}/sharing", project.Sharing.as_view(), name="sharing"),
    path(f"{_PROJECT}/sharing/remove", project.Unshare.as_view(), name="unshare"),
    path(f"{_PROJECT}/sharing/public", project.Public.as_view(), name="public"),
    path(f"{_PROJECT}/settings", project.Settings.as_view(), name="settings"),
    path(f"{_PROJECT}/settings/transfer", project.Transfer.as_view(), name="transfer"),
    path(f"{_PROJECT}/settings/delete", project.Delete.as_view(), name="delete"),
]
