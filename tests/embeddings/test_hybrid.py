# ruff: noqa: RUF001 – letters of other times and alphabets
"""Searching by words, and by words and vectors together."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.embeddings import large
from tests.factories import Answer, Caller, Cast, item, make_project
from tests.jobs import run_jobs

LETTERS = "/v1/embeddings/alice/letters"
SIMILARS = "/v1/similars/alice/letters"
INDEX = "/v1/projects/alice/letters/index"

TEXTS = {
    "mona": "The Mona Lisa is a portrait painted by Leonardo da Vinci.",
    "supper": "The Last Supper, painted in Milan, is a mural by Leonardo da Vinci.",
    "starry": "The Starry Night was painted by Vincent van Gogh; it shows a village.",
    "lisa": "Lisa had a garden and no portrait.",
    "war": "The war lasted thirty years.",
}


def upload(
    cast: Cast, texts: dict[str, str], *, project: str = "letters", **fields: dict[str, Any]
) -> None:
    items = [
        item(text_id, [1, number, 1], text=text, metadata=fields.get(text_id, {}))
        for number, (text_id, text) in enumerate(texts.items())
    ]
    answer = cast.alice.post(f"/v1/embeddings/alice/{project}", {"embeddings": items})
    assert answer.status == 201, answer.body


def speak(cast: Cast, language: str | None) -> None:
    answer = cast.alice.patch(INDEX, {"search_language": language})
    assert answer.status == 200, answer.body
    assert answer["settings"]["search_language"] == language


def by_words(caller: Caller, words: str, **query: Any) -> Answer:
    return caller.get(f"{SIMILARS}?{urlencode({'q': words, 'mode': 'text', **query})}")


def hybrid(caller: Caller, words: str, vector: list[float], **query: Any) -> Answer:
    asked = urlencode({"mode": "hybrid", **query})
    return caller.post(f"{SIMILARS}?{asked}", {"text": words, "vector": vector})


def ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.body
    return [hit["id"] for hit in answer["results"]]


def found(caller: Caller, words: str, **query: Any) -> list[str]:
    return ids(by_words(caller, words, **query))


@pytest.fixture
def letters(cast: Cast) -> Cast:
    upload(cast, TEXTS)
    return cast


@pytest.fixture
def english(letters: Cast) -> Cast:
    speak(letters, "english")
    return letters


# --- What is found --------------------------------------------------------------------------------
def test_texts_that_hold_all_words_come_first_and_then_those_with_rare_ones(english: Cast) -> None:
    by_question = found(english.rita, "who painted the portrait of Mona Lisa?")
    assert by_question[:2] == ["mona", "lisa"]
    assert set(by_question) == {"mona", "lisa", "supper", "starry"}
    assert set(found(english.rita, "painting")) == {"mona", "supper", "starry"}


def test_words_are_taken_as_they_are_where_nobody_named_a_language(letters: Cast) -> None:
    everything = found(letters.rita, "PAINTED villäge")
    assert everything[0] == "starry"
    assert set(everything) == {"starry", "mona", "supper"}
    assert found(letters.rita, "painting") == []


def test_a_result_says_where_it_stands_and_shows_the_words(english: Cast) -> None:
    (hit,) = by_words(english.rita, "villages")["results"]
    assert hit == {
        "id": "starry",
        "similarity": None,
        "score": pytest.approx(1 / 61),
        "ranks": {"vector": None, "text": 1},
        "highlight": "The Starry Night was painted by Vincent van Gogh; it shows a "
        "<mark>village</mark>.",
    }


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('"Leonardo da Vinci" mural', {"supper", "mona"}),
        ('"Vinci Leonardo"', set()),
        ('"thirty years', {"war"}),
        ("painted -Leonardo", {"starry"}),
        ('painted -"da Vinci"', {"starry"}),
        ("war OR garden", {"war", "lisa"}),
        ("war or peace", {"war"}),
        ("the of and", set()),
        ("-painted", set()),
        ("zyzzyva", set()),
        ("OR OR - -- \" '", set()),
        ("!!! & | <-> :* ()", set()),
    ],
)
def test_words_may_be_quoted_excluded_and_alternatives(
    english: Cast, words: str, expected: set[str]
) -> None:
    assert set(found(english.rita, words)) == expected


@pytest.mark.parametrize(
    "words",
    [
        "'; DROP TABLE embeddings_embedding; --",
        "war'::tsquery",
        "war' | 'x",
        "war\\",
        "war:*A & !",
        "%(project)s %s {0} {version} $1",
        "(war|[a-z]+)?* \\m{2}",
        "𝔴𝔞𝔯 \u202e\u0301 war",
        "war " * 2000,
    ],
)
@pytest.mark.parametrize("language", [None, "english", "historical"])
def test_nothing_that_can_be_typed_is_more_than_words(
    letters: Cast, language: str | None, words: str
) -> None:
    speak(letters, language)
    assert by_words(letters.rita, words).status == 200
    assert hybrid(letters.rita, words, [1, 1, 1]).status == 200
    assert len(cast_ids(letters)) == len(TEXTS)


def cast_ids(cast: Cast) -> list[str]:
    return [row["text_id"] for row in cast.alice.get(LETTERS)["embeddings"]]


# --- Languages ------------------------------------------------------------------------------------
LANGUAGES = {
    "english": ("The ponies were running.", "pony runs"),
    "french": ("Les œuvres complètes ont été publiées à Paris.", "oeuvre complete"),
    "german": ("Die Häuser am Fluß waren schön.", "haus fluss"),
    "spanish": ("Los niños cantaban canciones de España.", "nino cancion espana"),
    "italian": ("Le città erano piene di libri.", "citta libro"),
    "russian": ("Ёлки стояли в лесах.", "елка лес"),
    "simple": ("Façade naïve, Æneid", "facade naive aeneid"),
    "historical": ("Iuſtice vvas giuen vnto Cæſar; Ieſus loued vs.", "justice given unto Caesar"),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_finds_its_words_without_accents(cast: Cast, language: str) -> None:
    text, words = LANGUAGES[language]
    upload(cast, {"it": text, "other": "Nothing of the kind: 12345."})
    speak(cast, language)
    # All of the words, so that none is left to chance.
    for word in words.split():
        assert found(cast.rita, word) == ["it"], word


def test_stop_words_with_accents_are_known_as_such(cast: Cast) -> None:
    upload(cast, {"fr": "Été comme hiver, même à la mer.", "other": "mer"})
    speak(cast, "french")
    assert found(cast.rita, "même à") == []


def test_historical_spelling_is_found_by_that_of_today_and_by_what_resembles_it(
    cast: Cast,
) -> None:
    upload(
        cast,
        {
            "henry": "Kynge Henrie dyd enuye the Emperour his vvealth.",
            "latin": "Iulius Cæsar uenit, vidit, vicit.",
            "other": "A letter about the weather.",
        },
    )
    speak(cast, "historical")
    assert found(cast.rita, "julius venit uidit") == ["latin"]
    assert found(cast.rita, "wealth") == ["henry"]
    assert found(cast.rita, "Emperor") == ["henry"]
    assert found(cast.rita, "Emperor -Henrie") == []
    (hit,) = by_words(cast.rita, "Emperor")["results"]
    assert "<mark>Emperour</mark>" in hit["highlight"]
    # In other languages, spelling counts.
    speak(cast, "english")
    assert found(cast.rita, "wealth") == []


def test_an_unknown_language_is_refused_and_only_the_owner_chooses(letters: Cast) -> None:
    answer = letters.alice.patch(INDEX, {"search_language": "klingon"})
    assert answer.status == 400
    assert answer["errors"][0]["location"] == "body.search_language"
    assert letters.erin.patch(INDEX, {"search_language": "english"}).status == 403
    assert letters.rita.get(INDEX)["settings"]["search_language"] is None
    speak(letters, "english")
    speak(letters, None)
    assert found(letters.rita, "painting") == []


# --- Highlights -----------------------------------------------------------------------------------
def test_a_highlight_is_html_whatever_the_text_holds(cast: Cast) -> None:
    upload(cast, {"x": '<b onclick="x">"war"</b> & <mark>peace</mark>'})
    (hit,) = by_words(cast.rita, "war peace")["results"]
    assert hit["highlight"] == (
        "&lt;b onclick=&quot;x&quot;&gt;&quot;<mark>war</mark>&quot;&lt;/b&gt; &amp; "
        "&lt;mark&gt;<mark>peace</mark>&lt;/mark&gt;"
    )


def test_a_highlight_is_where_most_of_the_words_are(cast: Cast) -> None:
    text = "war " + "and so on " * 100 + "the war of the roses in the garden " + "and on " * 100
    upload(cast, {"long": text})
    (hit,) = by_words(cast.rita, "war roses garden")["results"]
    shown = hit["highlight"]
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert "<mark>war</mark> of the <mark>roses</mark> in the <mark>garden</mark>" in shown
    assert len(shown) < 350


# --- Fusing ---------------------------------------------------------------------------------------
def test_hybrid_fuses_the_ranks_of_vectors_and_words(english: Cast) -> None:
    # The vectors are [1, 0, 1] to [1, 4, 1], the nearest to [1, 3, 1] is that of `lisa`.
    answer = hybrid(english.rita, "Starry Night", [1, 3, 1])
    hits = {hit["id"]: hit for hit in answer["results"]}
    assert ids(answer)[0] == "starry"
    assert hits["lisa"]["ranks"] == {"vector": 1, "text": None}
    assert hits["lisa"]["highlight"] is None
    rank = hits["starry"]["ranks"]["vector"]
    assert hits["starry"]["ranks"]["text"] == 1
    assert hits["starry"]["score"] == pytest.approx(0.7 / (60 + rank) + 0.3 / 61)
    assert hits["starry"]["similarity"] == pytest.approx(8 / (6 * 11) ** 0.5)
    assert "<mark>Starry</mark>" in hits["starry"]["highlight"]


def test_alpha_and_rrf_k_weigh_the_legs(english: Cast) -> None:
    by_vector = ids(hybrid(english.rita, "garden", [1, 0, 1], alpha=1))
    assert by_vector[0] == "mona"
    assert ids(hybrid(english.rita, "garden", [1, 0, 1], alpha=0))[0] == "lisa"
    first = hybrid(english.rita, "garden", [1, 0, 1], alpha=0.5, rrf_k=1)["results"][0]
    assert first["score"] == pytest.approx(0.5 / (1 + 1) + 0.5 / (1 + 4), abs=0.1)


def test_pages_of_a_hybrid_search_fit_together(english: Cast) -> None:
    whole = ids(hybrid(english.rita, "painted portrait", [1, 2, 1], count=5))
    assert len(whole) == 5
    paged = [
        each
        for offset in range(5)
        for each in ids(hybrid(english.rita, "painted portrait", [1, 2, 1], count=1, offset=offset))
    ]
    assert paged == whole
    assert ids(hybrid(english.rita, "painted", [1, 2, 1], offset=100)) == []
    assert len(ids(hybrid(english.rita, "painted", [1, 2, 1], candidates=1))) <= 2


def test_a_threshold_and_a_minus_hold_for_both_legs(english: Cast) -> None:
    everything = hybrid(english.rita, "garden", [1, 0, 1])["results"]
    assert {hit["id"] for hit in everything} == set(TEXTS)
    cut = hybrid(english.rita, "garden", [1, 0, 1], threshold=0.7)["results"]
    assert [hit["id"] for hit in cut] == [
        hit["id"] for hit in everything if hit["similarity"] >= 0.7
    ]
    assert "lisa" not in ids(hybrid(english.rita, "garden", [1, 0, 1], threshold=0.7))
    assert "mona" not in ids(hybrid(english.rita, "painted -Mona", [1, 0, 1]))


def test_filters_and_exclusions_hold_in_every_mode(cast: Cast) -> None:
    upload(cast, TEXTS, mona={"room": 1}, supper={"room": 2}, starry={"room": 2})
    filtering = {"filter": '{"room": 2}'}
    excluding = {"metadata_path": "room", "metadata_value": "2"}
    assert set(found(cast.rita, "painted", **filtering)) == {"supper", "starry"}
    assert set(ids(hybrid(cast.rita, "painted", [1, 1, 1], **filtering))) == {"supper", "starry"}
    assert found(cast.rita, "painted", **excluding) == ["mona"]
    assert set(ids(hybrid(cast.rita, "painted", [1, 1, 1], **excluding))) == {"mona", "lisa", "war"}
    body = {"text": "painted", "filter": {"room": 1}}
    assert ids(cast.rita.post(f"{SIMILARS}?mode=text", body)) == ["mona"]
    both = cast.rita.post(f'{SIMILARS}?mode=text&filter={{"room":1}}', body)
    assert both.status == 400


def test_words_are_embedded_where_no_vector_is_given(cast: Cast) -> None:
    make_project("alice", "own", instance_owner="_system", instance="builtin")
    texts = [{"text_id": name, "text": text} for name, text in TEXTS.items()]
    assert cast.alice.post("/v1/embeddings/alice/own", {"embeddings": texts}).status == 201
    asked = urlencode({"q": "Who painted the Mona Lisa?", "mode": "hybrid", "count": 1})
    (hit,) = cast.alice.get(f"/v1/similars/alice/own?{asked}")["results"]
    assert hit["id"] == "mona"
    assert hit["ranks"] == {"vector": 1, "text": 1}
    assert hit["similarity"] > 0.3


# --- Refusals and permissions ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ("mode=magic", {"text": "x"}, "query.mode"),
        ("mode=text", {"vector": [1, 2, 3]}, "body.text"),
        ("mode=text", {"text": "x", "vector": [1, 2, 3]}, "body.vector"),
        ("mode=text", {"text": "  "}, "body.text"),
        ("mode=text", {"text": 5}, "body.text"),
        ("mode=text&threshold=0.3", {"text": "x"}, "query.threshold"),
        ("mode=text&exact=true", {"text": "x"}, "query.exact"),
        ("mode=text&alpha=0.5", {"text": "x"}, "query.alpha"),
        ("alpha=0.5", {"vector": [1, 2, 3]}, "query.alpha"),
        ("candidates=5", {"vector": [1, 2, 3]}, "query.candidates"),
        ("mode=hybrid&alpha=2", {"text": "x"}, "query.alpha"),
        ("mode=hybrid&rrf_k=0", {"text": "x"}, "query.rrf_k"),
        ("mode=hybrid", {"text": "x", "vector": "AAAA"}, None),
        ("mode=text", {"text": "a\x00b"}, "body.text"),
    ],
)
def test_what_makes_no_sense_is_refused(
    letters: Cast, query: str, body: dict[str, Any], field: str | None
) -> None:
    answer = letters.rita.post(f"{SIMILARS}?{query}", body)
    assert answer.status == 400, answer.body
    if field is not None:
        assert answer["errors"][0]["location"] == field


def test_searching_by_a_stored_text_has_no_modes(letters: Cast) -> None:
    assert letters.rita.get(f"{SIMILARS}/mona?mode=text").status == 400


def test_whoever_may_read_may_search_by_words(letters: Cast) -> None:
    for role, status in {
        "owner": 200,
        "editor": 200,
        "reader": 200,
        "admin": 200,
        "stranger": 403,
        "anonymous": 401,
    }.items():
        caller = letters.with_role(role)
        assert by_words(caller, "war").status == status, role
        assert hybrid(caller, "war", [1, 2, 3]).status == status, role
    letters.alice.patch("/v1/projects/alice/letters", {"public_read": True})
    assert found(letters.nobody, "war") == ["war"]
    assert ids(hybrid(letters.nobody, "war", [1, 2, 3]))
    # Embedding asks a provider whom Alice pays.
    assert letters.nobody.get(f"{SIMILARS}?q=war&mode=hybrid").status == 401
    assert letters.sam.get(f"{SIMILARS}?q=war&mode=hybrid").status == 403


def test_words_of_other_projects_are_not_looked_at(letters: Cast) -> None:
    make_project("alice", "other")
    upload(letters, {"secret": "war and more war"}, project="other")
    assert found(letters.rita, "war") == ["war"]


def test_a_search_takes_few_statements(english: Cast) -> None:
    by_words(english.rita, "war")
    asked: list[tuple[Callable[[], Answer], int]] = [
        # Key, project; words, ranking, texts.
        (lambda: by_words(english.rita, "war"), 5),
        # And vectors.
        (lambda: hybrid(english.rita, "war", [1, 2, 3]), 6),
        (lambda: hybrid(english.rita, "war -peace", [1, 2, 3]), 7),
    ]
    for ask, most in asked:
        with CaptureQueriesContext(connection) as captured:
            assert ask().status == 200
        assert len(captured) <= most, [each["sql"][:80] for each in captured.captured_queries]


# --- Both parts of a large project ----------------------------------------------------------------
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
@pytest.mark.usefixtures("real_segments")
@pytest.mark.parametrize("language", ["english", "historical"])
def test_words_are_found_in_both_parts_of_a_large_project(
    indexed: Callable[[int], large.Shelf], language: str
) -> None:
    shelf = indexed(320)
    index = f"/v1/projects/{shelf.name}/index"

    def search(words: str, **query: Any) -> list[str]:
        asked = urlencode({"q": words, "mode": "text", "count": 200, **query})
        return ids(shelf.owner.get(f"{shelf.similars}?{asked}"))

    before = set(search("music"))
    assert before
    assert shelf.owner.patch(index, {"search_language": language}).status == 200
    # Not indexed yet, found all the same.
    assert set(search("music")) >= before
    run_jobs()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_indexes WHERE indexname LIKE %s", [f"%words_{language}"]
        )
        assert cursor.fetchone() == (1,)
    sealed = search("music")
    assert set(sealed) >= before
    fresh = {"text_id": "fresh", "text": "Music, music and a mountebank.", "vector_dim": 64}
    item = {**shelf.item(0), **fresh, "vector": [1.0] * 64}
    assert shelf.owner.post(shelf.embeddings, {"embeddings": [item]}).status == 201
    assert set(search("music")) == {*sealed, "fresh"}
    assert search("mountebank") == ["fresh"]
    if language == "historical":
        assert search("mountebanck") == ["fresh"]
        assert set(search("musick")) & before
    deleted = sealed[0]
    assert shelf.owner.delete(f"{shelf.embeddings}/{deleted}").status == 200
    assert deleted not in search("music")
    # Where nobody named a language, words are indexed as they are.
    assert shelf.owner.patch(index, {"search_language": None}).status == 200
    run_jobs()
    assert "fresh" in search("music")
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE indexname LIKE '%%words%%'")
        [(name,)] = cursor.fetchall()
    assert name.endswith("_words_simple")
