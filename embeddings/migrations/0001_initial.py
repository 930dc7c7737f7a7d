"""The extension and the partitioned table of embeddings.

Django cannot create partitioned tables, so SQL does; the state operation tells Django what is there.
"""

import pgvector.django.vector
from django.db import migrations, models

import common.models

CREATE = """
CREATE TABLE embeddings_embedding (
    segment integer NOT NULL DEFAULT 0,
    project_id bigint NOT NULL REFERENCES projects_project (id) ON DELETE CASCADE,
    instance_id bigint NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    text_id varchar(300) COLLATE "C" NOT NULL,
    vector vector NOT NULL,
    text text NOT NULL,
    metadata jsonb NOT NULL,
    CONSTRAINT embedding_primary_key PRIMARY KEY (id, project_id, segment),
    CONSTRAINT embedding_text_id UNIQUE (project_id, text_id, segment)
) PARTITION BY LIST (segment);

-- A scan that has to fetch every vector from a side table takes three times as long, so rows stay
-- in one piece while a page holds them.
CREATE TABLE embeddings_embedding_growing PARTITION OF embeddings_embedding
    FOR VALUES IN (0) WITH (toast_tuple_target = 8160);
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ("llm_services", "0001_initial"),
        ("projects", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL("CREATE EXTENSION IF NOT EXISTS vector", migrations.RunSQL.noop),
        migrations.RunSQL(
            CREATE,
            "DROP TABLE embeddings_embedding",
            state_operations=[
                migrations.CreateModel(
                    name="Embedding",
                    fields=[
                        (
                            "id",
                            models.UUIDField(
                                default=common.models.uuid7,
                                editable=False,
                                primary_key=True,
                                serialize=False,
                            ),
                        ),
                        ("segment", models.IntegerField(default=0, editable=False)),
                        ("text_id", models.CharField(db_collation="C", max_length=300)),
                        ("vector", pgvector.django.vector.VectorField()),
                        ("text", models.TextField(blank=True, default="")),
                        ("metadata", models.JSONField(blank=True, default=dict)),
                        ("created_at", models.DateTimeField(auto_now_add=True)),
                        ("updated_at", models.DateTimeField(auto_now=True)),
                        (
                            "instance",
                            models.ForeignKey(
                                db_constraint=False,
                                db_index=False,
                                on_delete=models.deletion.DO_NOTHING,
                                related_name="+",
                                to="llm_services.instance",
                            ),
                        ),
                        (
                            "project",
                            models.ForeignKey(
                                db_index=False,
                                on_delete=models.deletion.CASCADE,
                                related_name="embeddings",
                                to="projects.project",
                            ),
                        ),
                    ],
                    options={
                        "ordering": ["text_id"],
                        "constraints": [
                            models.UniqueConstraint(
                                fields=["project", "text_id", "segment"],
                                name="embedding_text_id",
                            )
                        ],
                    },
                ),
            ],
        ),
    ]
