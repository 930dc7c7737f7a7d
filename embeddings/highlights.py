"""Shows where in a text the words that were looked for are. Knows no models."""

import html
import re
from collections.abc import Sequence

# Characters of an excerpt, about 40 words.
_LENGTH = 240
_GAP = "…"


def highlight(text: str, marked: Sequence[str]) -> str | None:
    """Return the part of a text with most of the marked words, as HTML; None without any.

    `<mark>` is all the markup there is: what the text itself holds is escaped.
    """
    spans = _spans(text, marked)
    if not spans:
        return None
    begin, end = _window(text, spans)
    shown = [(first, last) for first, last in spans if begin <= first and last <= end]
    pieces, at = [_GAP] if begin else [], begin
    for first, last in shown:
        pieces.append(html.escape(text[at:first]))
        pieces.append(f"<mark>{html.escape(text[first:last])}</mark>")
        at = last
    pieces.append(html.escape(text[at:end]))
    pieces.append(_GAP if end < len(text) else "")
    return "".join(pieces).strip()


def _spans(text: str, marked: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the marked words are, in their order; of overlapping ones the longest."""
    if not marked:
        return []
    longest_first = sorted(marked, key=len, reverse=True)
    words = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    return [found.span() for found in words.finditer(text)]


def _window(text: str, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return begin and end of the part with most different marked words, then with most of them."""

    def held(start: int) -> tuple[int, int]:
        inside = [
            text[first:last] for first, last in spans[start:] if last - spans[start][0] < _LENGTH
        ]
        return len(set(map(str.lower, inside))), len(inside)

    best = max(range(len(spans)), key=lambda start: (held(start), -start))
    first = spans[best][0]
    inside = [last for _, last in spans[best:] if last - first < _LENGTH] or [spans[best][1]]
    # What is found in the middle, whole words around it.
    spare = max(0, _LENGTH - (inside[-1] - first)) // 2
    begin, end = max(0, first - spare), min(len(text), inside[-1] + spare)
    end = min(len(text), max(end, begin + _LENGTH))
    begin = max(0, min(begin, end - _LENGTH))
    if begin:
        space = text.find(" ", begin, first)
        begin = first if space < 0 else space + 1
    if end < len(text):
        space = text.rfind(" ", inside[-1], end)
        end = inside[-1] if space < 0 else space
    return begin, end
