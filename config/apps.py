"""Registers the project's own package, so that its commands (`up`, `serve`) are found."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"

    def ready(self) -> None:
        """Have requests logged with the address they come from."""
        from django_structlog.signals import bind_extra_request_metadata

        from config.logs import note_address

        bind_extra_request_metadata.connect(note_address)
