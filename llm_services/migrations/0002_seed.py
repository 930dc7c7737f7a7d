"""The API standards, definitions and the built-in instance that every installation starts with."""

from django.db import migrations

STANDARDS = [
    (
        "openai",
        "OpenAI embeddings API and those compatible with it",
        "auth_bearer",
        "Authorization",
    ),
    ("cohere", "Cohere embed API, version 2", "auth_bearer", "Authorization"),
    ("gemini", "Google Gemini API", "query_param", "key"),
    ("builtin", "A model that runs inside this server; needs no network and no key", "none", ""),
]

OPENAI = "https://api.openai.com/v1/embeddings"
DEFINITIONS = [
    ("openai-large", OPENAI, "text-embedding-3-large", 3072, 8192, "openai"),
    ("openai-small", OPENAI, "text-embedding-3-small", 1536, 8191, "openai"),
    ("cohere-v4", "https://api.cohere.com/v2/embed", "embed-v4.0", 1536, 128000, "cohere"),
    (
        "gemini-embedding-001",
        "https://generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:embedContent",
        "gemini-embedding-001",
        3072,
        2048,
        "gemini",
    ),
]


def seed(apps, schema_editor):
    standards, definitions, instances = (
        apps.get_model("llm_services", name) for name in ("ApiStandard", "Definition", "Instance")
    )
    system = apps.get_model("accounts", "User").objects.get(handle="_system")
    for handle, description, key_method, key_field in STANDARDS:
        standards.objects.get_or_create(
            handle=handle,
            defaults={
                "description": description,
                "key_method": key_method,
                "key_field": key_field,
            },
        )
    for handle, endpoint, model, dimensions, context_limit, standard in DEFINITIONS:
        definitions.objects.get_or_create(
            owner=system,
            handle=handle,
            defaults={
                "endpoint": endpoint,
                "model": model,
                "dimensions": dimensions,
                "context_limit": context_limit,
                "api_standard": standards.objects.get(handle=standard),
                "is_public": True,
            },
        )
    instances.objects.get_or_create(
        owner=system,
        handle="builtin",
        defaults={
            "endpoint": "builtin:universal-sentence-encoder-multilingual-3",
            "model": "universal-sentence-encoder-multilingual-3",
            "dimensions": 512,
            "api_standard": standards.objects.get(handle="builtin"),
            "description": (
                "Universal Sentence Encoder multilingual v3: 16 languages, on this server, "
                "for everybody."
            ),
        },
    )


class Migration(migrations.Migration):
    dependencies = [("llm_services", "0001_initial"), ("accounts", "0003_system_account")]
    operations = [migrations.RunPython(seed, migrations.RunPython.noop, elidable=False)]
