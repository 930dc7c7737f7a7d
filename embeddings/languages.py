"""The languages that a project's texts may be searched in by words. Knows no models.

Migration 0005 makes a text search configuration for each, `embeddings_<language>`: PostgreSQL's own
with accents and ligatures folded, once stop words are told by how they are spelled.
"""

DEFAULT = "simple"
HISTORICAL = "historical"

# Those that PostgreSQL 15 has a stemmer for.
STEMMED = (
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
)
LANGUAGES = (DEFAULT, HISTORICAL, *STEMMED)


def configuration(language: str) -> str:
    """Return the name of a language's text search configuration."""
    return f"embeddings_{language}"
