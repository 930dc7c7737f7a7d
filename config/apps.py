"""Registers the project's own package, so that its commands (`up`, `serve`) are found."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"
