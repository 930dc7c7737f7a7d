"""Makes a project of an archive: all of it, or nothing."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError
from django.core.files import File as Content
from django.db import IntegrityError, transaction

from accounts.models import Role, User
from accounts.policy import Actor, Level, require_account
from accounts.selectors import user_named
from common.canonical_names import check_canonical_name
from common.database import violated
from common.errors import Conflict, DomainError
from common.json import check_document
from embeddings import files, indexes
from embeddings.files import Rejected
from embeddings.imports import import_rows
from llm_services.models import ApiStandard, Instance
from llm_services.selectors import builtin_instance, usable_instance
from llm_services.services import create_instance, create_standard
from projects.models import Project
from projects.services import Grant, bring_project, settle_project
from resources.archives._reading import (
    EMBEDDINGS,
    Archive,
    BadArchive,
    opened_archive,
)
from resources.fingerprints import RESOURCE_FIELDS, fingerprint_of
from resources.models import Agent, File, ProjectResource

OnProgress = Callable[[int, float | None], object]

_BATCH = 1_000
_SHOWN = 3


@dataclass
class Imported:
    """What came of an archive.

    instance: what the project is based on, as owner/handle; is_new_instance: made for it, so that
    it has no provider's key yet.
    not_granted: the grants to accounts that do not exist here.
    fingerprint: of the project as it is now; `grants` differs where some were not granted.
    """

    project: str
    instance: str
    is_new_instance: bool
    embeddings: int = 0
    agents: int = 0
    users: int = 0
    files: int = 0
    not_granted: list[Grant] = field(default_factory=list)
    fingerprint: dict[str, str] = field(default_factory=dict)


def import_archive(
    *,
    actor: Actor,
    source: Path,
    place: tuple[str, str] | None = None,
    instance: tuple[str, str] | None = None,
    with_grants: bool = True,
    on_progress: OnProgress,
) -> Imported:
    """Make a project of an archive, equal to the one that was exported; all of it or nothing.

    place: the handles of its owner, who must exist, and of itself; those in the archive by default.
    instance: the handles of the LLM service to base it on, which must have the model that made its
    vectors; by default one that has it, or a new one without a key.
    with_grants: whether accounts here get the roles that accounts of the same handles had there.
    Raises BadArchive, and Conflict where something of it is there already.
    """
    with opened_archive(source) as archive, _stored_files() as stored:
        manifest = archive.manifest()
        described = manifest["project"]
        owner, handle = place or (described["owner"], described["handle"])
        with transaction.atomic():
            user = user_named(owner)
            require_account(actor, Level.OWNER, user)
            based_on, is_new = _instance_for(actor, user, manifest["instance"], instance)
            project = bring_project(
                actor=actor, owner=user, handle=handle, instance=based_on, values=described
            )
            outcome = Imported(str(project), str(based_on), is_new)
            outcome.embeddings = _embeddings(archive, manifest, project, on_progress)
            for name in RESOURCE_FIELDS:
                number = _resources(archive, manifest, project, name, stored)
                setattr(outcome, name, number)
            _index(actor, project, manifest["index"])
            grants = [Grant(each["user"], Role(each["role"])) for each in manifest["grants"]]
            outcome.not_granted = settle_project(
                project, actor=actor, values=described, grants=grants if with_grants else []
            )
            if not with_grants:
                outcome.not_granted = grants
            project.refresh_from_db()
            outcome.fingerprint = fingerprint_of(project)
            _compare(outcome, manifest["fingerprint"])
        stored.clear()
    return outcome


# --- The LLM service ------------------------------------------------------------------------------
def _instance_for(
    actor: Actor, owner: User, described: Mapping[str, Any], named: tuple[str, str] | None
) -> tuple[Instance, bool]:
    """Return the instance to base the project on, and whether it was made for that."""
    standard = described["api_standard"]
    wanted = Instance(
        api_standard=ApiStandard(handle=standard["handle"]),
        **{name: described[name] for name in ("endpoint", "model", "dimensions")},
    ).fingerprint()
    what = f"{described['model']} ({described['dimensions']} dimensions, {described['endpoint']})"
    if named is not None:
        chosen = usable_instance(owner, owner=named[0], handle=named[1])
        if chosen.fingerprint() != wanted:
            raise Conflict(
                f"The vectors in the archive were made by {what}, and '{chosen}' has another model:"
                " they could not be compared with what it makes."
            )
        return chosen, False
    builtin = builtin_instance()
    if builtin.fingerprint() == wanted:
        return builtin, False
    own = Instance.objects.filter(owner=owner, embedding_model__fingerprint=wanted)
    found = own.order_by("pk").select_related("owner", "api_standard").first()
    if found is not None:
        return found, False
    if not ApiStandard.objects.filter(handle=standard["handle"]).exists():
        create_standard(actor=actor, handle=standard["handle"], values=standard)
    values = {
        name: described[name]
        for name in ("endpoint", "description", "model", "dimensions", "context_limit")
    }
    try:
        made = create_instance(
            actor=actor,
            owner=owner.handle,
            handle=described["handle"],
            values={**values, "api_standard": standard["handle"]},
        )
    except Conflict as error:
        raise Conflict(
            f"'{owner.handle}/{described['handle']}' is an LLM service with another model than the"
            f" archive's, {what}. Make one that has it under another handle, and name it with"
            " --instance."
        ) from error
    return made, True


# --- Contents -------------------------------------------------------------------------------------
def _embeddings(
    archive: Archive, manifest: Mapping[str, Any], project: Project, on_progress: OnProgress
) -> int:
    rejected: list[Rejected] = []
    with tempfile.TemporaryDirectory(prefix="armarium-import-") as folder:
        # The process that decodes it opens it by its name.
        parquet = Path(folder) / "embeddings.parquet"
        with (
            archive.opened(EMBEDDINGS, manifest["entries"][EMBEDDINGS]) as entry,
            parquet.open("xb") as copy,
        ):
            shutil.copyfileobj(entry, copy)
        outcome = import_rows(
            project,
            lambda expected: files.read(parquet, "parquet", expected, batch_size=_BATCH),
            max_rejected=0,
            on_rejected=rejected.append,
            on_progress=lambda so_far: on_progress(so_far.rows, so_far.fraction),
        )
    if rejected:
        first = rejected[0]
        raise BadArchive(f"{EMBEDDINGS}, row {first.row} ('{first.text_id[:80]}'): {first.reason}")
    if outcome.stopped:
        raise BadArchive(f"{EMBEDDINGS}: {outcome.stopped}")
    return outcome.stored


def _resources(
    archive: Archive,
    manifest: Mapping[str, Any],
    project: Project,
    name: str,
    stored: list[File],
) -> int:
    kind, fields = RESOURCE_FIELDS[name]
    entry = f"{name}.jsonl"
    count = 0
    for place, line in archive.lines(entry, manifest["entries"][entry]):
        count += 1
        wanted = {*fields, *(["entry"] if kind is File else [])}
        if not isinstance(line, dict) or set(line) != wanted:
            raise BadArchive(f"{place}: it must be an object with {', '.join(sorted(wanted))}.")
        row = kind(owner=project.owner, project=project)
        for field_name in fields:
            try:
                value = row._meta.get_field(field_name).to_python(line[field_name])
            except (ValidationError, TypeError, ValueError, AttributeError) as error:
                raise BadArchive(f"{place}: {field_name} cannot be read.") from error
            setattr(row, field_name, value)
        _check(row, place)
        if isinstance(row, File):
            _content(archive, row, line["entry"], stored)
        # Saving sets them to now.
        times = {each: getattr(row, each) for each in ("created_at", "updated_at")}
        _save(row, place)
        kind._default_manager.filter(pk=row.pk).update(**times)
    return count


def _check(row: ProjectResource, place: str) -> None:
    try:
        row.clean_fields(exclude=["owner", "project", "content"])
        if isinstance(row, Agent):
            check_canonical_name(row.canonical_name)
        for name in row.documents:
            check_document(getattr(row, name), name)
    except ValidationError as error:
        name, messages = next(iter(error.message_dict.items()))
        raise BadArchive(f"{place}: {name}: {messages[0]}") from error
    except DomainError as error:
        raise BadArchive(f"{place}: {error.detail}") from error


def _content(archive: Archive, row: File, entry: Any, stored: list[File]) -> None:
    expected = {"bytes": row.size, "sha256": row.sha256}
    with tempfile.TemporaryFile() as copy:
        with archive.opened(str(entry), expected) as stream:
            shutil.copyfileobj(stream, copy)
        copy.seek(0)
        row.content.save("", Content(copy), save=False)
    stored.append(row)


def _save(row: ProjectResource, place: str) -> None:
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError as error:
        constraint = violated(error)
        if constraint == f"{row._meta.model_name}_uuid_per_owner":
            what = f"the id '{row.uuid}'"
        elif isinstance(row, Agent) and constraint == "agent_name_per_owner":
            what = f"the canonical name '{row.canonical_name}'"
        else:
            raise
        raise Conflict(
            f"{place}: '{row.owner.handle}' has another {row.noun} of {what} already. Import the"
            " archive for another account, or delete or rename that one first."
        ) from error


def _index(actor: Actor, project: Project, settings: dict[str, Any]) -> None:
    chosen = dict(settings)
    if chosen["ef_construction"] < 2 * chosen["m"]:
        raise BadArchive("manifest.json: index.ef_construction must be at least twice m.")
    indexes.change_settings(
        actor=actor, owner=project.owner.handle, handle=project.handle, changes=chosen
    )


def _compare(outcome: Imported, expected: Mapping[str, str]) -> None:
    """Refuse a project that is not what was exported, but for grants that cannot be."""
    lacks_grants = bool(outcome.not_granted)
    wrong = [
        part
        for part, fingerprint in outcome.fingerprint.items()
        if expected.get(part) != fingerprint and not (part == "grants" and lacks_grants)
    ]
    if wrong:
        raise BadArchive(
            f"What the archive holds is not what was exported: its {', '.join(wrong)} differ from"
            " the fingerprint in manifest.json. Nothing was imported."
        )


@contextmanager
def _stored_files() -> Iterator[list[File]]:
    """Yield a list for files whose bytes were stored; those left in it are taken back."""
    stored: list[File] = []
    try:
        yield stored
    finally:
        for row in stored:
            row.content.storage.delete(str(row.content.name))
