"""``cosd batch`` on Ray Data: one answer per row, whatever ends a run."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="make test-ray installs Ray")

import pyarrow
import pyarrow.parquet

from cosd_core import Chat
from tests.serving.servers import decoder

WEIGHTS = Path(__file__).parents[2] / "examples/bundled_pairs/weights"
PAIR = ("--draft", str(WEIGHTS / "caller"), "--assistant", str(WEIGHTS / "talker"), "--alpha", "0.9")
ROWS = [{"prompt": f"Hello {number}", "id": number, "mark": "\u2028ä\ud800"} for number in range(48)]
LONG = {"prompt": "x " * 3000, "id": 48}


def batch(folder: Path, *flags: str, rows: str = "rows.jsonl") -> subprocess.Popen[str]:
    command = [
        sys.executable, "-m", "cosd_core", "batch", str(folder / rows), str(folder / "answers"),
        *PAIR, "--max-new-tokens", "12", "--part-rows", "4", "--dtype", "float32", *flags,
    ]  # fmt: skip
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process: subprocess.Popen[str]) -> str:
    """The standard error of a run that succeeds."""
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 0, errors
    return errors


def parts(folder: Path) -> dict[str, int]:
    """The finished parts, with the times when they were written."""
    return {each.name: each.stat().st_mtime_ns for each in sorted((folder / "answers").glob("part-*.jsonl"))}


def lines(folder: Path) -> list[dict[str, Any]]:
    texts = [(folder / "answers" / name).read_text(encoding="utf-8") for name in parts(folder)]
    return [json.loads(line) for line in "".join(texts).split("\n") if line]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = "".join(f"{json.dumps(row)}\n" for row in [*ROWS, LONG])
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def test_a_killed_run_is_continued_and_every_row_is_answered_once(folder: Path) -> None:
    first = batch(folder, "--provenance")
    ends = time.monotonic() + 240
    while not parts(folder):
        assert time.monotonic() < ends, "no part was written"
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    (folder / "answers/part-000011.jsonl.unfinished").write_text("half a", encoding="utf-8")
    kept = parts(folder)
    assert 0 < len(kept) < 13

    finish(batch(folder, "--provenance"))
    assert {name: parts(folder)[name] for name in kept} == kept, "a finished part was written again"
    answers = lines(folder)
    assert [{name: answer[name] for name in row} for row, answer in zip(ROWS, answers, strict=False)] == ROWS
    assert [answer["id"] for answer in answers] == list(range(49))
    prompts = [Chat([{"role": "user", "content": row["prompt"]}]) for row in ROWS]
    texts = [each.text for each in decoder().generate(prompts, max_new_tokens=12)]
    assert [answer["text"] for answer in answers[:48]] == texts
    assert all(answer["provenance"]["tokens"] for answer in answers[:48])
    assert answers[48]["text"] is None
    assert "context window" in answers[48]["error"]

    written = parts(folder)
    finish(batch(folder, "--provenance"))  # nothing is left to do
    assert parts(folder) == written


def test_a_model_that_cannot_be_loaded_is_an_error_of_ours(folder: Path) -> None:
    (folder / "empty").mkdir()
    process = batch(folder, "--draft", str(folder / "empty"))
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 1
    assert "error: " in errors
    assert "empty" in errors.rpartition("error: ")[2]
    assert "Traceback" not in errors


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "127.0.0.1:x", "127.0.0.1:99999", "auto"])
def test_an_address_of_no_cluster_is_refused_at_once(
    folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    process = batch(folder)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert f"RAY_ADDRESS='{address}' should be the address of a running cluster" in errors
    assert "Traceback" not in errors


def test_without_an_address_the_error_names_what_keeps_ray_from_starting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(folder / "file"))
    process = batch(folder)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "error: Ray does not start on this machine: " in errors
    assert "RAY_ADDRESS" not in errors
    assert "Traceback" not in errors


def test_parquet_comes_back_as_parquet(tmp_path: Path) -> None:
    columns = {
        "prompt": [row["prompt"] for row in ROWS[:6]],
        "day": [date(2026, 11, day) for day in range(1, 7)],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    finish(batch(tmp_path, rows="rows.parquet"))
    written = sorted((tmp_path / "answers").glob("part-*.parquet"))
    table = pyarrow.concat_tables(map(pyarrow.parquet.read_table, written))
    assert table.select(["prompt", "day"]).to_pydict() == columns
    assert all(table.column("text").to_pylist())
