"""An index that is built while everybody writes."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("next_release", "0002_filled")]
    operations = [
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY next_release_handle ON projects_project (handle)"
        )
    ]
