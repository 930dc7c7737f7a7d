"""Addresses of API standards, definitions and instances under /v1.

Clients of two generations name definitions and instances differently, so both have an alias; the
OpenAPI document shows the first name only.
"""

from collections.abc import Iterator

from django.urls import URLPattern, path

from llm_services.api import views


def _definitions(base: str) -> Iterator[URLPattern]:
    one = f"{base}/<str:owner>/<str:handle>"
    yield path(f"{base}/<str:owner>", views.Definitions.as_view())
    yield path(one, views.OneDefinition.as_view())
    yield path(f"{one}/share", views.DefinitionShares.as_view())
    yield path(f"{one}/share/<str:user>", views.OneDefinitionShare.as_view())
    yield path(f"{one}/shared-with", views.DefinitionSharedWith.as_view())


def _instances(base: str) -> Iterator[URLPattern]:
    one = f"{base}/<str:owner>/<str:handle>"
    yield path(f"{base}/<str:owner>", views.Instances.as_view())
    yield path(f"{base}/<str:owner>/from-definition", views.FromDefinition.as_view())
    yield path(one, views.OneInstance.as_view())
    yield path(f"{one}/share", views.InstanceShares.as_view())
    yield path(f"{one}/share/<str:user>", views.OneInstanceShare.as_view())
    yield path(f"{one}/shared-with", views.InstanceSharedWith.as_view())
    yield path(f"{one}/test", views.InstanceTrial.as_view())


urlpatterns = [
    path("api-standards", views.Standards.as_view()),
    path("api-standards/<str:standard>", views.OneStandard.as_view()),
    *_definitions("llm-service-definitions"),
    *_instances("llm-services"),
]
aliases = [*_definitions("llm-definitions"), *_instances("llm-instances")]
