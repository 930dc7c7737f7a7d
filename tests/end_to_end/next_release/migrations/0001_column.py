"""A column of the largest table: takes a lock that excludes everybody, for a moment."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("embeddings", "0001_initial")]
    operations = [
        migrations.RunSQL("ALTER TABLE embeddings_embedding ADD COLUMN next text DEFAULT 'new'")
    ]
