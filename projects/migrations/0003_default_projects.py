"""Gives a default project to every account that was made before accounts got one."""

from django.db import migrations

import common.models

BATCH = 1_000


def make_default_projects(apps, schema_editor):
    User = apps.get_model("accounts", "User")
    Project = apps.get_model("projects", "Project")
    Instance = apps.get_model("llm_services", "Instance")
    without = User.objects.exclude(handle="_system").exclude(projects__is_default=True)
    if not without.exists():
        return
    builtin = Instance.objects.get(owner__handle="_system", handle="builtin")
    Project.objects.bulk_create(
        (
            Project(
                uuid=common.models.uuid7(),
                owner=user,
                handle="default",
                name="Default Project",
                instance=builtin,
                is_default=True,
                metadata={
                    "is_default": True,
                    "description": "Holds whatever was made without naming a project.",
                },
            )
            for user in without
        ),
        batch_size=BATCH,
        ignore_conflicts=True,
    )


class Migration(migrations.Migration):
    dependencies = [
        ("projects", "0002_uuid_per_owner"),
        ("accounts", "0003_system_account"),
        ("llm_services", "0002_seed"),
    ]

    operations = [migrations.RunPython(make_default_projects, migrations.RunPython.noop)]
