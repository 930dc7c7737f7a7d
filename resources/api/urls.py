"""Addresses of agents, end users and files in the Projects API."""

from django.urls import path

from resources.api import views

urlpatterns = [
    path("agents", views.Agents.as_view()),
    path("agents/models", views.AgentModels.as_view()),
    path("agents/<str:id>", views.OneAgent.as_view()),
    path("users", views.EndUsers.as_view()),
    path("users/<str:id>", views.OneEndUser.as_view()),
    path("files", views.Files.as_view()),
    path("files/<str:id>", views.OneFile.as_view()),
]
