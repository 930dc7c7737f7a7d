"""Registers the app."""

from importlib import import_module

from django.apps import AppConfig


class LlmServicesConfig(AppConfig):
    name = "llm_services"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "LLM services"

    def ready(self) -> None:
        """Tell accounts which instances they reach; register what keys are examined for."""
        from accounts.selectors import reached_by
        from llm_services.selectors import instances_reached_by

        reached_by["instances"] = instances_reached_by
        import_module("llm_services.doctor")
