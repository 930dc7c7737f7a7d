"""createowner, createkey, listkeys and revokekey."""

import io
import json
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from accounts.models import ApiKey, User
from accounts.selectors import usable_key
from projects.models import Project
from tests.factories import Caller, Cast, make_user

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    """Run a command as a shell would and return what it prints."""
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def asked(*arguments: str) -> Any:
    """Run a command with --json and return what it answers."""
    return json.loads(run(*arguments, "--json"))


def refusal(*arguments: str) -> str:
    """Run a command that must fail, and return its sentence."""
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    message = str(refused.value)
    assert "\n" not in message
    return message


class TestCreateOwner:
    def test_makes_an_account_whose_printed_key_works(self) -> None:
        out = run("createowner", "alice", "--name", "Alice Doe", "--email", "a@example.org")

        key = next(word for word in out.split() if word.startswith("arm_"))
        assert Caller(key).get("/v1/users/alice")["name"] == "Alice Doe"
        assert Project.objects.filter(owner__handle="alice", is_default=True).exists()
        assert not User.objects.get(handle="alice").has_usable_password()

    def test_answers_in_json(self) -> None:
        answer = asked("createowner", "alice", "--admin")

        assert answer.pop("api_key").startswith("arm_")
        assert answer == {"user_handle": "alice", "name": "", "email": None, "is_admin": True}
        assert User.objects.get(handle="alice").is_superuser

    def test_takes_a_password_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALICES", "correct horse battery")

        out = run("createowner", "alice", "--password-env", "ALICES")

        assert "correct horse" not in out
        assert User.objects.get(handle="alice").check_password("correct horse battery")

    def test_refuses_a_weak_or_missing_password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ALICES", "short")
        assert "12 characters" in refusal("createowner", "alice", "--password-env", "ALICES")
        assert "not set" in refusal("createowner", "alice", "--password-env", "NOBODYS")
        monkeypatch.setattr(sys, "stdin", io.StringIO("whatever"))
        assert "no terminal" in refusal("createowner", "alice", "--password-prompt")
        assert not User.objects.filter(handle="alice").exists()

    def test_refuses_in_one_sentence(self) -> None:
        make_user("alice")
        assert refusal("createowner", "Alice") == "User 'alice' already exists."
        assert "3 to 20" in refusal("createowner", "a b")
        assert "reserved" in refusal("createowner", "admin")
        assert "not an email" in refusal("createowner", "bob", "--email", "nowhere")
        assert "50 characters" in refusal("createowner", "bob", "--name", "b" * 51)


class TestCreateKey:
    def test_makes_a_key_that_works(self, cast: Cast) -> None:
        out = run("createkey", "alice", "--name", "laptop")

        key = next(word for word in out.split() if word.startswith("arm_"))
        assert Caller(key).get("/v1/projects/alice/letters").status == 200
        assert ApiKey.objects.get(name="laptop").user.handle == "alice"

    def test_caps_role_project_and_time(self, cast: Cast) -> None:
        answer = asked(
            "createkey", "alice", "--role", "reader", "--project", "alice/letters",
            "--expires", "30d",
        )  # fmt: skip

        key = usable_key(answer["api_key"])
        assert key is not None
        assert key.expires_at is not None
        assert (key.role_cap, key.project) == ("reader", cast.project)
        assert abs(key.expires_at - timezone.now() - timedelta(days=30)) < timedelta(minutes=1)
        assert answer["project"] == "alice/letters"
        caller = Caller(answer["api_key"])
        assert caller.get("/v1/embeddings/alice/letters").status == 200
        assert caller.delete("/v1/embeddings/alice/letters").status == 403

    def test_takes_a_date(self, cast: Cast) -> None:
        answer = asked("createkey", "alice", "--expires", "2999-01-01")
        assert answer["expires_at"].startswith("2999-01-01T00:00:00")

    @pytest.mark.parametrize("when", ["yesterday", "1999-01-01", "0d", "30", "-3d", "30 d"])
    def test_refuses_other_times(self, cast: Cast, when: str) -> None:
        with pytest.raises(CommandError, match=r"--expires"):
            run("createkey", "alice", f"--expires={when}")

    def test_refuses_what_the_account_cannot_reach(self, cast: Cast) -> None:
        assert "no access" in refusal("createkey", "sam", "--project", "alice/letters")
        assert "does not exist" in refusal("createkey", "alice", "--project", "alice/missing")
        assert refusal("createkey", "nobody") == "User 'nobody' does not exist."
        assert "cannot have keys" in refusal("createkey", "_system")


class TestListAndRevoke:
    def test_a_key_is_listed_without_its_secret_and_revoked_at_once(self, cast: Cast) -> None:
        key = str(cast.rita.key)
        (listed,) = asked("listkeys", "rita")["keys"]
        assert (listed["name"], listed["works"]) == ("first key", True)
        assert listed["key_id"] in run("listkeys", "rita")
        assert key not in run("listkeys", "rita")

        assert run("revokekey", listed["key_id"]) == "1 key revoked.\n"

        assert cast.rita.get("/v1/projects/alice/letters").status == 401
        assert asked("listkeys", "rita")["keys"][0]["works"] is False
        assert "revoked" in run("listkeys", "rita")
        assert "revoked already" in refusal("revokekey", listed["key_id"])

    def test_a_leaked_key_can_be_given_itself(self, cast: Cast) -> None:
        assert asked("revokekey", str(cast.rita.key)) == {"revoked": 1}
        assert cast.rita.get("/v1/projects/alice/letters").status == 401

    def test_revokes_all_keys_of_one_account(self, cast: Cast) -> None:
        run("createkey", "alice")
        assert run("revokekey", "alice", "--all") == "2 keys revoked.\n"
        assert cast.alice.get("/v1/projects/alice/letters").status == 401
        assert cast.rita.get("/v1/projects/alice/letters").status == 200

    def test_refuses_in_words_that_hold_no_key(self, cast: Cast) -> None:
        unknown = "arm_" + "x" * 61
        assert unknown not in refusal("revokekey", unknown)
        assert "no key 'nothing'" in refusal("revokekey", "nothing")
        assert "does not exist" in refusal("revokekey", "nobody", "--all")

    def test_says_when_there_are_none(self) -> None:
        user = make_user("alice")
        ApiKey.objects.filter(user__handle=user.handle).delete()
        assert "no keys" in run("listkeys", "alice")


@pytest.mark.parametrize("command", ["createowner", "createkey", "listkeys", "revokekey"])
def test_help_shows_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        call_command(command, "--help")
    assert f"\n  manage.py {command} alice" in capsys.readouterr().out or command == "revokekey"
