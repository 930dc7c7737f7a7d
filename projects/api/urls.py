"""Addresses of projects under /v1."""

from django.urls import path

from projects.api import views

_ONE = "projects/<str:owner>/<str:project>"

urlpatterns = [
    path("projects/<str:owner>", views.Projects.as_view()),
    path(_ONE, views.OneProject.as_view()),
    path(f"{_ONE}/share", views.Shares.as_view()),
    path(f"{_ONE}/share/<str:user>", views.OneShare.as_view()),
    path(f"{_ONE}/shared-with", views.SharedWith.as_view()),
    path(f"{_ONE}/transfer-ownership", views.Transfer.as_view()),
    path(f"{_ONE}/audit-log", views.AuditLog.as_view()),
]
