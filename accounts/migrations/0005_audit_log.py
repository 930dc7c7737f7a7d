from django.db import migrations, models

import common.models

# The audit log is written, and read. Its retention (`pruneauditlog`) says that it deletes.
_KEEP = """
    CREATE FUNCTION accounts_keep_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('armarium.audit_retention', true) = 'on' THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'The audit log is append-only: its entries are neither changed nor deleted.'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'manage.py pruneauditlog deletes what is older than some days.';
    END
    $$;
    CREATE TRIGGER keep_audit_log BEFORE UPDATE OR DELETE ON accounts_auditentry
        FOR EACH ROW EXECUTE FUNCTION accounts_keep_audit_log();
"""
_KEEP_NO_LONGER = """
    DROP TRIGGER keep_audit_log ON accounts_auditentry;
    DROP FUNCTION accounts_keep_audit_log();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_session"),
    ]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
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
                ("at", models.DateTimeField(auto_now_add=True)),
                ("request_id", models.CharField(blank=True, default="", max_length=40)),
                (
                    "via",
                    models.CharField(
                        choices=[
                            ("key", "API key"),
                            ("session", "Session in a browser"),
                            ("admin_key", "The configured admin key"),
                            ("command", "Command on the server"),
                            ("job", "Background job"),
                        ],
                        max_length=10,
                    ),
                ),
                ("actor", models.CharField(blank=True, default="", max_length=20)),
                ("actor_id", models.BigIntegerField(null=True)),
                (
                    "key_id",
                    models.CharField(blank=True, default="", max_length=32, verbose_name="key"),
                ),
                ("as_admin", models.BooleanField(default=False, verbose_name="as administrator")),
                ("verb", models.CharField(max_length=20)),
                ("kind", models.CharField(max_length=30)),
                ("subject", models.CharField(max_length=300)),
                ("subject_id", models.CharField(blank=True, default="", max_length=40)),
                ("owner", models.CharField(blank=True, default="", max_length=20)),
                ("project_id", models.BigIntegerField(null=True)),
                ("details", models.JSONField(default=dict)),
            ],
            options={
                "verbose_name": "audit log entry",
                "verbose_name_plural": "audit log",
                "ordering": ["-id"],
                "indexes": [
                    models.Index(fields=["project_id", "-id"], name="audit_of_project"),
                    models.Index(fields=["actor", "-id"], name="audit_by_actor"),
                    models.Index(fields=["at"], name="audit_by_time"),
                ],
            },
        ),
        migrations.RunSQL(_KEEP, _KEEP_NO_LONGER),
    ]
