"""Registers the app, and what happens to resources when projects and files go."""

from django.apps import AppConfig
from django.db.models.signals import post_delete


class ResourcesConfig(AppConfig):
    name = "resources"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Decide what becomes of a deleted project's resources, and of a deleted row's bytes."""
        from projects.selectors import grouped
        from projects.services import before_deletion
        from resources.models import KINDS, File
        from resources.services import forget_content, settle_resources

        grouped.extend(KINDS)
        before_deletion.append(settle_resources)
        # A signal, because rows go with their account as well, which knows nothing of files.
        post_delete.connect(forget_content, sender=File)
