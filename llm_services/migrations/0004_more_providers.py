"""API standards and definitions of further providers, most of them on machines of one's own."""

from django.db import migrations

STANDARDS = [
    ("ollama", "Ollama's own embed API", "auth_bearer", "Authorization"),
    ("voyage", "Voyage AI embeddings API", "auth_bearer", "Authorization"),
]

DEFINITIONS = [
    (
        "mistral-embed",
        "https://api.mistral.ai/v1/embeddings",
        "mistral-embed",
        1024,
        8192,
        "openai",
    ),
    ("ollama-nomic", "http://localhost:11434/api/embed", "nomic-embed-text", 768, 2048, "ollama"),
    ("vllm-bge-m3", "http://localhost:8000/v1/embeddings", "BAAI/bge-m3", 1024, 8192, "openai"),
    ("voyage-3-5", "https://api.voyageai.com/v1/embeddings", "voyage-3.5", 1024, 32000, "voyage"),
]


def seed(apps, schema_editor):
    standards, definitions = (
        apps.get_model("llm_services", name) for name in ("ApiStandard", "Definition")
    )
    system = apps.get_model("accounts", "User").objects.get(handle="_system")
    for handle, description, key_method, key_field in STANDARDS:
        # An administrator may have made one of the name already.
        if not standards.objects.filter(handle__iexact=handle).exists():
            standards.objects.create(
                handle=handle, description=description, key_method=key_method, key_field=key_field
            )
    for handle, endpoint, model, dimensions, context_limit, standard in DEFINITIONS:
        if not definitions.objects.filter(owner=system, handle__iexact=handle).exists():
            definitions.objects.create(
                owner=system,
                handle=handle,
                endpoint=endpoint,
                model=model,
                dimensions=dimensions,
                context_limit=context_limit,
                api_standard=standards.objects.get(handle__iexact=standard),
                is_public=True,
            )


class Migration(migrations.Migration):
    dependencies = [("llm_services", "0003_embedded_text")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop, elidable=False)]
