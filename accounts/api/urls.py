"""Addresses of the users resource under /v1."""

from django.urls import path

from accounts.api import views

urlpatterns = [
    path("users", views.Users.as_view()),
    path("users/<str:user>", views.OneUser.as_view()),
]
