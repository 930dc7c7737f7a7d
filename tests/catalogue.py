"""The German catalogue: what the console says, found in templates and code; and its compiled form.

`python -m tests.catalogue` (`make messages`) adds to `locale/de/LC_MESSAGES/django.po` what the
console says anew, removes what it no longer says, and compiles the `.mo` file that the program
reads. It needs no tools beside the Python packages of `requirements-dev.txt`.
"""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_python
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from django.utils.translation.template import templatize

ROOT = Path(__file__).parent.parent
PO = ROOT / "locale" / "de" / "LC_MESSAGES" / "django.po"
MO = PO.with_suffix(".mo")
_FUNCTIONS = [
    *("gettext", "gettext_lazy", "gettext_noop", "pgettext", "pgettext_lazy"),
    *("ngettext", "ngettext_lazy", "npgettext", "npgettext_lazy"),
]


Id = tuple[str | None, str | tuple[str, str]]
"""What a message is found by: its context, and its text, or texts for one and for several."""


def spoken() -> dict[Id, list[str]]:
    """Return all that the console says, and the files that say it, in their order."""
    found: dict[Id, list[str]] = {}
    for path, source in _sources():
        name = path.relative_to(ROOT).as_posix()
        for said in _messages(source):
            files = found.setdefault(said, [])
            if name not in files:
                files.append(name)
    return found


def _sources() -> Iterator[tuple[Path, str]]:
    for path in sorted((ROOT / "templates" / "console").rglob("*.html")):
        # Calls, with signs in place of all else; indented as the page is.
        calls = templatize(path.read_text(), origin=str(path))
        yield path, "\n".join(line.strip() for line in calls.splitlines())
    for path in sorted((ROOT / "console").rglob("*.py")):
        yield path, path.read_text()


def _messages(source: str) -> Iterator[Id]:
    stream = io.BytesIO(source.encode())
    keywords: Any = _FUNCTIONS
    found: Any = extract_python(stream, keywords, [], {"encoding": "utf-8"})
    for _, function, texts, _ in found:
        given = [texts] if isinstance(texts, str) else list(texts or [""])
        context = given.pop(0) if "pgettext" in function else None
        if function.startswith("n"):
            one, several = given[:2]
            if one and several:
                yield context, (one, several)
        elif given[0]:
            yield context, given[0]


def key_of(message: Message) -> Id:
    """Return what a message of a catalogue is found by."""
    text = message.id
    return message.context, text if isinstance(text, str) else (text[0], text[1])


def read(path: Path = PO) -> Catalog:
    """Return the catalogue as it is written."""
    with path.open("rb") as file:
        return read_po(file, locale="de")


def compiled(catalogue: Catalog) -> bytes:
    """Return the form that the program reads."""
    stream = io.BytesIO()
    write_mo(stream, catalogue)
    return stream.getvalue()


def renew() -> Catalog:
    """Return the catalogue with what is said now; what has no translation yet has an empty one."""
    old = read()
    new = Catalog(
        locale="de",
        header_comment="# German translations of Armarium's pages.",
        project="Armarium",
        version="1",
        msgid_bugs_address="see CONTRIBUTING.md",
        creation_date=old.creation_date,
        revision_date=old.revision_date,
        last_translator="the authors of Armarium",
        language_team="the authors of Armarium",
        fuzzy=False,
    )
    known = {key_of(message): message.string for message in old if message.id}
    for (context, text), files in sorted(
        spoken().items(), key=lambda each: (each[1][0], str(each[0][1]))
    ):
        new.add(
            text,
            known.get((context, text)),
            context=context,
            locations=[(name, None) for name in files],  # type: ignore[misc]
        )
    return new


def untranslated(catalogue: Any) -> list[Message]:
    """Return what has no translation, or one that nobody has checked."""
    return [
        message
        for message in catalogue
        if message.id and (message.fuzzy or not all(_forms(message.string)))
    ]


def _forms(translated: object) -> list[object]:
    return list(translated) if isinstance(translated, list | tuple) else [translated]


def main() -> int:
    """Bring the catalogue up to date; tell what is still to be translated."""
    catalogue = renew()
    with PO.open("wb") as file:
        write_po(file, catalogue, width=100, omit_header=False, include_lineno=False)
    MO.write_bytes(compiled(catalogue))
    missing = untranslated(catalogue)
    for message in missing:
        sys.stderr.write(f"not translated: {message.id!r}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
