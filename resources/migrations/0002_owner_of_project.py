"""A resource belongs to whom its project belongs to: the database keeps it so.

Django has no foreign keys on two columns. When a project changes hands, PostgreSQL changes the
owner of what is in it, too.
"""

from django.db import migrations

TABLES = ("agent", "enduser", "file")


class Migration(migrations.Migration):
    dependencies = [
        ("resources", "0001_initial"),
        ("projects", "0002_uuid_per_owner"),
    ]

    operations = [
        migrations.RunSQL(
            f"""
            ALTER TABLE resources_{table} ADD CONSTRAINT {table}_of_the_projects_owner
            FOREIGN KEY (project_id, owner_id) REFERENCES projects_project (id, owner_id)
            ON UPDATE CASCADE
            """,
            f"ALTER TABLE resources_{table} DROP CONSTRAINT {table}_of_the_projects_owner",
        )
        for table in TABLES
    ]
