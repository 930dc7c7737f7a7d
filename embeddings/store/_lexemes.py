"""What the words of a text are, spelled once for the index and for its queries.

PostgreSQL uses an index on an expression only for that very expression.
"""

from embeddings.languages import DEFAULT, HISTORICAL, configuration


def folded(text: str, language: str | None) -> str:
    """Return the SQL expression of a text as it is compared, for one that yields a text.

    In historical spelling, u and v, i and j, and w and vv are one letter each. Accents, ligatures
    and the long s are folded later, by the text search configuration, in every language.
    """
    if language != HISTORICAL:
        return text
    return f"replace(translate(lower({text}), 'vj', 'ui'), 'w', 'uu')"


def lexemes(text: str, language: str | None) -> str:
    """Return the SQL expression of a text's lexemes, with their positions."""
    return f"to_tsvector({_configuration(language)}, {folded(text, language)})"


def query(words: str, language: str | None) -> str:
    """Return the SQL expression of the `tsquery` that some words stand for."""
    return f"websearch_to_tsquery({_configuration(language)}, {folded(words, language)})"


def spelling(text: str, language: str | None) -> str:
    """Return the SQL expression of a text as trigrams are taken of it."""
    return folded(text, language)


def _configuration(language: str | None) -> str:
    return f"'{configuration(language or DEFAULT)}'::regconfig"
