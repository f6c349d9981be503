# ruff: noqa: F811 - a fixture of another file
"""``cosd batch`` without Ray: what is refused before models are loaded, parts, and a worker's answers."""

import json
from datetime import date
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from cosd_core import Leaf, TreeVerifier, utils
from cosd_core.batch.part_folder import PartFolder
from cosd_core.batch.prompt_file import read_prompt_file
from cosd_core.batch.run import WorkerOptions, _identity
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
    rows.write_text('{"prompt": [{"role": "user", "content": "x"}]}\n', encoding="utf-8")
    assert "also holds chats" in cosd("batch", str(rows), "answers", *FLAGS, "--system", "x").err


ANSWERS = [
    {"text": "a\u2028b", "finish_reason": "stop", "provenance": {"tokens": []}},
    {"text": None, "finish_reason": "error", "error": "too long"},
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_the_lines_of_the_output_have_the_fields_of_the_input(tmp_path: Path, end: str) -> None:
    fields = [{"prompt": "Hello", "mark": "\u2028\ud800"}, {"prompt": "x"}, {"prompt": "y", "id": [1, None]}]
    (tmp_path / "rows.jsonl").write_text(end.join(map(json.dumps, fields)), encoding="utf-8")
    rows = read_prompt_file(tmp_path / "rows.jsonl")
    assert rows.prompts == ["Hello", "x", "y"]
    lines = rows.answered(1, ANSWERS).decode().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == [
        {**row, **answer} for row, answer in zip(fields[1:], ANSWERS, strict=True)
    ]


def test_what_the_users_own_fields_hold_is_not_written_anew(tmp_path: Path) -> None:
    line = '{"prompt": "x", "big": 1e999, "id": 12345678901234567.890}'
    (tmp_path / "rows.jsonl").write_text(f"{line} \n", encoding="utf-8")
    written = read_prompt_file(tmp_path / "rows.jsonl").answered(0, ANSWERS[1:]).decode()
    assert written == f'{line[:-1]}, "text": null, "finish_reason": "error", "error": "too long"}}\n'


def test_the_columns_of_a_parquet_file_stay_and_those_of_the_answers_are_added(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?", "name": "Ann"}]
    columns = {
        "prompt": [chat, chat[:1], chat],
        "day": [date(2026, 11, 29), None, date(1, 1, 1)],
        "raw": [b"\xff", b"", None],
    }
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    rows = read_prompt_file(path)
    assert rows.prompts == [chat, chat[:1], chat], "a message has the fields that are not null"
    (tmp_path / "part").write_bytes(rows.answered(1, ANSWERS))
    table = pyarrow.parquet.read_table(tmp_path / "part")
    assert table.select(list(columns)).equals(pyarrow.parquet.read_table(path).slice(1))
    assert table.column("text").to_pylist() == ["a\u2028b", None]
    assert table.column("provenance").to_pylist() == ['{"tokens": []}', None]
    assert table.column("error").to_pylist() == [None, "too long"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"question": ["x"]}, "prompt is missing"),
        ({"prompt": ["x", None]}, "row 2: prompt=None"),
        ({"prompt": [7]}, "row 1: prompt=7"),
        ({"prompt": ["x"], "text": ["y"]}, "the field text"),
        ({"prompt": pyarrow.array([], pyarrow.string())}, "holds no prompt"),
        (
            {"prompt": [[{"role": "user", "content": [{"type": "text", "text": "x", "at": date(1, 1, 1)}]}]]},
            "row 1: .*JSON",
        ),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    with pytest.raises(EvaluationFileError, match=words):
        read_prompt_file(tmp_path / "rows.parquet")


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text('{"prompt": "x"}', encoding="utf-8")
    with pytest.raises(EvaluationFileError, match="cannot read prompts"):
        read_prompt_file(tmp_path / "rows.parquet")


def test_a_tree_that_changed_is_another_batch(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "x"}\n', encoding="utf-8")
    rows, tree = read_prompt_file(tmp_path / "rows.jsonl"), tmp_path / "tree.json"
    job = Job({**PAIR, "verifier": "tree", "tree_path": str(tree)} | {"alpha": 0.5})
    identities = []
    for replace in (False, True, True):
        TreeVerifier((Leaf(replace),)).save(tree)
        identities.append(_identity(rows, job, WorkerOptions()))
    assert identities[0] != identities[1] == identities[2]


def test_a_folder_knows_its_parts_and_refuses_another_batch(tmp_path: Path) -> None:
    folder = PartFolder(tmp_path / "answers", ".jsonl", {"input": "a", "settings": {"alpha": 0.5}})
    folder.write(1, b"one\n")
    again = PartFolder(tmp_path / "answers", ".jsonl", {"input": "a", "settings": {"alpha": 0.5}})
    assert again.missing(3) == [0, 2]
    with pytest.raises(EvaluationFileError, match=r"another batch \(settings differ\)"):
        PartFolder(tmp_path / "answers", ".jsonl", {"input": "a", "settings": {"alpha": 0.6}})


def test_a_folder_with_other_files_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("text", encoding="utf-8")
    with pytest.raises(EvaluationFileError, match="other files"):
        PartFolder(tmp_path, ".jsonl", {})
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_part_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "part-000000.jsonl.unfinished").write_text("half", encoding="utf-8")
    folder = PartFolder(tmp_path, ".jsonl", {})
    assert folder.missing(1) == [0]
    folder.write(0, b"whole\n")
    assert folder.missing(1) == []
    assert (tmp_path / "part-000000.jsonl").read_text(encoding="utf-8") == "whole\n"


def test_a_worker_keeps_the_order_and_goes_on_after_a_prompt_that_is_too_long() -> None:
    prompts = ["Hello", "x " * 3000, [{"role": "user", "content": "Hello"}]]
    worker = Worker(Job({**PAIR, "max_new_tokens": 8}, provenance=True))
    answered = worker({"number": 4, "prompts": json.dumps(prompts)})
    assert (answered["number"], answered["error"]) == (4, "")
    answers = json.loads(answered["answers"])
    assert (
        answers[0]["text"]
        == answers[2]["text"]
        == "".join(token["text"] for token in answers[0]["provenance"]["tokens"])
    )
    assert answers[1]["text"] is None
    assert "context window" in answers[1]["error"]
