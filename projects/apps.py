"""Registers the app, and what every new account gets from it."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_save


class ProjectsConfig(AppConfig):
    name = "projects"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Give new accounts their default project; tell accounts which projects they reach."""
        from accounts.models import User
        from accounts.selectors import reached_by
        from accounts.services import before_account_deletion
        from projects.selectors import projects_reached_by
        from projects.services import hold_projects_of

        reached_by["projects"] = projects_reached_by
        before_account_deletion.append(hold_projects_of)
        # A signal, because accounts are also made where no service of ours is called: Django's
        # own createsuperuser, for one.
        post_save.connect(_welcome, sender=User)


def _welcome(instance: Any, created: bool, raw: bool = False, **other: Any) -> None:
    from projects.default_project import ensure_default_project

    # `raw`: a fixture is being loaded, which brings the projects along.
    if created and not raw:
        ensure_default_project(instance)
