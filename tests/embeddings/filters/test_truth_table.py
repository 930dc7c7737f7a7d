"""The truth table of docs/filters.md, row by row: asked over HTTP, and of the reference."""

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.embeddings.filters.reference import keeps
from tests.factories import Cast, item

PAGE = Path(__file__).resolve().parents[3] / "docs" / "filters.md"
_ROW = re.compile(r"^\| `(\{.*\})` \| `(\{.*\})` \| (yes|no) \|$", re.MULTILINE)
ROWS = [
    (json.loads(document), json.loads(condition), kept == "yes")
    for document, condition, kept in _ROW.findall(PAGE.read_text(encoding="utf-8"))
]
EMBEDDINGS = "/v1/embeddings/alice/letters"


def test_the_table_is_read_whole() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## Truth table")[2].partition("\n## ")[0]
    lines = [each for each in table.splitlines() if each.startswith("| `")]
    assert len(ROWS) == len(lines) > 80


@pytest.mark.django_db
def test_each_row_is_as_the_page_says(cast: Cast) -> None:
    items = [item(str(n), [1, 2, 3], metadata=each) for n, (each, _, _) in enumerate(ROWS)]
    assert cast.alice.post(EMBEDDINGS, {"embeddings": items}).status == 201
    wrong = []
    for number, (document, condition, kept) in enumerate(ROWS):
        assert keeps(condition, document) is kept, (document, condition)
        answer = cast.rita.get(f"{EMBEDDINGS}?limit=200&filter={quote(json.dumps(condition))}")
        found = {each["text_id"] for each in answer["embeddings"]}
        expected = {str(n) for n, (each, _, _) in enumerate(ROWS) if keeps(condition, each)}
        if (str(number) in found) is not kept or found != expected:
            wrong.append((document, condition))
    assert wrong == []


@pytest.mark.django_db
def test_operators_of_the_page_are_those_that_are_known(cast: Cast) -> None:
    answer: Any = cast.rita.get(f"{EMBEDDINGS}?filter={quote(json.dumps({'a': {'like': 1}}))}")
    assert answer.status == 400
    known = set(re.findall(r"\w+", answer["detail"].partition("these are: ")[2].partition(". ")[0]))
    page = PAGE.read_text(encoding="utf-8").partition("## Operators")[2].partition("\n\n`{")[0]
    first_column = "".join(line.split("|")[1] for line in page.splitlines() if "|" in line)
    assert known == set(re.findall(r"`(\w+)`", first_column))
