"""Which model made each vector; and second sets of vectors aside, for changing a project's model."""

import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
-- Copies that are being built aside lack the column: they are begun anew.
INSERT INTO embeddings_retiredsegment (segment, retired_at)
    SELECT building_segment, now() FROM embeddings_searchindex WHERE building_segment IS NOT NULL
    ON CONFLICT DO NOTHING;
UPDATE embeddings_searchindex SET building_segment = NULL, phase = ''
    WHERE building_segment IS NOT NULL;
ALTER TABLE embeddings_embedding ADD COLUMN model_id bigint;

ALTER TABLE embeddings_projectmodel ADD CONSTRAINT embeddings_projectmodel_project
    FOREIGN KEY (project_id) REFERENCES projects_project (id) ON DELETE CASCADE;

ALTER TABLE embeddings_reembedding ADD CONSTRAINT embeddings_reembedding_project
    FOREIGN KEY (project_id) REFERENCES projects_project (id) ON DELETE CASCADE;

-- Which models have made embeddings of a project; some of these may be gone by now.
CREATE FUNCTION embeddings_models_used(project bigint) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT model_id FROM embeddings_projectmodel WHERE project_id = project)
$$;

-- Not searched by similarity, so it has no graph. A text is told by its SHA-256: where it is
-- another by now, the vector is of no use.
CREATE TABLE embeddings_vectoraside (
    project_id bigint NOT NULL,
    generation integer NOT NULL,
    instance_id bigint NOT NULL,
    model_id bigint,
    text_id varchar(300) COLLATE "C" NOT NULL,
    text_digest bytea NOT NULL,
    vector vector NOT NULL,
    PRIMARY KEY (project_id, generation, text_id)
) WITH (toast_tuple_target = 8160);

CREATE FUNCTION embeddings_reembedding_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM embeddings_vectoraside WHERE project_id = OLD.project_id;
    IF OLD.building_segment IS NOT NULL THEN
        -- Its index may be under way: nobody reads it, so it can wait.
        INSERT INTO embeddings_retiredsegment (segment, retired_at)
            VALUES (OLD.building_segment, now()) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER embeddings_reembedding_deleted AFTER DELETE ON embeddings_reembedding
    FOR EACH ROW EXECUTE FUNCTION embeddings_reembedding_deleted();
"""

BACKWARD = """
DROP FUNCTION embeddings_models_used(bigint);
DROP TRIGGER embeddings_reembedding_deleted ON embeddings_reembedding;
DROP FUNCTION embeddings_reembedding_deleted();
DROP TABLE embeddings_vectoraside;
ALTER TABLE embeddings_reembedding DROP CONSTRAINT embeddings_reembedding_project;
ALTER TABLE embeddings_projectmodel DROP CONSTRAINT embeddings_projectmodel_project;
ALTER TABLE embeddings_embedding DROP COLUMN model_id;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("embeddings", "0005_search_language"),
        ("llm_services", "0005_embedding_model"),
        ("projects", "0003_default_projects"),
    ]

    operations = [
        migrations.CreateModel(
            name="ProjectModel",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("first_used_at", models.DateTimeField(auto_now_add=True)),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="llm_services.embeddingmodel",
                    ),
                ),
                (
                    "project",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="models_used",
                        to="projects.project",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(fields=["project", "model"], name="project_model_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="Reembedding",
            fields=[
                (
                    "project",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="reembedding",
                        serialize=False,
                        to="projects.project",
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("filling", "Filling"),
                            ("paused", "Paused"),
                            ("failed", "Failed"),
                            ("ready", "Ready"),
                            ("switching", "Switching"),
                            ("switched", "Switched"),
                            ("rolling_back", "Rolling Back"),
                        ],
                        default="filling",
                        max_length=20,
                    ),
                ),
                ("generation", models.PositiveIntegerField(default=1, editable=False)),
                ("building_segment", models.IntegerField(editable=False, null=True)),
                ("embedded", models.PositiveIntegerField(default=0, editable=False)),
                ("tokens", models.BigIntegerField(default=0, editable=False, null=True)),
                ("last_error", models.TextField(blank=True, default="", editable=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("switched_at", models.DateTimeField(editable=False, null=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                (
                    "instance",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="llm_services.instance",
                    ),
                ),
                (
                    "model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="llm_services.embeddingmodel",
                    ),
                ),
            ],
        ),
        migrations.RunSQL(
            FORWARD,
            BACKWARD,
            state_operations=[
                migrations.AddField(
                    model_name="embedding",
                    name="model",
                    field=models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="+",
                        to="llm_services.embeddingmodel",
                    ),
                ),
            ],
        ),
    ]
