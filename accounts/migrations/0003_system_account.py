"""The account `_system` owns what the program brings along; it can never sign in."""

from django.db import migrations


def create(apps, schema_editor):
    user = apps.get_model("accounts", "User")
    user.objects.get_or_create(
        # Django's mark of a password that nobody can have.
        handle="_system",
        defaults={"name": "Armarium", "is_active": False, "password": "!"},
    )


class Migration(migrations.Migration):
    dependencies = [("accounts", "0002_key_project")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop, elidable=False)]
