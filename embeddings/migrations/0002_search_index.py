"""Sealed segments: where each project's index is, and what deletes a project's rows.

The foreign key from embeddings to projects goes: an upload locks its project's row once, which is
all that the check of each row would do, and a table that carries the key cannot be attached as a
partition without locking projects against writes. Deleting a project still deletes its embeddings,
whoever deletes it: a trigger does, in one step for a sealed segment however many rows it has.
"""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

FORWARD = """
ALTER TABLE embeddings_embedding DROP CONSTRAINT embeddings_embedding_project_id_fkey;

-- Without statistics the planner takes each project for a small part of the rows, and reads it by
-- its index. With those of yesterday it would at times read everybody's rows instead.
ALTER TABLE embeddings_embedding_growing ALTER COLUMN project_id SET STATISTICS 0;

CREATE SEQUENCE embeddings_segment_number AS integer MINVALUE 1;

ALTER TABLE embeddings_searchindex ADD CONSTRAINT embeddings_searchindex_project
    FOREIGN KEY (project_id) REFERENCES projects_project (id) ON DELETE CASCADE;

-- Empties a sealed segment in one step, and leaves the table to be dropped later: statements that
-- still name it find no rows rather than no table. Whoever reads it for long, such as an export,
-- is not waited for: then its rows are deleted one by one.
CREATE FUNCTION embeddings_retire_segment(number integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    patience text := current_setting('lock_timeout');
    name text := 'embeddings_embedding_' || number;
BEGIN
    INSERT INTO embeddings_retiredsegment (segment, retired_at) VALUES (number, now())
        ON CONFLICT DO NOTHING;
    IF to_regclass(name) IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('lock_timeout', '500ms', true);
    BEGIN
        EXECUTE format('TRUNCATE %I', name);
    EXCEPTION WHEN lock_not_available THEN
        EXECUTE format('DELETE FROM %I', name);
    END;
    PERFORM set_config('lock_timeout', patience, true);
END
$$;

-- Counts a project's rows where they are. A statement about all partitions may have looked for them
-- before a segment took another's place, and then finds the old one empty and not the new one.
CREATE FUNCTION embeddings_count(project bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    before record;
    version xid;
    growing bigint;
    sealed bigint;
BEGIN
    LOOP
        SELECT segment, xmin AS version INTO before
            FROM embeddings_searchindex WHERE project_id = project;
        sealed := 0;
        IF before.segment IS NULL THEN
            SELECT count(*) INTO growing
                FROM embeddings_embedding_growing WHERE project_id = project;
        ELSE
            -- One statement, since rows move from one part to the other.
            EXECUTE format(
                'SELECT (SELECT count(*) FROM embeddings_embedding_growing WHERE project_id = $1),'
                ' (SELECT count(*) FROM %I)', 'embeddings_embedding_' || before.segment
            ) INTO growing, sealed USING project;
        END IF;
        SELECT xmin INTO version FROM embeddings_searchindex WHERE project_id = project;
        EXIT WHEN version IS NOT DISTINCT FROM before.version;
    END LOOP;
    RETURN growing + sealed;
END
$$;

CREATE FUNCTION embeddings_index_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.segment IS NOT NULL THEN
        PERFORM embeddings_retire_segment(OLD.segment);
    END IF;
    IF OLD.building_segment IS NOT NULL THEN
        -- Its index may be under way: nobody reads it, so it can wait.
        INSERT INTO embeddings_retiredsegment (segment, retired_at)
            VALUES (OLD.building_segment, now()) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER embeddings_index_deleted AFTER DELETE ON embeddings_searchindex
    FOR EACH ROW EXECUTE FUNCTION embeddings_index_deleted();

CREATE FUNCTION embeddings_project_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM embeddings_embedding_growing WHERE project_id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER embeddings_project_deleted AFTER DELETE ON projects_project
    FOR EACH ROW EXECUTE FUNCTION embeddings_project_deleted();
"""

BACKWARD = """
DROP TRIGGER embeddings_project_deleted ON projects_project;
DROP FUNCTION embeddings_project_deleted();
DROP TRIGGER embeddings_index_deleted ON embeddings_searchindex;
DROP FUNCTION embeddings_index_deleted();
DROP FUNCTION embeddings_count(bigint);
DROP FUNCTION embeddings_retire_segment(integer);
DROP SEQUENCE embeddings_segment_number;
ALTER TABLE embeddings_embedding_growing ALTER COLUMN project_id SET STATISTICS -1;
ALTER TABLE embeddings_embedding ADD CONSTRAINT embeddings_embedding_project_id_fkey
    FOREIGN KEY (project_id) REFERENCES projects_project (id) ON DELETE CASCADE;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("embeddings", "0001_initial"),
        ("projects", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="RetiredSegment",
            fields=[
                ("segment", models.IntegerField(primary_key=True, serialize=False)),
                ("retired_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="SearchIndex",
            fields=[
                (
                    "project",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="search_index",
                        serialize=False,
                        to="projects.project",
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("exact", "Exact"),
                            ("building", "Building"),
                            ("indexed", "Indexed"),
                        ],
                        default="exact",
                        editable=False,
                        max_length=10,
                    ),
                ),
                ("segment", models.IntegerField(editable=False, null=True, unique=True)),
                ("building_segment", models.IntegerField(editable=False, null=True)),
                (
                    "m",
                    models.PositiveSmallIntegerField(
                        default=16,
                        help_text="Links of each text in the graph: 2 to 100. More find better, "
                        "and take more memory.",
                        validators=[
                            django.core.validators.MinValueValidator(2),
                            django.core.validators.MaxValueValidator(100),
                        ],
                    ),
                ),
                (
                    "ef_construction",
                    models.PositiveSmallIntegerField(
                        default=64,
                        help_text="Candidates while building: 4 to 1000, at least twice m. More "
                        "find better, and take longer to build.",
                        validators=[
                            django.core.validators.MinValueValidator(4),
                            django.core.validators.MaxValueValidator(1000),
                        ],
                    ),
                ),
                (
                    "ef_search",
                    models.PositiveSmallIntegerField(
                        blank=True,
                        help_text="Candidates of a search: 10 to 1000. Empty: the fewest that reach the "
                        "target recall.",
                        null=True,
                        validators=[
                            django.core.validators.MinValueValidator(10),
                            django.core.validators.MaxValueValidator(1000),
                        ],
                    ),
                ),
                (
                    "target_recall",
                    models.FloatField(
                        default=0.98,
                        help_text="The recall@10 that searches should reach: 0.5 to 0.999.",
                        validators=[
                            django.core.validators.MinValueValidator(0.5),
                            django.core.validators.MaxValueValidator(0.999),
                        ],
                    ),
                ),
                ("built_m", models.PositiveSmallIntegerField(editable=False, null=True)),
                (
                    "built_ef_construction",
                    models.PositiveSmallIntegerField(editable=False, null=True),
                ),
                (
                    "built_dimensions",
                    models.PositiveSmallIntegerField(editable=False, null=True),
                ),
                (
                    "measured_ef_search",
                    models.PositiveSmallIntegerField(editable=False, null=True),
                ),
                ("measured_recall", models.FloatField(editable=False, null=True)),
                (
                    "phase",
                    models.CharField(blank=True, default="", editable=False, max_length=20),
                ),
                ("last_error", models.TextField(blank=True, default="", editable=False)),
                ("rebuild_requested", models.BooleanField(default=False, editable=False)),
                ("built_at", models.DateTimeField(editable=False, null=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
            ],
            options={"verbose_name": "search index", "verbose_name_plural": "search indexes"},
        ),
        migrations.RunSQL(
            FORWARD,
            BACKWARD,
            state_operations=[
                migrations.AlterField(
                    model_name="embedding",
                    name="project",
                    field=models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="embeddings",
                        to="projects.project",
                    ),
                ),
            ],
        ),
    ]
