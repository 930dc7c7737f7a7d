"""Divides texts into word pieces, as the models of the family of BERT want them in lower case."""

import unicodedata
from functools import lru_cache
from pathlib import Path

_UNKNOWN, _FIRST, _LAST = "[UNK]", "[CLS]", "[SEP]"
_CONTINUED = "##"
_LONGEST_WORD = 100
_CACHED_WORDS = 50_000
# Scripts that are written without spaces: each sign is a word.
_IDEOGRAPHS = (
    range(0x3400, 0x4DC0),
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),
    range(0x20000, 0x2CEB0),
    range(0x2F800, 0x2FA20),
)
# What is no letter and no digit in ASCII parts words, whether Unicode calls it punctuation or not.
_ASCII_SIGNS = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class WordPieces:
    """A vocabulary: one piece a line, its number that of the line, from 0."""

    def __init__(self, path: Path) -> None:
        pieces = path.read_text(encoding="utf-8").split("\n")
        self._numbers = {piece: number for number, piece in enumerate(pieces) if piece}
        self._unknown = (self._numbers[_UNKNOWN],)
        self._signs = _Signs()
        self._of_word = lru_cache(maxsize=_CACHED_WORDS)(self._divided)

    def numbers_of(self, text: str) -> list[int]:
        """Return the numbers of a text's pieces, those of its beginning and its end with them."""
        # Letters and their accents apart, so that the accents can be left out.
        words = unicodedata.normalize("NFD", text).translate(self._signs).split()
        pieces = [number for word in words for number in self._of_word(word)]
        return [self._numbers[_FIRST], *pieces, self._numbers[_LAST]]

    def _divided(self, word: str) -> tuple[int, ...]:
        """Return the longest pieces that a word begins and goes on with; one if it is unknown."""
        if len(word) > _LONGEST_WORD:
            return self._unknown
        numbers: list[int] = []
        rest, prefix = word, ""
        while rest:
            for end in range(len(rest), 0, -1):
                number = self._numbers.get(prefix + rest[:end])
                if number is not None:
                    break
            else:
                return self._unknown
            numbers.append(number)
            rest, prefix = rest[end:], _CONTINUED
        return tuple(numbers)


class _Signs(dict[int, str]):
    """What becomes of a character, by its code point: found out once for each that occurs."""

    def __missing__(self, point: int) -> str:
        self[point] = made = self._made(chr(point), point)
        return made

    def _made(self, sign: str, point: int) -> str:
        category = unicodedata.category(sign)
        if sign in "\t\n\r" or category == "Zs":
            return " "
        # Accents, and what cannot be seen.
        if category == "Mn" or category.startswith("C") or sign == "\N{REPLACEMENT CHARACTER}":
            return ""
        is_word = any(point in each for each in _IDEOGRAPHS)
        if is_word or sign in _ASCII_SIGNS or category.startswith("P"):
            return f" {sign} "
        return sign.lower()
