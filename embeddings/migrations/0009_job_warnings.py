"""What is odd about the vectors that an embedding job has stored."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("embeddings", "0008_import_jobs")]

    operations = [
        migrations.AddField(
            model_name="embeddingjob",
            name="warnings",
            field=models.JSONField(blank=True, db_default=[], default=list),
        ),
    ]
