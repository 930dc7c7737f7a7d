"""Searching by words: a text search configuration for each language, and a project's choice."""

from django.db import migrations, models

STEMMED = [
    "arabic",
    "armenian",
    "basque",
    "catalan",
    "danish",
    "dutch",
    "english",
    "finnish",
    "french",
    "german",
    "greek",
    "hindi",
    "hungarian",
    "indonesian",
    "irish",
    "italian",
    "lithuanian",
    "nepali",
    "norwegian",
    "portuguese",
    "romanian",
    "russian",
    "serbian",
    "spanish",
    "swedish",
    "tamil",
    "turkish",
    "yiddish",
]
# PostgreSQL's lists of stop words have their accents, which are folded before words are stemmed.
WITH_ACCENTED_STOP_WORDS = [
    "danish",
    "dutch",
    "finnish",
    "french",
    "german",
    "hungarian",
    "italian",
    "norwegian",
    "portuguese",
    "russian",
    "spanish",
    "swedish",
    "turkish",
]


def _create(language):
    name, own = f"embeddings_{language}", language
    dictionaries = (
        "unaccent, simple" if language in ("simple", "historical") else f"unaccent, {language}_stem"
    )
    statements = []
    if language == "historical":
        own = "simple"
    if language in WITH_ACCENTED_STOP_WORDS:
        dictionaries = f"{name}_stop, {dictionaries}"
        statements.append(
            f"CREATE TEXT SEARCH DICTIONARY {name}_stop"
            f" (TEMPLATE = pg_catalog.simple, STOPWORDS = {language}, ACCEPT = false)"
        )
    statements += [
        f"CREATE TEXT SEARCH CONFIGURATION {name} (COPY = pg_catalog.{own})",
        f"ALTER TEXT SEARCH CONFIGURATION {name} ALTER MAPPING FOR hword, hword_part, word"
        f" WITH {dictionaries}",
    ]
    return statements


def _drop(language):
    name = f"embeddings_{language}"
    statements = [f"DROP TEXT SEARCH CONFIGURATION {name}"]
    if language in WITH_ACCENTED_STOP_WORDS:
        statements.append(f"DROP TEXT SEARCH DICTIONARY {name}_stop")
    return statements


_LANGUAGES = ["simple", "historical", *STEMMED]


class Migration(migrations.Migration):
    dependencies = [("embeddings", "0004_embedding_jobs")]

    operations = [
        migrations.RunSQL("CREATE EXTENSION IF NOT EXISTS unaccent", migrations.RunSQL.noop),
        migrations.RunSQL("CREATE EXTENSION IF NOT EXISTS pg_trgm", migrations.RunSQL.noop),
        migrations.RunSQL(
            [statement for language in _LANGUAGES for statement in _create(language)],
            [statement for language in _LANGUAGES for statement in _drop(language)],
        ),
        migrations.AddField(
            model_name="searchindex",
            name="search_language",
            field=models.CharField(
                blank=True,
                choices=[(each, each) for each in _LANGUAGES],
                help_text="What its texts are written in, for searching by words. Empty: words as "
                "they are, without an index.",
                max_length=20,
                null=True,
            ),
        ),
    ]
