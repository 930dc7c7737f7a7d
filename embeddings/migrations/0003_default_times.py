"""Rows that are copied into the table get the time of their transaction from the database."""

from django.db import migrations

_DEFAULT = """
    ALTER TABLE embeddings_embedding
        ALTER COLUMN created_at SET DEFAULT now(),
        ALTER COLUMN updated_at SET DEFAULT now()
"""
_NONE = """
    ALTER TABLE embeddings_embedding
        ALTER COLUMN created_at DROP DEFAULT,
        ALTER COLUMN updated_at DROP DEFAULT
"""


class Migration(migrations.Migration):
    dependencies = [("embeddings", "0002_search_index")]
    operations = [migrations.RunSQL(_DEFAULT, _NONE)]
