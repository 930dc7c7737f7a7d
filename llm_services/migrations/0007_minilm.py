"""The definition of the second built-in model, which an administrator may install."""

from django.db import migrations


def seed(apps, schema_editor):
    standards, definitions = (
        apps.get_model("llm_services", name) for name in ("ApiStandard", "Definition")
    )
    system = apps.get_model("accounts", "User").objects.get(handle="_system")
    definitions.objects.get_or_create(
        owner=system,
        handle="minilm-l6-v2",
        defaults={
            "endpoint": "builtin:all-MiniLM-L6-v2",
            "model": "all-MiniLM-L6-v2",
            "dimensions": 384,
            "context_limit": 256,
            "api_standard": standards.objects.get(handle="builtin"),
            "description": "A small model for English, on this server, once it is installed.",
            "is_public": True,
        },
    )


class Migration(migrations.Migration):
    dependencies = [("llm_services", "0006_encryption_check")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop, elidable=False)]
