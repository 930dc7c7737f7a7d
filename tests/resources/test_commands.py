"""listresources, moveresources and checkfiles."""

import io
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from accounts.policy import ANONYMOUS, BOOTSTRAP_ADMIN
from common.errors import Unauthenticated
from projects.services import delete_project
from resources import services
from resources.models import Agent, EndUser, File
from resources.tasks import sweep_orphans
from tests.answers import nothing_changes
from tests.factories import Cast, make_project
from tests.races import while_waiting
from tests.resources.things import CONTENT, make


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    refusal: str = ""

    @property
    def answer(self) -> Any:
        """What --json printed."""
        return json.loads(self.out)


def run(*arguments: str) -> Ran:
    """Run a command as a shell would."""
    out = io.StringIO()
    code, refusal = 0, ""
    try:
        call_command(*arguments, stdout=out, stderr=io.StringIO())
    except SystemExit as ended:
        code = int(ended.code or 0)
    except CommandError as refused:
        code, refusal = refused.returncode, str(refused)
        assert "\n" not in refusal
    return Ran(code, out.getvalue(), refusal)


def where(kind: Any) -> dict[str, int]:
    """Return how many of a kind are in each of Alice's projects."""
    handles = kind.objects.filter(owner__handle="alice").values_list("project__handle", flat=True)
    return {handle: list(handles).count(handle) for handle in sorted(handles)}


# --- listresources --------------------------------------------------------------------------------
class TestListResources:
    def test_lists_an_account_or_a_project_of_it(self, cast: Cast) -> None:
        agent = make(Agent, "Scribe", canonical_name="scribe")
        user = make(EndUser, "", project="default")
        file = make(File, "letter.txt")
        make(Agent, "Foreign", owner="sam", project="default")

        out = run("listresources", "alice").out
        rows = [" ".join(line.split()) for line in out.splitlines() if line.strip()]

        day = agent.created_at.strftime("%Y-%m-%d")
        assert rows[2:] == [
            f"{agent.uuid} agent Scribe (scribe) alice/letters {day}",
            f"{user.uuid} user {user.uuid} alice/default {day}",
            f"{file.uuid} file letter.txt alice/letters {day} {len(CONTENT)} bytes",
        ]
        in_one = run("listresources", "alice/LETTERS").out
        assert str(user.uuid) not in in_one
        assert str(agent.uuid) in in_one
        assert str(agent.uuid) not in run("listresources", "alice", "--kind", "files").out

    def test_answers_in_json(self, cast: Cast) -> None:
        agent, file = make(Agent, canonical_name="scribe"), make(File)

        answer = run("listresources", "alice/letters", "--json").answer

        assert answer["total_count"] == {"agents": 1, "users": 0, "files": 1}
        first, last = answer["resources"]
        assert first.pop("created_at").endswith("Z")
        assert first.pop("updated_at").endswith("Z")
        assert first == {
            "id": str(agent.uuid),
            "kind": "agent",
            "name": "Scribe",
            "canonical_name": "scribe",
            "project": "alice/letters",
            "size": None,
        }
        assert (last["id"], last["size"], last["canonical_name"]) == (
            str(file.uuid),
            len(CONTENT),
            None,
        )

    def test_says_when_there_is_more_or_nothing(self, cast: Cast) -> None:
        for _ in range(3):
            make(EndUser)
        assert "2 of 3 are shown" in run("listresources", "alice", "--limit", "2").out
        assert "are shown" not in run("listresources", "alice", "--limit", "3").out
        limited = run("listresources", "alice", "--limit", "1", "--json").answer
        assert (len(limited["resources"]), limited["total_count"]["users"]) == (1, 3)
        assert run("listresources", "alice", "--kind", "agents").out == "'alice' holds none.\n"

    def test_names_forge_no_lines(self, cast: Cast) -> None:
        make(EndUser, "two\nlines\x1b[31m")
        assert "two lines\\u001b[31m" in run("listresources", "alice").out

    def test_refuses_in_one_sentence(self, cast: Cast) -> None:
        nobody, nowhere = run("listresources", "nobody"), run("listresources", "alice/missing")
        assert (nobody.code, nobody.refusal) == (2, "User 'nobody' does not exist.")
        assert nowhere.code == 2
        assert "'missing' does not exist" in nowhere.refusal
        assert "owner/handle" in run("listresources", "a/b/c").refusal
        assert run("listresources", "alice", "--kind", "all").code != 0


# --- moveresources --------------------------------------------------------------------------------
class TestMoveResources:
    @pytest.fixture(autouse=True)
    def _held(self, cast: Cast) -> None:
        make_project("alice", "archive")
        for kind in (Agent, EndUser, File):
            make(kind)
            make(kind, project="default")

    def test_moves_everything(self) -> None:
        ran = run("moveresources", "alice/letters", "archive")
        assert ran.out == ("1 agent, 1 user, 1 file moved from alice/letters to alice/archive\n")
        for kind in (Agent, EndUser, File):
            assert where(kind) == {"archive": 1, "default": 1}

    def test_moves_one_kind_and_answers_in_json(self) -> None:
        ran = run("moveresources", "alice/letters", "archive", "--kind", "files", "--json")
        assert ran.answer == {
            "source": "alice/letters",
            "target": "alice/archive",
            "moved": {"files": 1},
            "dry_run": False,
        }
        assert where(File) == {"archive": 1, "default": 1}
        assert where(Agent) == {"default": 1, "letters": 1}

    def test_moves_some_or_none(self) -> None:
        rows = [str(make(EndUser).uuid) for _ in range(2)]
        by_id = ("moveresources", "alice/letters", "archive", "--kind", "users", "--id")
        assert run(*by_id, *rows).code == 0
        assert where(EndUser) == {"archive": 2, "default": 1, "letters": 1}
        with nothing_changes():
            left = str(EndUser.objects.get(project__handle="letters").uuid)
            ran = run(*by_id, left, rows[0])
        assert ran.code == 2
        assert f"has no user '{rows[0]}'" in ran.refusal

    def test_a_dry_run_moves_nothing_and_refuses_as_much(self) -> None:
        with nothing_changes():
            ran = run("moveresources", "alice/letters", "archive", "--dry-run")
            missing = run("moveresources", "alice/letters", "missing", "--dry-run")
        assert "1 agent, 1 user, 1 file would move" in ran.out
        assert missing.code == 2

    def test_a_project_is_no_other_project(self) -> None:
        with nothing_changes():
            ran = run("moveresources", "alice/letters", "LETTERS", "--json")
        assert ran.answer["moved"] == {"agents": 0, "users": 0, "files": 0}

    def test_refuses_in_one_sentence(self, cast: Cast) -> None:
        make_project("sam", "foreign", instance="builtin", instance_owner="_system")
        identifier = str(uuid4())
        with nothing_changes():
            foreign = run("moveresources", "alice/letters", "foreign")
            without_kind = run("moveresources", "alice/letters", "archive", "--id", identifier)
            nobody = run("moveresources", "nobody/letters", "archive")
            no_id = run("moveresources", "alice/letters", "archive", "--kind", "users", "--id", "x")
        assert (foreign.code, without_kind.code, nobody.code) == (2, 2, 2)
        assert "'foreign' does not exist" in foreign.refusal
        assert "--id needs --kind" in without_kind.refusal
        assert nobody.refusal == "User 'nobody' does not exist."
        assert "UUID" in no_id.refusal


# --- checkfiles -----------------------------------------------------------------------------------
def path_of(file: File) -> Path:
    return Path(file.content.path)


def orphan(folder: Path, name: str = "ab/" + "0" * 32, *, hours: float = 2) -> Path:
    """Put bytes into the storage that no file refers to."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"left over")
    then = time.time() - hours * 3600
    os.utime(path, (then, then))
    return path


class TestCheckFiles:
    def test_passes_where_nothing_is_wrong(self, cast: Cast, files_folder: Path) -> None:
        assert run("checkfiles").out == "passed: 0 files, 0 damaged, 0 orphans, 0 deleted\n"
        make(File)
        ran = run("checkfiles", "--verify", "--json")
        assert ran.code == 0
        assert ran.answer == {
            "status": "passed",
            "files": 1,
            "damaged": [],
            "orphans": [],
            "deleted_orphans": 0,
        }

    def test_finds_bytes_that_are_gone_cut_or_changed(self, cast: Cast) -> None:
        gone, cut, changed = make(File, "gone"), make(File, "two\nlines"), make(File, "changed")
        make(File, "good")
        path_of(gone).unlink()
        path_of(cut).write_bytes(CONTENT[:-1])
        path_of(changed).write_bytes(CONTENT[::-1])

        ran = run("checkfiles")
        verified = run("checkfiles", "--verify", "--json")

        assert (ran.code, verified.code) == (1, 1)
        assert ran.out.splitlines() == [
            f"missing: file {gone.uuid} 'gone' of alice/letters: its bytes are missing",
            f"size: file {cut.uuid} 'two lines' of alice/letters: its bytes are fewer or more "
            "than were uploaded",
            "failed: 4 files, 2 damaged, 0 orphans, 0 deleted",
        ]
        assert verified.answer["status"] == "failed"
        assert verified.answer["damaged"][2] == {
            "problem": "hash",
            "id": str(changed.uuid),
            "name": "changed",
            "project": "alice/letters",
            "stored_as": changed.content.name,
        }

    def test_finds_and_deletes_bytes_that_belong_to_no_file(
        self, cast: Cast, files_folder: Path
    ) -> None:
        file = make(File)
        old = orphan(files_folder)
        then = time.time() - 7200
        os.utime(path_of(file), (then, then))

        found = run("checkfiles", "--json")

        assert found.code == 1
        (left,) = found.answer["orphans"]
        assert (left["stored_as"], left["size"]) == ("ab/" + "0" * 32, 9)
        assert old.exists()
        deleted = run("checkfiles", "--delete-orphans")
        assert deleted.code == 1
        assert "0 damaged, 1 orphans, 1 deleted" in deleted.out
        assert not old.exists()
        assert path_of(file).read_bytes() == CONTENT
        assert run("checkfiles").code == 0

    def test_the_daily_sweep_does_the_same(self, cast: Cast, files_folder: Path) -> None:
        file, old, new = make(File), orphan(files_folder), orphan(files_folder, "cd/" + "1" * 32)
        os.utime(new)
        sweep_orphans()
        assert not old.exists()
        assert new.exists()
        assert path_of(file).read_bytes() == CONTENT

    def test_leaves_uploads_that_go_on_and_what_is_not_ours(
        self, cast: Cast, files_folder: Path
    ) -> None:
        left = [
            orphan(files_folder, hours=0.9),
            orphan(files_folder, "ab/readme"),
            orphan(files_folder, "readme"),
            orphan(files_folder, "ab/cd/" + "0" * 32),
        ]
        assert run("checkfiles", "--delete-orphans").code == 0
        assert all(each.exists() for each in left)

    def test_bytes_that_a_file_refers_to_meanwhile_are_not_deleted(self, cast: Cast) -> None:
        file = make(File)
        names = [str(file.content.name)]
        assert services.delete_orphans(actor=BOOTSTRAP_ADMIN, names=names) == 0
        assert path_of(file).exists()
        with pytest.raises(Unauthenticated):
            services.delete_orphans(actor=ANONYMOUS, names=names)

    def test_says_when_the_storage_cannot_be_read(self, cast: Cast, files_folder: Path) -> None:
        files_folder.write_text("no folder")
        ran = run("checkfiles")
        assert ran.code == 2
        assert "The storage does not answer" in ran.refusal


@pytest.mark.parametrize("command", ["listresources", "moveresources", "checkfiles"])
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command(command, "--help")
    assert f"\n  manage.py {command}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_a_move_that_waits_for_the_deletion_of_its_target_is_refused(cast: Cast) -> None:
    make(EndUser)
    make_project("alice", "archive")
    move: Any = lambda: run("moveresources", "alice/letters", "archive")  # noqa: E731
    archive: dict[str, Any] = {"actor": BOOTSTRAP_ADMIN, "owner": "alice", "handle": "archive"}
    ran: Any = while_waiting(lambda: delete_project(**archive), move)
    assert (ran.code, ran.refusal) == (2, "The project 'archive' does not exist any more.")
    assert where(EndUser) == {"letters": 1}
