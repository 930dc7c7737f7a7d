"""The console as Django knows it."""

from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    """Pages for people."""

    name = "console"
