import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [("procrastinate", "0041_post_retry_failed_job")]

    operations = [
        migrations.CreateModel(
            name="JobFailure",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="failure",
                        serialize=False,
                        to="procrastinate.procrastinatejob",
                    ),
                ),
                ("reason", models.TextField()),
                ("failed_at", models.DateTimeField()),
            ],
        ),
        # Procrastinate deletes jobs in SQL, so that the database has to delete what belongs to them.
        migrations.RunSQL(
            "ALTER TABLE common_jobfailure ADD CONSTRAINT common_jobfailure_job"
            " FOREIGN KEY (job_id) REFERENCES procrastinate_jobs (id) ON DELETE CASCADE",
            "ALTER TABLE common_jobfailure DROP CONSTRAINT common_jobfailure_job",
        ),
    ]
