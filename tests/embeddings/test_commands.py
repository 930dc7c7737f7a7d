"""loadembeddings, exportembeddings, loaddemo and sanitycheck, with real texts and vectors."""

import base64
import gzip
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from accounts.models import ApiKey, User
from accounts.policy import BOOTSTRAP_ADMIN
from embeddings import demo, files, store
from embeddings.batches import Expected
from embeddings.files import _jsonl
from embeddings.files._parquet import read_parquet
from embeddings.imports import _Seen
from embeddings.models import Embedding
from projects.models import Project
from projects.services import update_project
from tests.factories import Caller, make_project, make_user

pytestmark = pytest.mark.django_db

BUILTIN = {"instance_owner": "_system", "instance_handle": "builtin"}
NAME = "alice/articles"


def articles(count: int) -> list[dict[str, Any]]:
    """Return the first rows of the demo's file; vectors as float16 arrays."""
    table = pq.read_table(demo.DATA).slice(0, count)
    vectors: Any = table["vector"].combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    columns = (table[name].to_pylist() for name in ("text_id", "text", "metadata"))
    return [
        {"text_id": text_id, "text": text, "metadata": json.loads(metadata), "vector": vector}
        for text_id, text, metadata, vector in zip(*columns, flat.reshape(count, 512), strict=True)
    ]


def line(row: dict[str, Any], **changes: Any) -> bytes:
    """Return a row as a line of JSON."""
    values = {**row, **changes}
    if isinstance(values.get("vector"), np.ndarray):
        values["vector"] = values["vector"].astype(float).tolist()
    return json.dumps(values, ensure_ascii=False).encode() + b"\n"


def table_of(rows: list[dict[str, Any]], vector_type: pa.DataType | None = None) -> pa.Table:
    """Return rows as an Arrow table; metadata as text."""
    vectors = pa.array([row["vector"].tolist() for row in rows], vector_type)
    return pa.table(
        {
            "text_id": [row["text_id"] for row in rows],
            "text": [row["text"] for row in rows],
            "metadata": [json.dumps(row["metadata"]) for row in rows],
            "vector": vectors,
        }
    )


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str
    refusal: str = ""

    @property
    def summary(self) -> dict[str, Any]:
        """What --json printed, without the time."""
        summary: dict[str, Any] = json.loads(self.out)
        assert summary.pop("seconds") >= 0
        return summary

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Stored, replaced, skipped, rejected."""
        summary = self.summary
        names = ("stored", "replaced", "skipped", "rejected")
        stored, replaced, skipped, rejected = (int(summary[name]) for name in names)
        assert summary["rows"] >= stored + replaced + skipped + rejected
        return stored, replaced, skipped, rejected


def run(*arguments: str | Path) -> Ran:
    """Run a command as a shell would."""
    out, err = io.StringIO(), io.StringIO()
    code, refusal = 0, ""
    try:
        call_command(*map(str, arguments), stdout=out, stderr=err)
    except SystemExit as ended:
        code = int(ended.code or 0)
    except CommandError as refused:
        code, refusal = refused.returncode, str(refused)
        assert "\n" not in refusal
    return Ran(code, out.getvalue(), err.getvalue(), refusal)


def load(path: Path, *options: str | Path, project: str = NAME) -> Ran:
    """Run loadembeddings with --json."""
    return run("loadembeddings", path, "--project", project, "--json", *options)


def stored(project: str = NAME) -> dict[str, store.Row]:
    """Return everything a project holds, by id."""
    owner, handle = project.split("/")
    number = Project.objects.get(owner__handle=owner, handle=handle).pk
    return {row.text_id: row for row in store.page(number, limit=10_000, offset=0)}


def write(path: Path, parts: Iterable[bytes]) -> Path:
    """Write a file; compressed where its name says so."""
    data = b"".join(parts)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def alice(db: None) -> Caller:
    """Alice with a project of 512 dimensions."""
    caller = make_user("alice")
    make_project("alice", "articles", **BUILTIN)
    return caller


@pytest.mark.usefixtures("alice")
class TestFormats:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "A.JSONL"])
    def test_json_lines(self, tmp_path: Path, name: str) -> None:
        rows = articles(25)

        ran = load(write(tmp_path / name, map(line, rows)), "--batch-size", "10")

        assert ran.code == 0
        assert ran.summary == {
            "project": NAME, "rows": 25, "stored": 25, "replaced": 0, "skipped": 0, "rejected": 0,
            "warnings": [], "complete": True, "stopped": None,
        }  # fmt: skip
        self.same(rows)

    @pytest.mark.parametrize(
        "vector_type",
        [
            pa.list_(pa.float16(), 512),
            pa.list_(pa.float32()),
            pa.large_list(pa.float64()),
            pa.list_(pa.float32(), 512),
        ],
        ids=str,
    )
    def test_parquet(self, tmp_path: Path, vector_type: pa.DataType) -> None:
        rows = articles(25)
        path = tmp_path / "a.parquet"
        pq.write_table(table_of(rows, vector_type), path, row_group_size=7)

        assert load(path, "--batch-size", "10").counts == (25, 0, 0, 0)
        self.same(rows)

    def test_parquet_with_structs_dictionaries_and_missing_columns(self, tmp_path: Path) -> None:
        rows = articles(5)
        table = table_of(rows).drop_columns(["text"])
        metadata = pa.array([row["metadata"] for row in rows])
        table = table.set_column(1, "metadata", metadata)
        table = table.set_column(0, "text_id", table["text_id"].dictionary_encode())
        table = table.append_column("other", pa.array([b"x"] * 5))
        path = tmp_path / "a.parquet"
        pq.write_table(table, path)

        assert load(path).counts == (5, 0, 0, 0)
        found = stored()
        assert [json.loads(found[row["text_id"]].metadata) for row in rows] == [
            row["metadata"] for row in rows
        ]
        assert {row.text for row in found.values()} == {""}

    def test_base64_vectors_and_metadata_as_text(self, tmp_path: Path) -> None:
        rows = articles(3)
        lines = [
            line(
                row,
                vector=base64.b64encode(row["vector"].astype("<f4").tobytes()).decode(),
                metadata=json.dumps(row["metadata"]),
                vector_dim=512,
                instance_handle="_system/builtin",
            )
            for row in rows
        ]
        assert load(write(tmp_path / "a.jsonl", lines)).counts == (3, 0, 0, 0)
        self.same(rows)

    def test_standard_input(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = articles(3)
        data = b"\xef\xbb\xbf" + b"\n\n".join(map(line, rows))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert load(Path("-")).counts == (3, 0, 0, 0)
        self.same(rows)

    def test_the_format_can_be_said(self, tmp_path: Path) -> None:
        path = write(tmp_path / "articles.txt", map(line, articles(2)))
        assert "--format" in load(path).refusal
        assert load(path, "--format", "jsonl").counts == (2, 0, 0, 0)

    @staticmethod
    def same(rows: list[dict[str, Any]]) -> None:
        found = stored()
        assert len(found) == len(rows)
        for row in rows:
            kept = found[row["text_id"]]
            assert kept.vector.tolist() == row["vector"].astype(np.float32).tolist()
            assert (kept.text, json.loads(kept.metadata)) == (row["text"], row["metadata"])


@pytest.mark.usefixtures("alice")
class TestColumns:
    def test_csv_is_guessed_and_told(self, tmp_path: Path) -> None:
        vector = json.dumps(articles(1)[0]["vector"].astype(float).tolist())
        path = tmp_path / "letters.csv"
        path.write_text(
            f'nr;text;embedding;year;author\n1;"Dear Bob;\n""hello""";"{vector}";1801;Ann\n'
            f'2;Dear Ann;"{vector}";;\n3;too few\n',
            encoding="utf-8-sig",
        )

        ran = load(path)

        assert (ran.code, ran.counts) == (1, (2, 0, 0, 1))
        told = "--columns nr=id text=text embedding=vector year=number author=string"
        assert told in ran.err
        # As spreadsheets count: the names of the columns are the first row.
        assert "row 4: The row has 2 cells; there are 5 columns." in ran.err
        found = stored()
        assert found["1"].text == 'Dear Bob;\n"hello"'
        assert json.loads(found["1"].metadata) == {"year": 1801, "author": "Ann"}
        assert found["2"].metadata == b"{}"
        assert load(path).counts == (0, 0, 2, 1)

    @pytest.mark.parametrize("number", ["1e999", "-1e999", "123456789012345678901234567890"])
    def test_a_number_that_does_not_fit_is_refused(self, tmp_path: Path, number: str) -> None:
        vector = json.dumps(articles(1)[0]["vector"].astype(float).tolist())
        path = tmp_path / "letters.csv"
        path.write_text(f'id,text,v,n\n1,a,"{vector}",1e3\n2,b,"{vector}",{number}\n')

        ran = load(path)

        assert (ran.code, ran.counts) == (1, (1, 0, 0, 1))
        assert "does not fit into 64 bits" in ran.err
        assert json.loads(stored()["1"].metadata) == {"n": 1000.0}

    @pytest.mark.parametrize("name", ["a.jsonl", "a.csv.gz", "a.parquet"])
    def test_columns_can_be_said(self, tmp_path: Path, name: str) -> None:
        row = {"key": "k", "words": "Dear Bob", "numbers": articles(1)[0]["vector"], "year": 1801}
        numbers = row["numbers"].astype(float).tolist()
        path = tmp_path / name
        if name == "a.parquet":
            pq.write_table(pa.table({each: [row[each]] for each in row}), path)
        elif name == "a.jsonl":
            write(path, [line({**row, "numbers": numbers})])
        else:
            cells = f'k,Dear Bob,"{numbers}",1801\n'.encode()
            write(path, [b"key,words,numbers,year\n", cells])

        uses = ["key=id", "words=text", "numbers=vector", "year=number"]
        assert load(path, "--columns", *uses).counts == (1, 0, 0, 0)
        kept = stored()["k"]
        assert (kept.text, json.loads(kept.metadata)) == ("Dear Bob", {"year": 1801})
        assert "Say which column" in load(path, "--columns", "key=id").refusal
        if name != "a.jsonl":
            assert "no column 'x'" in load(path, "--columns", "x=text").refusal

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"", "it is empty"),
            (b"text,text\na,b\n", "several columns 'text'"),
            (b"text\n\xff\n", "not UTF-8"),
            (b'text\n"never closed\n', "no CSV"),
            (b'text\n"' + b"x" * 33 * 1024**2 + b'"\n', "field larger"),
        ],
        ids=["empty", "twice", "encoding", "quotes", "cell"],
    )
    def test_damaged_csv_stores_nothing(self, tmp_path: Path, content: bytes, reason: str) -> None:
        ran = load(write(tmp_path / "a.csv", [content]), "--columns", "text=text")
        assert ran.code == 2
        assert reason in ran.refusal
        assert stored() == {}

    def test_a_bomb_is_read_in_bounded_memory(self, tmp_path: Path) -> None:
        # A kilobyte of it unpacks to a megabyte.
        path = write(tmp_path / "a.csv.gz", [b"text\n", b"\n" * 20_000_000])
        assert path.stat().st_size < 100_000
        assert load(path, "--columns", "text=text").counts == (0, 0, 0, 0)


@pytest.mark.usefixtures("alice")
class TestBadRows:
    def test_each_is_told_and_the_others_are_stored(self, tmp_path: Path) -> None:
        good = articles(4)
        vector = good[0]["vector"].astype(float).tolist()
        bad: list[tuple[bytes, str]] = [
            (
                line(good[0], text_id="short", vector=vector[:-1]),
                "expected 512 dimensions, got 511",
            ),
            (line(good[0], text_id="zero", vector=[0] * 512), "no direction"),
            (line(good[0], text_id="huge", vector=[1e39] * 512), "too large"),
            (line(good[0], text_id="nan", vector=[float("nan")] * 512), "not valid JSON"),
            (line(good[0], text_id="words", vector=["1"] * 512), "numbers only"),
            (line(good[0], text_id="nested", vector=[[1.0]] * 512), "flat list"),
            (line(good[0], text_id="base", vector="AAA"), "base64"),
            (line(good[0], text_id="x" * 301), "1 to 300 characters"),
            (line(good[0], text_id=""), "1 to 300 characters"),
            (line(good[0], text_id=7), "must be a string"),
            (line({"vector": vector}), "text_id is required"),
            (line({"text_id": "bare"}), "vector is required"),
            (line(good[0], text_id="nul\x00"), "U+0000"),
            (line(good[0], text_id="nul-text", text="\x00"), "U+0000"),
            (line(good[0], text_id="list", metadata=[1]), "JSON object"),
            (line(good[0], text_id="half", metadata="{"), "metadata is not valid JSON"),
            (line(good[0], text_id="other", instance_handle="ada/large"), "instance_handle"),
            (line(good[0], text_id="dim", vector_dim=3), "declares 3 dimensions"),
            (b"not JSON\n", "not valid JSON"),
            (b"\xff\xfe\n", "not valid JSON"),
            (b"[1, 2]\n", "not a JSON object"),
            (line(good[1]), "occurs earlier in the file"),
        ]
        lines = [*map(line, good), *(each for each, _ in bad)]
        errors = tmp_path / "errors.jsonl"

        ran = load(write(tmp_path / "a.jsonl", lines), "--batch-size", "3", "--errors", errors)

        assert ran.code == 1
        assert ran.counts == (4, 0, 0, len(bad))
        assert set(stored()) == {row["text_id"] for row in good}
        told = ran.err.splitlines()
        assert len(told) == len(bad)
        for number, (sentence, (_, reason)) in enumerate(zip(told, bad, strict=True), 5):
            assert sentence.startswith(f"row {number}")
            assert reason in sentence
        assert told[0].startswith("row 5 'short': ")
        kept = [json.loads(each) for each in errors.read_text().splitlines()]
        assert [each["row"] for each in kept] == list(range(5, 5 + len(bad)))
        assert kept[0]["text_id"] == "short"

    def test_in_parquet(self, tmp_path: Path) -> None:
        rows = articles(8)
        table = table_of(rows, pa.list_(pa.float64()))
        vectors = [row["vector"].astype(float).tolist() for row in rows]
        vectors[0] = vectors[0][:5]
        vectors[1][7] = float("nan")
        vectors[2][7] = None
        vectors[3] = [0.0] * 512
        vectors[4] = None
        vectors[5][0] = 1e300
        texts = [None if row == 4 else each["text"] for row, each in enumerate(rows)]
        table = table.set_column(1, "text", pa.array(texts))
        table = table.set_column(3, "vector", pa.array(vectors, pa.list_(pa.float64())))
        ids = [row["text_id"] for row in rows]
        ids[6] = None
        path = tmp_path / "a.parquet"
        pq.write_table(table.set_column(0, "text_id", pa.array(ids)), path)

        ran = load(path)

        assert (ran.code, ran.counts) == (1, (1, 0, 0, 7))
        reasons = [
            "got 5", "not finite", "not finite", "no direction", "vector is required", "too large",
            "text_id is required",
        ]  # fmt: skip
        for number, (sentence, reason) in enumerate(
            zip(ran.err.splitlines(), reasons, strict=True), 1
        ):
            assert sentence.startswith(f"row {number}")
            assert reason in sentence

    def test_of_another_schema(self, tmp_path: Path) -> None:
        update_project(
            actor=BOOTSTRAP_ADMIN,
            owner="alice",
            handle="articles",
            changes={"metadataScheme": {"required": ["title"], "properties": {"title": {}}}},
        )
        first, second, third = articles(3)
        second["metadata"] = {"name": "?"}
        third["metadata"] = None

        ran = load(write(tmp_path / "a.jsonl", map(line, (first, second, third))))

        assert ran.counts == (1, 0, 0, 2)
        assert f"row 2 {second['text_id']!r}: metadata does not match" in ran.err
        assert "row 3" in ran.err

    def test_cannot_forge_lines(self, tmp_path: Path) -> None:
        row = line(articles(1)[0], text_id="a\nrow 9: \x1b[31m", vector=[])
        ran = load(write(tmp_path / "a.jsonl", [row]))
        assert len(ran.err.splitlines()) == 1
        assert "\x1b" not in ran.err

    def test_too_long_a_line_is_skipped(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_jsonl, "MAXIMUM_LINE_BYTES", 50_000)
        first, second, third = articles(3)
        second["text"] = "long " * 40_000
        ran = load(write(tmp_path / "a.jsonl", map(line, (first, second, third))))
        assert ran.counts == (2, 0, 0, 1)
        assert ran.err.startswith("row 2: The line is longer")

    def test_stops_after_too_many(self, tmp_path: Path) -> None:
        lines = [b"{}\n"] * 20 + [line(articles(1)[0])]
        ran = load(write(tmp_path / "a.jsonl", lines), "--batch-size", "2", "--max-errors", "5")
        assert ran.code == 1
        assert "More than 5 rows" in ran.refusal
        assert ran.counts == (0, 0, 0, 6)
        assert ran.summary["complete"] is False


@pytest.mark.usefixtures("alice")
class TestRunningAgain:
    def test_skips_what_is_stored(self, tmp_path: Path) -> None:
        rows = articles(10)
        assert load(write(tmp_path / "a.jsonl", map(line, rows[:6]))).counts == (6, 0, 0, 0)
        rows[0]["text"] = "changed"
        ran = load(write(tmp_path / "a.jsonl", map(line, rows)), "--batch-size", "4")

        assert (ran.code, ran.counts) == (0, (4, 0, 6, 0))
        assert stored()[rows[0]["text_id"]].text != "changed"

    def test_replaces_on_demand(self, tmp_path: Path) -> None:
        rows = articles(6)
        load(write(tmp_path / "a.jsonl", map(line, rows[:4])))
        made = stored()[rows[0]["text_id"]].created_at
        rows[0] |= {"text": "changed", "metadata": {"new": True}, "vector": rows[5]["vector"]}

        ran = load(write(tmp_path / "a.jsonl", map(line, rows)), "--replace")

        assert (ran.code, ran.counts) == (0, (2, 4, 0, 0))
        changed = stored()[rows[0]["text_id"]]
        assert (changed.text, json.loads(changed.metadata)) == ("changed", {"new": True})
        assert changed.vector.tolist() == rows[5]["vector"].astype(np.float32).tolist()
        assert changed.created_at == made

    def test_completes_what_a_damaged_archive_began(self, tmp_path: Path) -> None:
        rows = articles(40)
        path = write(tmp_path / "a.jsonl.gz", map(line, rows))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])

        ran = load(path, "--batch-size", "10")

        assert ran.code == 2
        assert "cannot be read any further after line" in ran.refusal
        begun = ran.counts[0]
        assert 0 < begun < 40
        assert ran.counts[1:3] == (0, 0)
        assert len(stored()) == begun
        path.write_bytes(whole)
        assert load(path).counts == (40 - begun, 0, begun, 0)
        assert len(stored()) == 40

    def test_completes_what_damaged_parquet_began(self, tmp_path: Path) -> None:
        rows = articles(60)
        path = tmp_path / "a.parquet"
        pq.write_table(
            table_of(rows, pa.list_(pa.float32())), path, row_group_size=20, compression="zstd"
        )
        chunk = pq.ParquetFile(path).metadata.row_group(2).column(0)
        whole = path.read_bytes()
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        path.write_bytes(whole[:start] + b"\xff" * 60 + whole[start + 60 :])

        ran = load(path, "--batch-size", "10")

        assert ran.code == 2
        assert ran.counts == (40, 0, 0, 0)
        assert len(stored()) == 40
        path.write_bytes(whole)
        assert load(path).counts == (20, 0, 40, 0)

    def test_completes_after_ctrl_c(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rows = [line(row) for row in articles(30)]

        class Interrupted(io.RawIOBase):
            given = iter(rows[:25])

            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                part = next(self.given, None)
                if part is None:
                    raise KeyboardInterrupt
                buffer[: len(part)] = part
                return len(part)

        pipe = io.TextIOWrapper(io.BufferedReader(Interrupted(), 100_000))
        monkeypatch.setattr(sys, "stdin", pipe)
        ran = load(Path("-"), "--batch-size", "10")
        assert (ran.code, ran.counts) == (130, (20, 0, 0, 0))
        assert "run the same command again" in ran.err
        assert len(stored()) == 20

        whole = io.TextIOWrapper(io.BytesIO(b"".join(rows)))
        monkeypatch.setattr(sys, "stdin", whole)
        assert load(Path("-")).counts == (10, 0, 20, 0)

    def test_tells_what_was_stored_before_the_project_went_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [line(row) for row in articles(20)]

        class Slow(io.RawIOBase):
            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                if len(rows) == 5:
                    Project.objects.filter(handle="articles").delete()
                part = rows.pop(0) if rows else b""
                buffer[: len(part)] = part
                return len(part)

        pipe = io.TextIOWrapper(io.BufferedReader(Slow(), 100_000))
        monkeypatch.setattr(sys, "stdin", pipe)
        ran = load(Path("-"), "--batch-size", "4")
        assert (ran.code, ran.counts) == (2, (12, 0, 0, 0))
        assert ran.refusal == "Project 'alice/articles' does not exist."


@pytest.mark.usefixtures("alice")
class TestAllOrNothing:
    def test_stores_every_row(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", map(line, articles(12)))
        assert load(path, "--atomic", "--batch-size", "5").counts == (12, 0, 0, 0)
        assert len(stored()) == 12

    def test_stores_nothing_where_one_is_bad(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", [*map(line, articles(12)), b"{}\n"])
        ran = load(path, "--atomic", "--batch-size", "5")
        assert (ran.code, ran.counts) == (1, (0, 0, 0, 1))
        assert ran.summary["complete"] is False
        assert "row 13: text_id is required." in ran.err
        assert stored() == {}

    def test_stores_nothing_of_a_damaged_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl.gz", map(line, articles(12)))
        path.write_bytes(path.read_bytes()[:-2_000])
        ran = load(path, "--atomic", "--batch-size", "2")
        assert (ran.code, ran.counts[0]) == (2, 0)
        assert stored() == {}

    def test_is_for_files_of_bounded_size(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("embeddings.imports.MAXIMUM_ATOMIC_ROWS", 10)
        path = write(tmp_path / "a.jsonl", map(line, articles(12)))
        ran = load(path, "--atomic", "--batch-size", "5")
        assert ran.code == 2
        assert "up to 10 rows" in ran.refusal
        assert stored() == {}


class TestProject:
    def test_is_made_on_demand(self, tmp_path: Path) -> None:
        make_user("alice")
        path = write(tmp_path / "a.jsonl", map(line, articles(2)))
        assert load(path).refusal == "Project 'alice/articles' does not exist."

        again = ("--create", "--instance", "_system/builtin")
        assert load(path, *again).counts == (2, 0, 0, 0)
        assert load(path, *again).counts == (0, 0, 2, 0)
        assert str(Project.objects.get(handle="articles").instance) == "_system/builtin"

    def test_must_fit_what_is_asked(self, alice: Caller, tmp_path: Path) -> None:
        path = write(tmp_path / "a.jsonl", map(line, articles(2)))
        assert "go together" in load(path, "--create").refusal
        refused = load(path, "--create", "--instance", "alice/model").refusal
        assert "exists on the instance '_system/builtin'" in refused
        refused = load(path, "--create", "--instance", "al/model", project="bob/new").refusal
        assert refused == "User 'bob' does not exist."
        assert "owner/handle" in load(path, project="articles").refusal


@pytest.mark.usefixtures("alice")
class TestUnreadableFiles:
    @pytest.mark.parametrize(
        ("name", "data", "reason"),
        [
            ("a.parquet", b"garbage", "Parquet"),
            ("a.parquet", b"", "Parquet"),
            ("a.parquet", b"PAR1" + b"\x00" * 500 + b"PAR1", "Cannot read the file"),
            ("a.jsonl", b"PAR1abc", "--format parquet"),
            ("a.jsonl.gz", b"\x1f\x8b garbage", "cannot be read any further after line 0"),
        ],
    )
    def test_are_named(self, tmp_path: Path, name: str, data: bytes, reason: str) -> None:
        path = tmp_path / name
        path.write_bytes(data)
        ran = load(path)
        assert (ran.code, ran.counts) == (2, (0, 0, 0, 0))
        assert reason in ran.refusal

    def test_missing_and_truncated(self, tmp_path: Path) -> None:
        assert "No such file" in load(tmp_path / "none.jsonl").refusal
        assert "no such file" in load(tmp_path / "none.parquet").refusal
        assert "directory" in load(tmp_path, "--format", "jsonl").refusal
        path = tmp_path / "a.parquet"
        path.write_bytes(demo.DATA.read_bytes()[:500_000])
        assert load(path).code == 2

    @pytest.mark.parametrize(
        ("table", "reason"),
        [
            (pa.table({"text_id": ["a"]}), "needs one column vector"),
            (pa.table({"text_id": [1], "vector": [[1.0]]}), "text_id must hold text, not int64"),
            (pa.table({"text_id": ["a"], "vector": ["x"]}), "must hold lists of numbers"),
            (pa.table({"text_id": ["a"], "vector": [["x"]]}), "must hold lists of numbers"),
        ],
    )
    def test_of_other_columns(self, tmp_path: Path, table: pa.Table, reason: str) -> None:
        path = tmp_path / "a.parquet"
        pq.write_table(table, path)
        assert reason in load(path).refusal

    def test_that_unpack_to_far_more_than_they_are(self, tmp_path: Path) -> None:
        """T15: the file is small, each of its rows holds the same long text."""
        count = 1_000
        text = pa.DictionaryArray.from_arrays(
            np.zeros(count, np.int32), pa.array(["x" * 2_000_000])
        )
        table = pa.table(
            {
                "text_id": [str(each) for each in range(count)],
                "text": text,
                "vector": pa.array([[1.0] * 512] * count, pa.list_(pa.float32())),
            }
        )
        path = tmp_path / "bomb.parquet"
        pq.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 500_000
        rows = read_parquet(
            path, Expected("_system", "builtin", 512), batch_size=count, memory=1024**3
        )
        with pytest.raises(files.Unreadable, match=r"need more than 1024 MB"):
            list(rows)


@pytest.mark.usefixtures("alice")
class TestExport:
    @pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
    def test_gives_every_row_again(self, tmp_path: Path, name: str) -> None:
        rows = articles(300)
        vectors = np.random.default_rng(7).standard_normal((300, 512)).astype(np.float32)
        vectors *= np.float32(10) ** np.random.default_rng(8).integers(-9, 9, (300, 1))
        for given, vector in zip(rows[:200], vectors, strict=False):
            given["vector"] = vector
        rows[0]["metadata"] = {
            "big": 2**63 - 1, "huge": 1e300, "tiny": 5e-324, "one": 1.0, "é\n": [None, True, {}],
        }  # fmt: skip
        rows[1]["metadata"] = {}
        rows[2]["text"] = ""
        load(write(tmp_path / "in.jsonl", map(line, rows)))
        make_project("alice", "copy", **BUILTIN)

        ran = run("exportembeddings", NAME, tmp_path / name, "--json", "--batch-size", "77")

        assert ran.summary["rows"] == 300
        assert {each.name for each in tmp_path.iterdir()} == {"in.jsonl", name}
        assert load(tmp_path / name, project="alice/copy").counts == (300, 0, 0, 0)
        before, after = stored(), stored("alice/copy")
        assert list(before) == list(after)
        for text_id, row in before.items():
            copy = after[text_id]
            assert copy.vector.tobytes() == row.vector.tobytes()
            assert (copy.text, copy.metadata) == (row.text, row.metadata)
        for given in rows:
            row = after[given["text_id"]]
            assert row.vector.tolist() == given["vector"].astype("f4").tolist()
            # PostgreSQL writes 1e300 as a whole number, which orjson reads as what it was.
            assert orjson.loads(row.metadata) == given["metadata"]

    def test_goes_to_standard_output(
        self, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
    ) -> None:
        rows = articles(5)
        load(write(tmp_path / "in.jsonl", map(line, rows)))
        run("exportembeddings", NAME)
        lines = [json.loads(each) for each in capfdbinary.readouterr().out.splitlines()]
        assert [each["text_id"] for each in lines] == sorted(row["text_id"] for row in rows)
        assert lines[0]["vector_dim"] == len(lines[0]["vector"]) == 512

    def test_of_an_empty_project(self, tmp_path: Path) -> None:
        for name in ("a.jsonl", "a.parquet"):
            assert run("exportembeddings", NAME, tmp_path / name).code == 0
            assert load(tmp_path / name).counts == (0, 0, 0, 0)

    def test_shows_one_moment(self, tmp_path: Path) -> None:
        rows = articles(20)
        load(write(tmp_path / "in.jsonl", map(line, rows[:15])))
        project = Project.objects.get(handle="articles")
        parts = store.snapshot(project.pk, size=5)
        seen = [row.text_id for row in next(parts)]
        Embedding.objects.filter(project=project).delete()
        load(write(tmp_path / "in.jsonl", map(line, rows[15:])))
        seen += [row.text_id for part in parts for row in part]
        assert seen == sorted(row["text_id"] for row in rows[:15])

    def test_leaves_no_half_file(self, tmp_path: Path) -> None:
        load(write(tmp_path / "in.jsonl", map(line, articles(5))))
        kept = write(tmp_path / "out.jsonl", [b"before"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("common.json.render", _broken)
            assert run("exportembeddings", NAME, kept).code == 2
        assert kept.read_bytes() == b"before"
        assert {each.name for each in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl"}

    def test_refuses_in_one_sentence(self, tmp_path: Path) -> None:
        assert (
            "does not exist" in run("exportembeddings", "alice/none", tmp_path / "a.jsonl").refusal
        )
        refused = run("exportembeddings", NAME, tmp_path / "no" / "a.jsonl").refusal
        assert "Cannot write" in refused
        assert "--format" in run("exportembeddings", NAME, tmp_path / "a.csv").refusal
        assert "--json" in run("exportembeddings", NAME, "--json").refusal


def _broken(value: object) -> bytes:
    raise OSError(28, "No space left on device")


class TestDemo:
    def test_is_a_public_project_that_can_be_searched(self) -> None:
        ran = run("loaddemo")
        assert (ran.code, ran.err) == (0, "")
        assert ran.out == "Demo project demo/wikipedia-vital: 8000 rows, 8000 of them new.\n"
        project = Project.objects.get(owner__handle="demo", handle="wikipedia-vital")
        assert (store.count(project.pk), project.public_read) == (8_000, True)
        assert "CC BY-SA 4.0" in project.description
        assert not User.objects.get(handle="demo").has_usable_password()
        assert not ApiKey.objects.filter(user__handle="demo", revoked_at=None).exists()
        assert run("sanitycheck").code == 0

        found = Caller().get("/v1/similars/demo/wikipedia-vital/wiki:en:Mona_Lisa")
        assert found.status == 200
        assert len(found["results"]) > 0

    def test_is_completed_by_the_next_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        part = tmp_path / "part.parquet"
        pq.write_table(pq.read_table(demo.DATA).slice(0, 100), part)
        monkeypatch.setattr(demo, "DATA", part)
        name = "demo/wikipedia-vital"
        assert json.loads(run("loaddemo", "--json").out) == {
            "project": name, "rows": 100, "stored": 100,
        }  # fmt: skip
        assert run("loaddemo").out == f"Demo project {name} is complete: 100 rows.\n"

        Embedding.objects.filter(text_id__startswith="wiki:en:").delete()
        left = Embedding.objects.count()
        assert json.loads(run("loaddemo", "--json").out)["stored"] == 100 - left
        assert ApiKey.objects.filter(user__handle="demo").count() == 1


class TestSanityCheck:
    def test_passes_and_warns(self, alice: Caller, tmp_path: Path) -> None:
        assert run("sanitycheck").out.startswith("PASSED: ")
        load(write(tmp_path / "a.jsonl", map(line, articles(2))))
        ran = run("sanitycheck")
        assert ran.code == 0
        assert ran.out.startswith(
            "warning: Project alice/articles has 2 embeddings but no metadata"
        )

    def test_fails_with_issues(self, alice: Caller, tmp_path: Path) -> None:
        load(write(tmp_path / "a.jsonl", map(line, articles(2))))
        update_project(
            actor=BOOTSTRAP_ADMIN,
            owner="alice",
            handle="articles",
            changes={"metadataScheme": {"required": ["author"]}},
        )
        ran = run("sanitycheck", "--json")
        assert ran.code == 1
        report = json.loads(ran.out)
        assert (report["status"], report["issues_count"]) == ("FAILED", 2)
        assert len(run("sanitycheck").out.splitlines()) == 3


def test_ids_are_remembered_in_little_space() -> None:
    seen = _Seen()
    for start in range(0, 10_000, 500):
        ids = [f"id-{number}" for number in range(start, start + 500)]
        assert seen.split([*ids, ids[0]]) == (list(range(500)), [500])
    new, again = seen.split(["id-0", "new", "id-9999", "id-4321", "new"])
    assert (new, again) == ([1], [0, 2, 3, 4])
    assert sum(len(run) for run in seen._runs) == 10_001
    assert len(seen._runs) < 12
