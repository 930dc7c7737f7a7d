"""Registers the app, and what it has to say before lower apps change things."""

from importlib import import_module

from django.apps import AppConfig


class EmbeddingsConfig(AppConfig):
    name = "embeddings"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Guard the dimensions and the models of stored embeddings."""
        from embeddings.model_guard import warnings_about
        from embeddings.services import refuse_new_dimensions, refuse_other_dimensions
        from llm_services.services import before_dimensions_change
        from projects.selectors import remarks
        from projects.services import before_instance_change

        remarks.append(warnings_about)
        before_dimensions_change.append(refuse_new_dimensions)
        before_instance_change.append(refuse_other_dimensions)
        import_module("embeddings.doctor")
