"""Addresses of the users resource under /v1."""

from django.urls import path

from accounts.api import audit_views, views

urlpatterns = [
    path("users", views.Users.as_view()),
    path("users/<str:user>", views.OneUser.as_view()),
    path("admin/audit-log", audit_views.AuditLog.as_view()),
]
