"""Registers the project's own package, so that its commands (`up`, `serve`) are found."""

from importlib import import_module

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"

    def ready(self) -> None:
        """Register what the installation is examined for."""
        import_module("config.doctor")
