"""Addresses of projects in the Projects API."""

from django.urls import path

from projects.api import own_views as views

urlpatterns = [
    path("projects", views.OwnProjects.as_view()),
    path("projects/<str:id>", views.OwnProject.as_view()),
]
