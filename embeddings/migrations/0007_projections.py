"""Projects' vectors laid out in a plane, for their maps."""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
ALTER TABLE embeddings_projection ADD CONSTRAINT embeddings_projection_project
    FOREIGN KEY (project_id) REFERENCES projects_project (id) ON DELETE CASCADE;
-- Numbers do not compress, and the ids come compressed.
ALTER TABLE embeddings_projection ALTER COLUMN points SET STORAGE EXTERNAL,
    ALTER COLUMN text_ids SET STORAGE EXTERNAL;
"""

BACKWARD = """
ALTER TABLE embeddings_projection DROP CONSTRAINT embeddings_projection_project;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("embeddings", "0006_models_and_reembedding"),
        ("projects", "0003_default_projects"),
    ]

    operations = [
        migrations.CreateModel(
            name="Projection",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "method",
                    models.CharField(choices=[("pca", "PCA"), ("umap", "UMAP")], max_length=10),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("running", "Running"),
                            ("ready", "Ready"),
                            ("failed", "Failed"),
                        ],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                ("progress", models.FloatField(default=0)),
                ("error", models.TextField(blank=True, default="")),
                ("number", models.PositiveIntegerField(default=0)),
                ("rows", models.PositiveIntegerField(default=0)),
                ("count", models.PositiveIntegerField(default=0)),
                ("fingerprint", models.BigIntegerField(null=True)),
                ("instance_id", models.BigIntegerField(null=True)),
                ("explained_x", models.FloatField(null=True)),
                ("explained_y", models.FloatField(null=True)),
                ("text_ids", models.BinaryField(default=bytes)),
                ("points", models.BinaryField(default=bytes)),
                ("made_at", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="projections",
                        to="projects.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["project", "method"], name="projection_once")
                ],
            },
        ),
        migrations.RunSQL(FORWARD, BACKWARD),
    ]
