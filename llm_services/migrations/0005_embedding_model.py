"""Which models instances have used: rows of their own, so that vectors can refer to them."""

import hashlib

import django.db.models.deletion
import orjson
from django.db import migrations, models


def find_models(apps, schema_editor):
    known = apps.get_model("llm_services", "EmbeddingModel").objects
    for instance in apps.get_model("llm_services", "Instance").objects.select_related(
        "api_standard"
    ):
        values = {
            "api_standard": instance.api_standard.handle,
            "endpoint": instance.endpoint,
            "model": instance.model,
            "dimensions": instance.dimensions,
        }
        # As Service.fingerprint has it.
        fingerprint = hashlib.sha256(orjson.dumps(list(values.values()))).digest()
        instance.embedding_model, _ = known.get_or_create(fingerprint=fingerprint, defaults=values)
        instance.save(update_fields=["embedding_model"])


class Migration(migrations.Migration):
    dependencies = [("llm_services", "0004_more_providers")]

    operations = [
        migrations.CreateModel(
            name="EmbeddingModel",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("fingerprint", models.BinaryField(max_length=32, unique=True)),
                ("api_standard", models.CharField(max_length=20)),
                ("endpoint", models.CharField(max_length=2000)),
                ("model", models.CharField(max_length=255)),
                ("dimensions", models.PositiveIntegerField()),
                ("first_used_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={"verbose_name": "embedding model", "ordering": ["model", "pk"]},
        ),
        migrations.AddField(
            model_name="instance",
            name="embedding_model",
            field=models.ForeignKey(
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="instances",
                to="llm_services.embeddingmodel",
            ),
        ),
        migrations.RunPython(find_models, migrations.RunPython.noop),
        # What the foreign key has put off until the end would keep the column from being changed.
        migrations.RunSQL("SET CONSTRAINTS ALL IMMEDIATE", migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="instance",
            name="embedding_model",
            field=models.ForeignKey(
                editable=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="instances",
                to="llm_services.embeddingmodel",
            ),
        ),
    ]
