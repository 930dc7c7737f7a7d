"""Tasks that only tests ask for. They write lines into a file, which outlives any transaction."""

import os
import time
from pathlib import Path

from django.contrib.auth.models import Group
from django.db import connection, transaction

from common import jobs
from common.errors import Invalid


def note(file: str, line: str) -> None:
    """Append a line, whole."""
    with Path(file).open("a") as stream:
        stream.write(f"{time.time()} {os.getpid()} {line}\n")


def notes(file: Path) -> list[str]:
    """Return the lines without time and process."""
    return (
        [line.split(" ", 2)[2] for line in file.read_text().splitlines()] if file.exists() else []
    )


@jobs.task("tests.write")
def write(*, file: str, line: str) -> None:
    """Note a line."""
    note(file, line)


@jobs.task("tests.take_long")
def take_long(*, file: str, line: str, seconds: float) -> None:
    """Note the begin and the end, and hear nothing in between."""
    note(file, f"{line} begins")
    time.sleep(seconds)
    note(file, f"{line} ends")


@jobs.task("tests.take_steps")
def take_steps(*, file: str, seconds: float) -> None:
    """Take long, but stop between two steps when asked to."""
    note(file, "begins")
    for _ in range(int(seconds * 20)):
        jobs.checkpoint()
        time.sleep(0.05)
    note(file, "ends")


@jobs.task("tests.fail", pauses_s=(0.1, 0.2))
def fail(*, file: str) -> None:
    """Fail in the middle of a transaction that it has begun."""
    note(file, "tries")
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT 1/0")


@jobs.task("tests.refuse")
def refuse() -> None:
    """Refuse."""
    raise Invalid("Line 7 is no JSON.")


@jobs.task("tests.deadly")
def deadly(*, file: str) -> None:
    """End the process as the kernel does that has no memory left."""
    note(file, "tries")
    os._exit(137)


@jobs.task("tests.count")
def count(*, file: str) -> None:
    """Note how many groups there are, and ask for another job in the same transaction."""
    with transaction.atomic():
        note(file, str(Group.objects.count()))
        jobs.defer("tests.write", file=file, line="after")


FAIL_SIMPLY = "tests.fail_simply"


@jobs.task(FAIL_SIMPLY)
def fail_simply(*, file: str) -> None:
    """Fail until the file exists."""
    if not Path(file).exists():
        raise RuntimeError("no more")
