"""Columns of tables that every request reads: takes locks that exclude everybody for a moment."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("embeddings", "0001_initial"), ("projects", "0001_initial")]
    operations = [
        migrations.RunSQL("ALTER TABLE projects_project ADD COLUMN next text DEFAULT 'new'"),
        migrations.RunSQL("ALTER TABLE embeddings_embedding ADD COLUMN next text DEFAULT 'new'"),
    ]
