"""Ranks embeddings by the words of their texts.

Each word counts by how rare it is among the project's texts (its inverse document frequency), and
by PostgreSQL's `ts_rank`, which grows ever less with repetitions and is damped by the length of the
text. Texts that hold all that was asked for come first, then those with some of it, as far as the
caller wants them: they tell which share of the weight of all words a text has to hold. A word that
no text holds weighs the most.

The growing part is read row by row: a project's own rows, and no others. A sealed segment has an
index on the words of its texts; of what the index finds, at most 1000 rows are ranked. In both,
words are looked up that so few texts hold, as PostgreSQL's statistics and some texts of the growing
part tell. The others only count: taking the words of a text is what takes time, and nearly every
text holds one of a question's.
"""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from django.db import connection, transaction
from psycopg import sql

from embeddings.languages import DEFAULT, HISTORICAL
from embeddings.store._conditions import Conditions, conditions_of
from embeddings.store._lexemes import folded, lexemes, query
from embeddings.store._parts import VERSION, Parts, name_of, read, rows_of, trusted, words_index
from embeddings.store._segments import has_words
from embeddings.store._time import TookTooLong, within
from embeddings.store._values import Matrix, Wanted
from embeddings.store._wire import encode_vector
from embeddings.words import Words, any_of, quoted

# How many rows of a sealed segment are ranked at most.
_MOST_RANKED = 1_000
# Texts of a larger growing part that tell which words are frequent.
_SAMPLE = 100
# Of a long text that is searched with, the rarest words count.
_MOST_LEXEMES = 32
# Words that are shorter have too few trigrams; more of them take too long.
_SHORTEST_MISSPELLED, _MOST_MISSPELLED = 4, 4
# Seconds of looking for them.
_RESEMBLING_S = 0.5
# How much of a text its excerpt is taken from.
_EXCERPT_FROM = 20_000
# Languages whose lexemes stand in the text letter by letter, once it is folded.
_LITERAL = (None, DEFAULT, HISTORICAL)


@dataclass(frozen=True)
class Match:
    """A text found by its words; the scores of one search compare with each other only."""

    text_id: str
    score: float


@dataclass(frozen=True)
class Detail:
    """What is said of a result.

    similarity: to the vector that was given; None without one.
    fulfils: whether the text holds each quoted phrase, and no word that is not to be there.
    text: its beginning; "" where nobody asked for it. marked: the words in it that were looked for.
    """

    similarity: float | None
    fulfils: bool
    text: str
    marked: Sequence[str]


@dataclass(frozen=True)
class Analysed:
    """Words as a language has them.

    lexemes: what is looked for; empty where all of it goes without saying.
    shares: in which share of the texts each is, as far as statistics tell; of rare words they do
    not. literal: how each stands in a folded text. growing: how many texts the growing part has.
    """

    words: Words
    language: str | None
    lexemes: Sequence[str] = ()
    shares: Sequence[float] = ()
    literal: Sequence[str] = ()
    growing: int = 0


class _OtherLanguage(Exception):
    """The project's language was changed in between."""


def analyse(project_id: int, words: Words) -> Analysed:
    """Return words as the project's language has them: one statement."""
    seen: list[Parts] = []

    def statement(parts: Parts) -> sql.Composed:
        seen.append(parts)
        asked = f"tsvector_to_array({lexemes('%(positive)s::text', parts.language)})"
        known = "SELECT NULL::text AS word, NULL::float8 AS share WHERE false"
        if parts.segment is not None:
            known = (
                "SELECT unnest(most_common_elems::text::text[]) AS word,"
                " unnest(most_common_elem_freqs) AS share FROM pg_stats"
                " WHERE schemaname = current_schema()"
                f" AND tablename = '{words_index(parts.segment, parts.language)}'"
            )
        return trusted(
            "WITH counted AS MATERIALIZED (SELECT count(*) AS texts"
            " FROM embeddings_embedding_growing WHERE project_id = %(project)s),"
            f" sample AS MATERIALIZED (SELECT tsvector_to_array({lexemes('text', parts.language)})"
            " AS words FROM embeddings_embedding_growing WHERE project_id = %(project)s"
            f" AND (SELECT texts FROM counted) > {_MOST_RANKED} LIMIT {_SAMPLE})"
            " SELECT {version}, (SELECT texts FROM counted), asked.word,"
            " greatest(known.share, (SELECT count(*) FROM sample WHERE asked.word = ANY(words))"
            " / greatest((SELECT count(*) FROM sample), 1)::float8)::float8, unaccent(asked.word)"
            f" FROM (SELECT 1) AS one LEFT JOIN unnest({asked}) AS asked (word) ON true"
            f" LEFT JOIN ({known}) AS known ON known.word = asked.word"
            " ORDER BY 4, 3 LIMIT %(most)s"
        ).format(version=VERSION)

    parameters = {"positive": words.positive, "most": _MOST_LEXEMES}
    rows = read(project_id, statement, parameters)
    found = [row[1:] for row in rows if row[1] is not None]
    lexemes_of, shares, literal = zip(*found, strict=True) if found else ((), (), ())
    return Analysed(words, seen[-1].language, lexemes_of, shares, literal, growing=rows[0][0])


def matching(
    project_id: int, analysed: Analysed, wanted: Wanted, *, least_share: float, limit: int
) -> list[Match]:
    """Return the texts that hold the words, the best first, ties by text id: one statement.

    wanted: only its filter and its exclusion count.
    least_share: of the words' weight, in texts that do not hold all of them; 0 to 1.
    """
    if not analysed.lexemes:
        return []
    conditions = conditions_of(wanted.filter, wanted.exclusion)
    parameters = {
        "positive": analysed.words.positive,
        "whole": analysed.words.whole,
        "always": analysed.words.always,
        "lexemes": list(analysed.lexemes),
        "quoted": [quoted(each) for each in analysed.lexemes],
        "shares": list(analysed.shares),
        "limit": limit,
        "least": least_share,
        **conditions.parameters,
    }

    def statement(parts: Parts) -> sql.Composed:
        if parts.language != analysed.language:
            raise _OtherLanguage
        rare = _rare(analysed, parts)
        parameters["rare"] = any_of(rare)
        parameters["pattern"] = _pattern(analysed, rare)
        return trusted(_ranking(analysed, parts, conditions)).format(version=VERSION)

    try:
        rows = read(project_id, statement, parameters)
    except _OtherLanguage:
        again = analyse(project_id, analysed.words)
        return matching(project_id, again, wanted, least_share=least_share, limit=limit)
    return [Match(text_id, float(score)) for text_id, score in rows if text_id is not None]


def _rare(analysed: Analysed, parts: Parts) -> Sequence[str]:
    """Return the rarest lexemes, so many that about as many texts hold them as can be ranked.

    None where even of the rarest there are too many.
    """
    rare, expected = [], 0.0
    for lexeme, share in zip(analysed.lexemes, analysed.shares, strict=True):
        expected += share * (parts.rows + analysed.growing)
        if expected > _MOST_RANKED:
            break
        rare.append(lexeme)
    return rare


def _pattern(analysed: Analysed, rare: Sequence[str]) -> str:
    """Return a regular expression that a folded text matches if it holds what is looked up.

    That is any of the rare words; without one, all of the words, and so the rarest.
    """
    literal = analysed.literal
    if analysed.words.is_relaxed:
        literal = literal[: max(len(rare), 1)]
    return "|".join(re.sub(r"([^\w\s])", r"\\\1", each) for each in literal)


def _ranking(analysed: Analysed, parts: Parts, conditions: Conditions) -> str:
    language, is_relaxed = analysed.language, analysed.words.is_relaxed
    some = "(SELECT indexed FROM asked)" if is_relaxed else "(SELECT whole FROM asked)"
    # Each row is read once; its words are taken before they are compared, not once for each use.
    read_each = (
        f"SELECT text_id, lexemes FROM (SELECT text_id, {lexemes('text', language)} AS lexemes"
        f" FROM {{table}} AS embedding WHERE {{own}}{_may_hold(language)} {conditions.text}"
        f" OFFSET 0) AS each WHERE lexemes @@ {some}"
    )
    growing = read_each.format(table="embeddings_embedding_growing", own="project_id = %(project)s")
    found = growing
    if parts.segment is not None:
        found += (
            f" UNION ALL (SELECT text_id, {lexemes('text', language)}"
            f" FROM {name_of(parts.segment)} AS embedding"
            f" WHERE {lexemes('text', language)} @@ {some} {conditions.text}"
            f" LIMIT {_MOST_RANKED})"
        )
    always = query("%(always)s::text", language)
    return (
        "WITH asked AS MATERIALIZED ("
        f"SELECT {query('%(whole)s::text', language)} AS whole,"
        # Without a rare word, texts have to hold all of them.
        f" CASE WHEN %(rare)s::text = '' THEN {query('%(whole)s::text', language)}"
        f" ELSE %(rare)s::tsquery && {always} END AS indexed),"
        f" candidates AS MATERIALIZED ({found}),"
        f" counted AS MATERIALIZED (SELECT {parts.rows} + (SELECT count(*)"
        " FROM embeddings_embedding_growing WHERE project_id = %(project)s) AS texts),"
        " frequent AS (SELECT lexeme, texts, least(texts, greatest(share * texts,"
        " (SELECT count(*) FROM candidates WHERE lexemes @@ lexeme))) AS with_it FROM counted,"
        " unnest(%(quoted)s::tsquery[], %(shares)s::float8[]) AS given (lexeme, share)),"
        " weighed AS MATERIALIZED (SELECT lexeme,"
        " ln(1 + (texts - with_it + 0.5) / (with_it + 0.5)) AS weight FROM frequent),"
        " scored AS (SELECT text_id, lexemes @@ (SELECT whole FROM asked) AS is_whole,"
        " score, held / (SELECT sum(weight) FROM weighed) AS share FROM candidates,"
        " LATERAL (SELECT sum(weight * ts_rank(lexemes, lexeme, 1)) AS score,"
        " sum(weight) FILTER (WHERE lexemes @@ lexeme) AS held FROM weighed) AS sums)"
        " SELECT {version}, hits.text_id, hits.score FROM (SELECT 1) AS one LEFT JOIN ("
        "SELECT text_id, score, is_whole FROM scored WHERE is_whole OR share >= %(least)s"
        " ORDER BY is_whole DESC, score DESC, text_id LIMIT %(limit)s) AS hits ON true"
        " ORDER BY hits.is_whole DESC, hits.score DESC, hits.text_id"
    )


def _may_hold(language: str | None) -> str:
    """Return a condition on texts that is quicker than taking their words, and keeps the matches.

    A stemmed word may differ from its stem at any place; other words are looked for as they are.
    """
    if language not in _LITERAL:
        return ""
    return f" AND unaccent(lower({folded('text', language)})) ~ %(pattern)s"


def resembling(project_id: int, analysed: Analysed, wanted: Wanted, *, limit: int) -> list[Match]:
    """Return texts with words that are spelled much like those looked for, as `matching` does.

    Much: half of the trigrams of some words side by side, or more. None where finding out takes too
    long: the words of too many texts resemble those looked for, such as short ones.
    """
    words = sorted(
        (each for each in analysed.literal if len(each) >= _SHORTEST_MISSPELLED), key=len
    )[-_MOST_MISSPELLED:]
    if not words:
        return []
    conditions = conditions_of(wanted.filter, wanted.exclusion)
    text = folded("text", analysed.language)
    names = [f"%(word_{number})s" for number in range(len(words))]
    alike = " OR ".join(f"{text} %%>> {name}" for name in names)
    score = " + ".join(f"strict_word_similarity({name}, {text})" for name in names)
    always = ""
    if analysed.words.always:
        held = query("%(always)s::text", analysed.language)
        always = f" AND {lexemes('text', analysed.language)} @@ {held}"
    one = (
        f"(SELECT text_id, ({score}) / {len(words)} AS score FROM {{table}} AS embedding"
        f" WHERE {{own}} AND ({alike}){always} {conditions.text}"
        f" LIMIT {_MOST_RANKED})"
    )

    def statement(parts: Parts) -> sql.Composed:
        rows = one.format(table="embeddings_embedding_growing", own="project_id = %(project)s")
        # Without its index, comparing the spelling of every text would take too long.
        if parts.segment is not None and has_words(parts.segment, parts.language):
            rows += f" UNION ALL {one.format(table=name_of(parts.segment), own='true')}"
        return trusted(
            "SELECT {version}, hits.text_id, hits.score FROM (SELECT 1) AS one LEFT JOIN ("
            f"SELECT text_id, score FROM ({rows}) AS found ORDER BY score DESC, text_id"
            " LIMIT %(limit)s) AS hits ON true ORDER BY hits.score DESC, hits.text_id"
        ).format(version=VERSION)

    parameters = {
        **{f"word_{number}": word for number, word in enumerate(words)},
        "always": analysed.words.always,
        "limit": limit,
        **conditions.parameters,
    }
    # A statement that is stopped takes a transaction around it along.
    undoing = transaction.atomic() if connection.in_atomic_block else nullcontext()
    try:
        with undoing, within(_RESEMBLING_S):
            rows = read(project_id, statement, parameters)
    except TookTooLong:
        return []
    return [Match(text_id, float(found)) for text_id, found in rows if text_id is not None]


def details(
    project_id: int,
    text_ids: Sequence[str],
    analysed: Analysed,
    *,
    vector: Matrix | None,
    excerpts: bool,
) -> dict[str, Detail]:
    """Return what is said of results, those that are still there: one statement.

    vector: float32 of shape (dimensions,). excerpts: whether their texts are wanted.
    """
    language = analysed.language
    similarity = "NULL::float8" if vector is None else "1 - (vector <=> %(vector)s::vector)"
    fulfils = "true"
    if analysed.words.always:
        fulfils = f"{lexemes('text', language)} @@ {query('%(always)s::text', language)}"
    alike = ""
    if language == HISTORICAL:
        alike = (
            " OR EXISTS (SELECT 1 FROM unnest(%(literal)s::text[]) AS word"
            f" WHERE length(word) >= {_SHORTEST_MISSPELLED}"
            f" AND similarity(word, {folded('token', language)}) >= 0.5)"
        )
    # Compounds (15 to 17) come once more as their parts; 12 to 14 are no words.
    marked = (
        "(SELECT array_agg(token) FROM (SELECT DISTINCT token"
        f" FROM ts_parse('default', left(text, {_EXCERPT_FROM}))"
        " WHERE tokid NOT BETWEEN 12 AND 17) AS parsed"
        f" WHERE {lexemes('token', language)} @@ %(any)s::tsquery{alike})"
    )
    shown = f"left(text, {_EXCERPT_FROM}), {marked}" if excerpts else "'', NULL::text[]"

    def statement(parts: Parts) -> sql.Composed:
        return trusted(
            f"SELECT {{version}}, text_id, {similarity}, {fulfils}, {shown} FROM {{rows}}"
            " WHERE text_id = ANY(%(ids)s)"
        ).format(version=VERSION, rows=rows_of(parts.segment, "project_id, text_id, vector, text"))

    parameters = {
        "ids": list(text_ids),
        "vector": None if vector is None else encode_vector(vector),
        "always": analysed.words.always,
        "any": any_of(analysed.lexemes),
        "literal": list(analysed.literal),
    }
    return {
        text_id: Detail(similar, fulfilled, text, tokens or ())
        for text_id, similar, fulfilled, text, tokens in read(project_id, statement, parameters)
    }
