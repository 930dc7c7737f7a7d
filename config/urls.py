"""Every address of the program."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponsePermanentRedirect
from django.urls import URLPattern, URLResolver, include, path

from accounts.api.urls import urlpatterns as accounts
from config import health
from config.documentation import Docs, Document
from config.limits import Limits
from config.manifest import Manifest
from config.metrics import Metrics
from console.urls import urlpatterns as console
from embeddings.api.urls import urlpatterns as embeddings
from llm_services.api.urls import aliases as llm_service_aliases
from llm_services.api.urls import urlpatterns as llm_services
from projects.api.own_urls import urlpatterns as own_projects
from projects.api.urls import urlpatterns as projects
from resources.api.urls import urlpatterns as resources

# Addresses are tried in this order: first those that are asked for most.
v1: list[URLPattern | URLResolver] = [
    *embeddings,
    *accounts,
    *llm_services,
    *llm_service_aliases,
    *projects,
    path("limits", Limits.as_view()),
]
# The Projects API stands at the root: its clients join their base address and such paths.
projects_api: list[URLPattern | URLResolver] = [*own_projects, *resources]


def to_admin(request: HttpRequest) -> HttpResponsePermanentRedirect:
    """Lead from /admin to /admin/: the admin's addresses are the only ones that end in a slash."""
    return HttpResponsePermanentRedirect("/admin/")


urlpatterns: list[URLPattern | URLResolver] = [
    path("v1/", include(v1)),
    path("v1", Manifest.as_view()),
    *projects_api,
    *console,
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("metrics", Metrics.as_view()),
    path("openapi.json", Document.as_view(), name="openapi"),
    path("openapi.yaml", Document.as_view(as_yaml=True)),
    path("docs", Docs.as_view(), name="docs"),
    path("admin", to_admin),
    path("admin/", admin.site.urls),
]

handler400 = "console.errors.bad_request"
handler403 = "console.errors.permission_denied"
handler404 = "console.errors.page_not_found"
handler500 = "console.errors.server_error"
