# ruff: noqa: F811 - a fixture of another file
"""``cosd batch`` without Ray: what is refused before models are loaded, parts, and a worker's answers."""

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosd_core import utils
from cosd_core.batch.part_folder import PartFolder
from cosd_core.batch.rows import in_parts, read_lines
from cosd_core.batch.worker import Job, Worker
from cosd_core.errors import EvaluationFileError
from tests.test_cli import cosd  # noqa: F401 - a fixture

WEIGHTS = Path(__file__).parents[1] / "examples/bundled_pairs/weights"
PAIR = {"draft_model": str(WEIGHTS / "caller"), "assistant_model": str(WEIGHTS / "talker"), "alpha": 0.9}
FLAGS = ("--draft", "no such", "--assistant", "models")


@pytest.fixture
def with_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Ray is installed, as far as the check of the extra sees."""
    monkeypatch.setattr(utils, "version", lambda _: "2.60")


def test_without_ray_the_error_names_the_extra(cosd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(utils, "version", missing)
    output = cosd("batch", "rows.jsonl", "answers", *FLAGS)
    assert output.code == 1
    assert 'pip install "cosd[ray]"' in output.err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "should be a JSON object"),
        ('{"id": 1}', "prompt is missing"),
        ('{"prompt": ""}', "prompt=''"),
        ('{"prompt": [{"role": "oracle", "content": "x"}]}', "oracle"),
        ('{"prompt": "x", "text": "y"}', "the field text"),
    ],
)
@pytest.mark.usefixtures("with_ray")
def test_a_bad_line_is_named_before_models_are_loaded(
    cosd: Any,
    tmp_path: Path,
    line: str,
    words: str,
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f'{{"prompt": "x"}}\n\n{line}\n', encoding="utf-8")
    output = cosd("batch", str(rows), str(tmp_path / "answers"), *FLAGS)
    assert output.code == 1
    assert f"{rows}, line 3: " in output.err.replace("\n", "")
    assert words in output.err
    assert not (tmp_path / "answers").exists()


@pytest.mark.usefixtures("with_ray")
def test_a_wrong_call_is_refused(cosd: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    assert "cannot read prompts" in cosd("batch", str(rows), "answers", *FLAGS).err
    rows.write_text("\n", encoding="utf-8")
    assert "holds no prompt" in cosd("batch", str(rows), "answers", *FLAGS).err
    assert "--draft is missing" in cosd("batch", str(rows), "answers").err
    assert "workers=0" in cosd("batch", str(rows), "answers", *FLAGS, "--workers", "0").err
    assert "--system" in cosd("batch", str(rows), "answers", *FLAGS, "--no-chat", "--system", "x").err


@given(
    st.lists(st.text(st.characters(exclude_characters="\n\r"), min_size=1), min_size=1),
    st.integers(1, 9),
)
def test_parts_hold_every_line_once_and_in_order(lines: list[str], size: int) -> None:
    parts = in_parts(lines, size)
    assert "\n".join(parts) == "\n".join(lines)
    assert all(part.count("\n") + 1 == size for part in parts[:-1])


def test_a_folder_knows_its_parts_and_refuses_another_batch(tmp_path: Path) -> None:
    folder = PartFolder(tmp_path / "answers", {"input": "a", "settings": {"alpha": 0.5}})
    folder.write(1, "one\n")
    again = PartFolder(tmp_path / "answers", {"input": "a", "settings": {"alpha": 0.5}})
    assert again.missing(3) == [0, 2]
    with pytest.raises(EvaluationFileError, match=r"another batch \(settings differ\)"):
        PartFolder(tmp_path / "answers", {"input": "a", "settings": {"alpha": 0.6}})


def test_a_folder_with_other_files_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text", encoding="utf-8")
    with pytest.raises(EvaluationFileError, match="other files"):
        PartFolder(tmp_path, {})
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_part_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "part-000000.jsonl.unfinished").write_text("half", encoding="utf-8")
    folder = PartFolder(tmp_path, {})
    assert folder.missing(1) == [0]
    folder.write(0, "whole\n")
    assert folder.missing(1) == []
    assert (tmp_path / "part-000000.jsonl").read_text(encoding="utf-8") == "whole\n"


def test_a_worker_keeps_fields_and_order_and_goes_on_after_a_prompt_that_is_too_long(tmp_path: Path) -> None:
    fields = [
        {"prompt": "Hello", "mark": "\u2028\ud800"},
        {"prompt": "x " * 3000},
        {"prompt": [{"role": "user", "content": "Hello"}], "id": [1, None]},
    ]
    (tmp_path / "rows.jsonl").write_text("\r\n".join(map(json.dumps, fields)), encoding="utf-8")
    worker = Worker(Job({**PAIR, "max_new_tokens": 8}, provenance=True))
    (part,) = in_parts(read_lines(tmp_path / "rows.jsonl"), 5)
    answers = [json.loads(line) for line in worker({"number": 4, "lines": part})["lines"].split("\n")[:-1]]
    assert [
        {name: answer[name] for name in row} for row, answer in zip(fields, answers, strict=True)
    ] == fields
    assert (
        answers[0]["text"]
        == answers[2]["text"]
        == "".join(token["text"] for token in answers[0]["provenance"]["tokens"])
    )
    assert answers[1]["text"] is None
    assert "context window" in answers[1]["error"]
