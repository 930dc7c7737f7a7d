"""Reads archives, which may come from anybody."""

import hashlib
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from rest_framework import serializers

from accounts.models import Role
from common import json
from common.errors import DomainError, Invalid
from embeddings.languages import LANGUAGES
from llm_services.models import MAXIMUM_DIMENSIONS, KeyMethod

FORMAT = "armarium-project"
VERSION = 1
MANIFEST = "manifest.json"
EMBEDDINGS = "embeddings.parquet"
LISTS = ("agents.jsonl", "users.jsonl", "files.jsonl")
MAXIMUM_FILES = 100_000
# A compressed entry may be so many times as large when unpacked: texts are less than that.
MAXIMUM_RATIO = 100
MAXIMUM_MANIFEST_BYTES = 16 * 1024**2
MAXIMUM_LINE_BYTES = 16 * 1024**2

_PIECE = 1024**2
# Of tiny entries the ratio says nothing.
_SURELY_SMALL = 64 * 1024


class BadArchive(Invalid):
    """The file is no archive of a project, or it is damaged; the text names the place."""


def entry_of(number: int) -> str:
    """Return the name of the entry with the bytes of the nth file, from 1."""
    return f"files/{number:06}"


class Archive:
    """An archive that is open for reading: nothing in it is trusted."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = _checked(archive.infolist())

    def manifest(self) -> dict[str, Any]:
        """Return what the archive says of itself; raise BadArchive."""
        content = self._whole(MANIFEST, MAXIMUM_MANIFEST_BYTES)
        given = self.parsed(MANIFEST, content)
        if not isinstance(given, dict) or given.get("format") != FORMAT:
            raise BadArchive("The file is a ZIP archive, but not one that exportproject made.")
        if given.get("version") != VERSION:
            raise BadArchive(
                f"The archive has version {str(given.get('version'))[:20]}, this release reads"
                f" {VERSION}. Import it with a later release."
            )
        return checked(_ManifestIn(data=given), MANIFEST)

    def parsed(self, place: str, content: bytes) -> Any:
        """Return JSON from the archive as plain values; raise BadArchive."""
        try:
            return json.parse(content)
        except DomainError as error:
            raise BadArchive(f"{place}: {error.detail}") from error

    def lines(self, name: str, expected: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield each line of an entry, with the name of its place."""
        with self.opened(name, expected) as stream:
            number = 0
            while line := stream.readline(MAXIMUM_LINE_BYTES):
                number += 1
                place = f"{name}, line {number}"
                if len(line) == MAXIMUM_LINE_BYTES:
                    raise BadArchive(f"{place} is longer than {MAXIMUM_LINE_BYTES} bytes.")
                yield place, self.parsed(place, line)

    @contextmanager
    def opened(self, name: str, expected: dict[str, Any]) -> Iterator["Entry"]:
        """Open an entry whose size and SHA-256 are compared as it is read; raise BadArchive.

        expected: its `bytes` and `sha256`.
        """
        info = self._entries.get(name)
        if info is None:
            raise BadArchive(f"The archive lacks {name[:80]}.")
        if info.file_size != expected["bytes"]:
            raise BadArchive(
                f"{name[:80]} has {info.file_size} bytes instead of {expected['bytes']}."
            )
        try:
            with self._archive.open(info) as stream:
                entry = Entry(stream)
                yield entry
                while entry.read(_PIECE):
                    pass
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, OSError) as error:
            raise BadArchive(f"{name[:80]} is damaged: {error}.") from error
        except Exception as error:
            # zlib has an error of its own, which is none of the above.
            if type(error).__module__ != "zlib":
                raise
            raise BadArchive(f"{name[:80]} is damaged: {error}.") from error
        if entry.digest.hexdigest() != expected["sha256"]:
            raise BadArchive(f"{name[:80]} is damaged: it has another SHA-256 than it should.")

    def _whole(self, name: str, maximum: int) -> bytes:
        info = self._entries.get(name)
        if info is None or info.file_size > maximum:
            raise BadArchive(f"The archive has no {name}, or one of more than {maximum} bytes.")
        try:
            return self._archive.read(info)
        except Exception as error:
            raise BadArchive(f"{name} is damaged: {error}.") from error


class Entry:
    """The stream of an entry, with the SHA-256 of what has been read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return at most so many bytes, or all that are left; none at the end."""
        piece = self._stream.read(size)
        self.digest.update(piece)
        return piece

    def readline(self, size: int) -> bytes:
        """Return a line, at most so many bytes of it; none at the end."""
        line = self._stream.readline(size)
        self.digest.update(line)
        return line


@contextmanager
def opened_archive(path: Path) -> Iterator[Archive]:
    """Open a file as an archive; raise BadArchive where it is none."""
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadArchive(f"'{path.name}' cannot be read as an archive: {why}.") from error
    with archive:
        yield Archive(archive)


def _checked(infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, none of which can do harm; raise BadArchive."""
    if len(infos) > MAXIMUM_FILES + len(LISTS) + 2:
        raise BadArchive(f"The archive has {len(infos)} entries, more than any project has.")
    found: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename[:80]
        if info.filename in found:
            raise BadArchive(f"The archive has several entries {name}.")
        if stat.S_ISLNK(info.external_attr >> 16) or info.is_dir():
            raise BadArchive(f"{name} is a link or a folder; archives hold files only.")
        if info.flag_bits & 0x1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise BadArchive(f"{name} is encrypted, or compressed in a way that is not read here.")
        if info.file_size > max(_SURELY_SMALL, MAXIMUM_RATIO * info.compress_size):
            raise BadArchive(
                f"{name} claims to be more than {MAXIMUM_RATIO} times as large as it is packed."
            )
        found[info.filename] = info
    return found


# --- What the JSON may look like ------------------------------------------------------------------
def checked(serializer: Any, place: str) -> dict[str, Any]:
    """Return what a serializer takes; raise BadArchive, naming the field."""
    if not serializer.is_valid():
        path, message = _first(serializer.errors)
        raise BadArchive(f"{place}: {path}: {message}")
    return dict(serializer.validated_data)


def _first(errors: Any, path: str = "") -> tuple[str, str]:
    if isinstance(errors, dict):
        name, inner = next(iter(errors.items()))
        return _first(inner, f"{path}.{name}" if path else str(name))
    if isinstance(errors, list) and errors:
        inner = next((each for each in errors if each), "")
        return _first(inner, path)
    return path or "it", str(errors)


class _EntryIn(serializers.Serializer[Any]):
    bytes = serializers.IntegerField(min_value=0)
    sha256 = serializers.RegexField(r"\A[0-9a-f]{64}\Z")


class _ProjectIn(serializers.Serializer[Any]):
    owner = serializers.CharField(max_length=255)
    handle = serializers.CharField(max_length=255)
    uuid = serializers.UUIDField()
    name = serializers.CharField(max_length=255, allow_blank=True, trim_whitespace=False)
    description = serializers.CharField(max_length=255, allow_blank=True, trim_whitespace=False)
    metadata = serializers.DictField()
    metadata_schema = serializers.CharField(allow_blank=True, trim_whitespace=False)
    public_read = serializers.BooleanField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class _IndexIn(serializers.Serializer[Any]):
    m = serializers.IntegerField(min_value=2, max_value=100)
    ef_construction = serializers.IntegerField(min_value=4, max_value=1000)
    ef_search = serializers.IntegerField(min_value=10, max_value=1000, allow_null=True)
    target_recall = serializers.FloatField(min_value=0.5, max_value=0.999)
    search_language = serializers.ChoiceField(LANGUAGES, allow_null=True)


class _GrantIn(serializers.Serializer[Any]):
    user = serializers.CharField(max_length=255)
    role = serializers.ChoiceField(Role.choices)


class _StandardIn(serializers.Serializer[Any]):
    handle = serializers.CharField(max_length=20)
    description = serializers.CharField(allow_blank=True, max_length=10_000)
    key_method = serializers.ChoiceField(KeyMethod.choices)
    key_field = serializers.CharField(allow_blank=True, max_length=20)


class _InstanceIn(serializers.Serializer[Any]):
    owner = serializers.CharField(max_length=255)
    handle = serializers.CharField(max_length=20)
    endpoint = serializers.CharField(max_length=2000)
    description = serializers.CharField(allow_blank=True, max_length=10_000)
    model = serializers.CharField(max_length=255)
    dimensions = serializers.IntegerField(min_value=1, max_value=MAXIMUM_DIMENSIONS)
    context_limit = serializers.IntegerField(min_value=1, max_value=2**31 - 1, allow_null=True)
    api_standard = _StandardIn()


class _ManifestIn(serializers.Serializer[Any]):
    armarium = serializers.CharField(max_length=40)
    project = _ProjectIn()
    index = _IndexIn()
    grants = _GrantIn(many=True)
    instance = _InstanceIn()
    entries = serializers.DictField(child=_EntryIn())
    fingerprint = serializers.DictField(child=serializers.CharField(max_length=100))

    def validate_entries(self, given: dict[str, Any]) -> dict[str, Any]:
        """Take the entries that an archive has to have, and no others."""
        if set(given) != {EMBEDDINGS, *LISTS}:
            raise serializers.ValidationError(f"must name {EMBEDDINGS}, {', '.join(LISTS)}.")
        return given
