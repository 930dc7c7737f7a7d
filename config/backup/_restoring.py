"""Checks backups, and restores them on a machine that holds nothing yet."""

import os
import platform
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader

from accounts.models import User
from accounts.policy import BOOTSTRAP_ADMIN
from config import startup
from config.backup import _programs
from config.backup._making import OnProgress, folders_of_files
from config.backup._manifest import (
    DATABASE,
    DATABASE_MANIFEST,
    DUMP,
    SECRETS,
    BackupError,
    Kind,
    Manifest,
    copy_of,
    read_manifest,
    refuse_damage,
    sync_folders,
    verify_entries,
    write_durably,
)
from config.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from config.health import unapplied_migrations
from config.processes import Failed, only_one
from embeddings.models import Embedding
from llm_services import crypto, key_ring
from llm_services.models import Instance
from projects.models import Project
from resources.content_check import content_report
from resources.models import File

Say = Callable[[str], None]


@dataclass
class Restored:
    """What a restored server holds.

    upgraded: the migrations that this release added to the backup's.
    locked_keys: how many providers' keys cannot be read with the encryption keys that are here.
    damaged_files: the ids of files whose bytes are not those that were uploaded.
    checked: whether PostgreSQL's own check of tables and indexes (pg_amcheck) was run.
    """

    manifest: Manifest
    accounts: int = 0
    projects: int = 0
    embeddings: int = 0
    files: int = 0
    upgraded: list[str] = field(default_factory=list)
    locked_keys: int = 0
    damaged_files: list[str] = field(default_factory=list)
    checked: bool = False


def verify_backup(folder: Path, *, on_progress: OnProgress) -> Manifest:
    """Compare a backup with its checksums; return what it is.

    Raises BackupError where it is none, and Damaged, naming files.
    """
    manifest = read_manifest(folder)
    done = 0

    def on_bytes(number: int) -> None:
        nonlocal done
        done += number
        on_progress(done, min(1.0, done / max(manifest.bytes, 1)))

    verify_entries(folder, manifest, on_bytes=on_bytes)
    if manifest.kind is Kind.PHYSICAL:
        if manifest.postgres_major != (ours := _programs.version_of_programs()):
            raise BackupError(
                f"The database in the backup is of PostgreSQL {manifest.postgres}; this Armarium"
                f" brings version {ours}, which cannot read it. Restore it with the release that"
                f" made it (Armarium {manifest.armarium}), and take a backup there with --format"
                " dump: that one can be restored here."
            )
        try:
            _programs.run("pg_verifybackup", "--quiet", str(folder / DATABASE))
        except _programs.ProgramFailed as error:
            prefix = "pg_verifybackup: error: "
            lines = [line.removeprefix(prefix) for line in error.lines if prefix in line]
            refuse_damage([f"in {DATABASE}/, {line}" for line in lines or error.lines])
    on_progress(manifest.bytes, 1.0)
    return manifest


def restore_backup(
    folder: Path, *, say: Say, check: bool, on_verified: OnProgress, on_restored: OnProgress
) -> Restored:
    """Restore a backup into the data directory, or the database of the settings, that hold nothing.

    The embedded database runs afterwards, in use by this process; migrations that this release
    adds are applied.
    check: whether to look through all tables, indexes and files.
    Raises BackupError before anything is changed where the backup is damaged, of a newer release,
    or of another version of PostgreSQL, or where something is there already.
    """
    folder = folder.expanduser().resolve()
    try:
        with only_one(
            settings.DATA_DIR / "locks" / "up.lock",
            what=f"Armarium runs on {settings.DATA_DIR}",
        ):
            return _Restoring(folder, say, on_restored).run(check=check, on_verified=on_verified)
    except (Failed, EmbeddedPostgresError) as error:
        raise BackupError(str(error)) from error
    except OSError as error:
        raise BackupError(f"The backup cannot be restored: {error}.") from error


class _Restoring:
    """One restoration under way."""

    def __init__(self, folder: Path, say: Say, on_progress: OnProgress) -> None:
        self._folder, self._say, self._on_progress = folder, say, on_progress
        self._database: EmbeddedPostgres | None = settings.EMBEDDED_POSTGRES
        self._done = self._total = 0
        self._brought_files: list[Path] = []
        self._brought_cluster = False

    def run(self, *, check: bool, on_verified: OnProgress) -> Restored:
        manifest = read_manifest(self._folder)
        self._refuse_newer(manifest)
        self._refuse_elsewhere(manifest)
        self._refuse_contents(manifest.kind)
        verify_backup(self._folder, on_progress=on_verified)
        self._total = manifest.bytes
        self._refuse_full_disk()
        if manifest.with_keys:
            self._bring_keys()
        try:
            self._bring_files(manifest)
            self._bring_database(manifest.kind)
        except BaseException:
            self._take_away()
            raise
        startup.prepare_database(say=self._say)
        missing = unapplied_migrations()
        startup.apply_migrations(say=self._say)
        restored = Restored(manifest, upgraded=missing)
        if check:
            self._say("Checking tables, indexes and files …")
            restored.checked = _check_tables()
            report = content_report(BOOTSTRAP_ADMIN, verify=True, on_progress=lambda *_: None)
            restored.damaged_files = [str(each.file.uuid) for each in report.damaged]
        _count(restored)
        if not restored.locked_keys:
            # Nothing is sealed with a key that stayed behind, so nobody needs to put it back.
            _forget_former_key()
        return restored

    # What is refused

    def _refuse_contents(self, kind: Kind) -> None:
        if self._database is not None:
            if self._database.home.has_cluster() and not self._may_load(self._database, kind):
                raise BackupError(
                    f"{settings.DATA_DIR} holds a database already, and restoring never overwrites"
                    " one. Name an empty folder with --data-dir, or move that one away first."
                )
        elif tables := _tables():
            raise BackupError(
                f"The database of DATABASE_URL is not empty (it has the table {tables[0]}), and"
                " restoring never overwrites anything. Name a new database."
            )
        for place in folders_of_files().values():
            if place.exists() and any(place.iterdir()):
                raise BackupError(
                    f"{place} is not empty: there are uploaded files already. Move them away first."
                )

    def _may_load(self, database: EmbeddedPostgres, kind: Kind) -> bool:
        """Say whether the cluster is empty, as a failed attempt leaves it, and a dump fits."""
        if kind is not Kind.DUMP:
            return False
        database.start()
        return not _tables()

    def _refuse_newer(self, manifest: Manifest) -> None:
        loader = MigrationLoader(None)
        known: dict[str, set[str]] = {}
        for app, name in loader.disk_migrations:
            known.setdefault(app, set()).add(name)
        newer = [
            f"{app}.{name}"
            for app, names in manifest.migrations.items()
            for name in names
            if app in known and name not in known[app]
        ]
        if newer:
            raise BackupError(
                f"The backup was made by a newer release, Armarium {manifest.armarium} (it knows"
                f" {newer[-1]}, this is {settings.VERSION}). Install that release, or a later one,"
                " and restore it there."
            )

    def _refuse_elsewhere(self, manifest: Manifest) -> None:
        if manifest.kind is Kind.DUMP:
            return
        if self._database is None:
            raise BackupError(
                "A physical backup can only become an embedded database, and DATABASE_URL names"
                " another server. Unset it, or take a backup with --format dump, which can be"
                " restored there."
            )
        if manifest.machine != platform.machine():
            raise BackupError(
                f"The backup was made on another kind of processor ({manifest.machine}, this is"
                f" {platform.machine()}), and a physical backup cannot move there. Take one with"
                " --format dump."
            )

    def _refuse_full_disk(self) -> None:
        settings.DATA_DIR.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(settings.DATA_DIR).free
        if free < self._total:
            raise BackupError(
                f"{settings.DATA_DIR} has {free // 1024**2} MB left, and the backup needs"
                f" {self._total // 1024**2} MB."
            )

    # What is brought

    def _bring_keys(self) -> None:
        """Put the backup's encryption key into place, unless the environment has one.

        The one that it replaces was made for this empty data directory, and has sealed nothing.
        """
        saved = (self._folder / SECRETS / "encryption_key").read_text(encoding="utf-8")
        place = settings.DATA_DIR / "secrets" / "encryption_key"
        if not place.exists() or place.read_text(encoding="utf-8").strip() != (
            settings.ENCRYPTION_KEY
        ):
            return
        if saved != settings.ENCRYPTION_KEY:
            draft = place.with_name(".encryption_key.restored")
            draft.unlink(missing_ok=True)
            write_durably(draft, saved.encode())
            draft.replace(place)
            # What is checked below goes by the key that the server will have.
            settings.ENCRYPTION_KEY = saved

    def _bring_files(self, manifest: Manifest) -> None:
        for name, place in folders_of_files().items():
            entries = [each for each in manifest.entries if each.path.startswith(f"{name}/")]
            unfinished = place.with_name(f".{place.name}.restored")
            if unfinished.exists():
                # Of a restoration that was killed.
                shutil.rmtree(unfinished)
            unfinished.mkdir(mode=0o700, parents=True)
            for entry in entries:
                target = unfinished / entry.path.removeprefix(f"{name}/")
                target.parent.mkdir(mode=0o700, exist_ok=True, parents=True)
                copy_of(self._folder / entry.path, target, on_bytes=self._add)
            sync_folders(unfinished)
            with suppress(FileNotFoundError):
                place.rmdir()
            unfinished.rename(place)
            self._brought_files.append(place)

    def _copy_cluster(self, target: Path) -> None:
        source = self._folder / DATABASE
        for parent, folders, names in os.walk(source):
            here = target / Path(parent).relative_to(source)
            here.mkdir(mode=0o700)
            for name in [*folders, *names]:
                if (Path(parent) / name).is_symlink():
                    raise BackupError(
                        f"{Path(parent, name)} is a link: databases with tablespaces elsewhere"
                        " cannot be restored by this command."
                    )
            for name in names:
                if f"{DATABASE}/{name}" != DATABASE_MANIFEST or here != target:
                    copy_of(Path(parent) / name, here / name, on_bytes=self._add, durably=False)
        # Much quicker than a thousand small files one by one.
        os.sync()

    def _bring_database(self, kind: Kind) -> None:
        if self._database is not None:
            if kind is Kind.PHYSICAL:
                self._database.adopt(self._copy_cluster)
                self._brought_cluster = True
            self._database.start()
        if kind is Kind.DUMP:
            self._load_dump()

    def _take_away(self) -> None:
        """Remove what was brought, so that the next attempt is not refused."""
        for place in self._brought_files:
            shutil.rmtree(place, ignore_errors=True)
        if self._database is not None and self._brought_cluster:
            connection.close()
            self._database.stop()
            shutil.rmtree(self._database.cluster, ignore_errors=True)

    def _load_dump(self) -> None:
        self._say("Loading the database; its indexes are built anew …")
        _programs.run(
            "pg_restore",
            *("--dbname", _programs.database_name(), "--no-password"),
            # Only a superuser may comment on extensions.
            *("--no-owner", "--no-privileges", "--no-comments"),
            *("--exit-on-error", "--single-transaction", str(self._folder / DUMP)),
            connects=True,
        )
        with connection.cursor() as cursor:
            # The planner knows nothing about what was loaded.
            cursor.execute("SET statement_timeout = 0")
            cursor.execute("ANALYZE")
            cursor.execute("RESET statement_timeout")

    def _add(self, number: int) -> None:
        self._done += number
        self._on_progress(self._done, min(1.0, self._done / max(self._total, 1)))


def _tables() -> list[str]:
    with connection.cursor() as cursor:
        return connection.introspection.table_names(cursor)


def _check_tables() -> bool:
    """Look through all tables and B-tree indexes; return whether that was possible.

    Raises BackupError with what is corrupt.
    """
    had_it = _programs.one("SELECT 1 FROM pg_extension WHERE extname = 'amcheck'")
    if not had_it:
        try:
            with connection.cursor() as cursor:
                cursor.execute("CREATE EXTENSION amcheck")
        except DatabaseError:
            # Only the database's superuser may, which we need not be on a server elsewhere.
            return False
    try:
        _programs.run(
            "pg_amcheck",
            *("--no-password", "--database", _programs.database_name()),
            connects=True,
        )
    except _programs.ProgramFailed as error:
        raise BackupError(f"The restored database is corrupt: {error.detail}") from error
    finally:
        if not had_it:
            with connection.cursor() as cursor:
                cursor.execute("DROP EXTENSION amcheck")
    return True


def _forget_former_key() -> None:
    try:
        key_ring.check()
    except key_ring.WrongKeyRing:
        key_ring.rotate(erase_unreadable=True)


def _count(restored: Restored) -> None:
    restored.accounts = User.objects.count()
    restored.projects = Project.objects.count()
    restored.embeddings = Embedding.objects.count()
    restored.files = File.objects.count()
    ring = {bytes.fromhex(each) for each in crypto.key_ids()}
    sealed = Instance.objects.exclude(sealed_key=b"").values_list("sealed_key", flat=True)
    restored.locked_keys = sum(crypto.key_id_of(bytes(each)) not in ring for each in sealed)
