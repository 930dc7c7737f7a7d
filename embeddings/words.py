"""Reads what people type to search by words. Knows no models.

As in search engines, all words are looked for; "quoted ones" side by side, OR between alternatives,
and none that stands behind a minus. Nothing that can be typed is an error.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_UNIT = re.compile(r'(-?)"([^"]*)"?|(\S+)')
_OR = "OR"


@dataclass(frozen=True)
class Words:
    """What texts have to hold, as `websearch_to_tsquery` reads it; every unit is in quotes.

    positive: what is looked for as it was typed, without operators; "" for nothing.
    whole: texts that hold all that was asked for.
    always: what also holds of texts with only some of the words: quoted phrases, and no word that
    stands behind a minus.
    is_relaxed: whether texts with some of the words will do. Those who write alternatives, or
    phrases only, mean what they say.
    """

    positive: str
    whole: str
    always: str
    is_relaxed: bool

    @property
    def has_operators(self) -> bool:
        """Say whether some of what was typed is no word to look for."""
        return bool(self.always) or not self.is_relaxed


def read(text: str) -> Words:
    """Return what a text asks for."""
    alternatives: list[list[str]] = [[]]
    positive: list[str] = []
    phrases: list[str] = []
    excluded: list[str] = []
    has_single_words = False
    for minus, phrase, word in _UNIT.findall(text):
        if word == _OR:
            alternatives.append([])
            continue
        is_excluded = bool(minus) or (word.startswith("-") and len(word) > 1)
        # A quote within a word would end the quotes around it.
        content = (word.removeprefix("-") or phrase).replace('"', " ").strip()
        if not any(map(str.isalnum, content)):
            continue
        unit = f'"{content}"'
        if is_excluded:
            excluded.append(f"-{unit}")
            continue
        positive.append(content)
        alternatives[-1].append(unit)
        if word:
            has_single_words = True
        else:
            phrases.append(unit)
    given = [each for each in alternatives if each]
    is_relaxed = len(given) == 1 and has_single_words
    return Words(
        positive=" ".join(positive),
        whole=f" {_OR} ".join(" ".join([*each, *excluded]) for each in given),
        always=" ".join([*phrases, *excluded] if len(given) == 1 else excluded),
        is_relaxed=is_relaxed,
    )


def any_of(lexemes: Sequence[str]) -> str:
    """Return the `tsquery` of the texts that hold any of some lexemes."""
    return " | ".join(map(quoted, lexemes))


def quoted(lexeme: str) -> str:
    """Return a lexeme as a `tsquery` spells it."""
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
