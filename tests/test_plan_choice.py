"""Claim: a plan that is likely right costs one check, and no table or file makes a model use a wrong one."""

import functools
import json
import logging
import multiprocessing
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from cosd_core import LanguageModel, UnsupportedModelError
from cosd_core.models.comparison import ProbedModel
from cosd_core.models.forward import Plan
from cosd_core.models.known_architectures import KNOWN_ARCHITECTURES
from cosd_core.models.probe import Probe, candidates
from cosd_core.models.remembered_plans import RememberedPlan, cache_folder
from tests.grids import but_for
from tests.models import byte_tokenizer
from tests.test_architectures import ARCHITECTURES, ORDINARY, STATEFUL, make

PAGE = Path(__file__).parent.parent / "docs/architectures.md"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which plans are kept."""
    monkeypatch.setenv("COSD_CACHE_DIR", str(tmp_path / "cosd"))
    return tmp_path / "cosd/plans"


def loaded(name: str, *, seed: int = 0, dtype: torch.dtype | None = None) -> LanguageModel:
    model = make(name, seed=seed)
    return LanguageModel(model if dtype is None else model.to(dtype), byte_tokenizer(), name="mine")


def probed(model: LanguageModel) -> ProbedModel:
    special = model.tokenizer.all_special_ids
    return ProbedModel(model.model, model.traits, model.name, model.vocabulary_size, special)


@contextmanager
def counted(model: LanguageModel) -> Iterator[list[int]]:
    """Counts the passes of a model's class, also those that run no hooks."""
    kind, passes = type(model.model), [0]
    forward = kind.forward

    @functools.wraps(forward)
    def counting(self: Any, *args: Any, **kwargs: Any) -> Any:
        passes[0] += 1
        return forward(self, *args, **kwargs)

    kind.forward = counting
    try:
        yield passes
    finally:
        kind.forward = forward


def by_probe(model: LanguageModel) -> Plan:
    with torch.inference_mode():
        return Probe(probed(model)).plan()


def test_the_table_is_that_of_the_page_of_architectures() -> None:
    row = re.compile(r"^\| `[^`]+` \| `(\w+)` \| works \| attention \| together \|", re.MULTILINE)
    assert set(row.findall(PAGE.read_text(encoding="utf-8"))) == KNOWN_ARCHITECTURES


@pytest.mark.parametrize("name", but_for(ORDINARY, [*ARCHITECTURES, *STATEFUL]))
def test_the_plan_is_that_of_the_probe_when_first_loaded_and_later(name: str, folder: Path) -> None:
    for dtype in (None, torch.bfloat16):
        expected = by_probe(loaded(name, dtype=dtype))
        for _ in range(2):
            assert loaded(name, dtype=dtype).plan == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "mistral"])
def test_a_known_architecture_costs_three_passes(name: str, dtype: torch.dtype, folder: Path) -> None:
    model = loaded(name, dtype=dtype)
    with counted(model) as passes:
        assert model.plan.batched
    assert passes == [3]
    assert not folder.exists(), "there is nothing to remember"


@pytest.mark.parametrize(("name", "later"), [("mamba", 6), ("roberta", 6), ("falcon_h1", 6)])
def test_other_architectures_cost_a_check_when_they_are_loaded_again(
    name: str, later: int, folder: Path
) -> None:
    first, again = loaded(name), loaded(name, seed=1)
    with counted(first) as passes:
        plan = first.plan
    assert passes[0] > later
    assert len(list(folder.iterdir())) == 1
    with counted(again) as passes:
        assert again.plan == plan
    assert passes == [later]


@pytest.mark.parametrize("name", ["llama", "mistral", "roberta", "mamba", "falcon_h1"])
def test_a_plan_in_a_file_is_used_only_if_it_is_right(name: str, folder: Path) -> None:
    """Every plan that any model might have is put into the model's file."""
    model = loaded(name)
    expected, remembered = by_probe(model), RememberedPlan(probed(model))
    others = {
        plan
        for each in ("llama", "mamba", "roberta")
        for group in candidates(loaded(each).traits)
        for plan in group
    }
    with torch.inference_mode():
        probe = Probe(probed(model))
    for plan in others - {expected}:
        remembered.write(plan)
        chosen = loaded(name).plan
        assert chosen in (expected, plan)
        with torch.inference_mode():
            assert probe._difference(chosen) < 1e-4  # slower plans are right as well


def test_weights_that_show_nothing_leave_no_plan_to_others(folder: Path) -> None:
    """With weights of zero every plan looks right, also the fastest, under which others would be wrong."""
    blank = loaded("roberta")
    for parameter in blank.model.parameters():
        parameter.data.zero_()
    expected = by_probe(loaded("roberta"))
    assert blank.plan != expected
    assert RememberedPlan(probed(loaded("roberta"))).read() == blank.plan
    assert loaded("roberta").plan == expected
    assert RememberedPlan(probed(loaded("roberta"))).read() == expected


def test_a_patched_class_is_found_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaForCausalLM.forward

    @functools.wraps(forward)
    def off_by_the_length(self: Any, *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        cached = past_key_values.get_seq_length() if past_key_values is not None else 0
        output = forward(self, *args, past_key_values=past_key_values, **kwargs)
        output.logits[..., :100] += cached
        return output

    monkeypatch.setattr(LlamaForCausalLM, "forward", off_by_the_length)
    with pytest.raises(UnsupportedModelError, match="cache that is wrong"):
        _ = loaded("llama").plan
    assert not folder.exists()


def test_a_model_with_code_of_its_own_is_always_probed(folder: Path) -> None:
    class Mine(LlamaForCausalLM):
        pass

    for _ in range(2):
        model = LanguageModel(Mine(make("llama", seed=0).config), byte_tokenizer())
        with counted(model) as passes:
            assert model.plan.batched
        assert passes[0] > 6
    assert not folder.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b"\xff\xfe\x00", b'{"strategy": "attention"', b'{"strategy": "none"}',
        b'{"strategy": "states", "batched": "yes"}', b'{"strategy": "states", "cache_argument": "labels"}',
        b'{"strategy": "states"}' + b" " * 10_000, b"9" * 5_000, b"[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_written_again(content: bytes, folder: Path) -> None:
    plan = loaded("mamba").plan
    (file,) = folder.iterdir()
    intact = file.read_bytes()
    file.write_bytes(content)
    assert loaded("mamba").plan == plan
    assert file.read_bytes() == intact
    assert list(folder.iterdir()) == [file]


def test_a_folder_that_cannot_be_used_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    for path in (tmp_path / "file", tmp_path / "file/below", Path("/proc/none")):
        monkeypatch.setattr("cosd_core.models.remembered_plans.cache_folder", lambda path=path: path)
        assert loaded("mamba").plan.strategy == "states"


def test_a_folder_in_the_place_of_the_file_is_no_error(folder: Path) -> None:
    file = RememberedPlan(probed(loaded("mamba"))).file
    assert file is not None
    file.mkdir(parents=True)
    assert loaded("mamba").plan.strategy == "states"
    assert list(folder.iterdir()) == [file]


def test_the_environment_names_the_folder_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("COSD_CACHE_DIR", "")
    assert cache_folder() is None
    assert loaded("mamba").plan.strategy == "states"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("COSD_CACHE_DIR")
    assert cache_folder() == tmp_path / ".cache/cosd"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg/cosd"


def test_what_may_change_the_plan_has_a_file_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def file(model: LanguageModel, tolerance: float | None = None) -> Path | None:
        special = model.tokenizer.all_special_ids
        subject = ProbedModel(model.model, model.traits, "any", model.vocabulary_size, special, tolerance)
        return RememberedPlan(subject).file

    plain = file(loaded("llama"))
    assert file(loaded("llama", seed=3)) == plain, "weights and names are no part of it"
    others = [
        file(loaded("llama", dtype=torch.bfloat16)), file(loaded("llama eager")), file(loaded("llama yarn")),
        file(loaded("qwen2")), file(loaded("llama"), tolerance=0.1),
    ]  # fmt: skip
    monkeypatch.setattr("cosd_core.models.remembered_plans.__version__", "0.0.1")
    assert len({plain, *others, file(loaded("llama"))}) == 7


def _write(file: RememberedPlan, plan: Plan) -> None:
    for _ in range(200):
        file.write(plan)


def test_concurrent_writers_leave_one_whole_file(folder: Path) -> None:
    file = RememberedPlan(probed(loaded("mamba")))
    plans = [Plan("states"), Plan("states", blockwise=False, cache_argument="cache_params"), Plan("uncached")]
    file.write(plans[0])
    processes = [
        multiprocessing.get_context("fork").Process(target=_write, args=(file, each)) for each in plans
    ]
    threads = [threading.Thread(target=_write, args=(file, each)) for each in plans]
    for each in (*processes, *threads):
        each.start()
    while any(each.is_alive() for each in (*processes, *threads)):
        assert file.read() in plans
    for each in (*processes, *threads):
        each.join()
    assert len(list(folder.iterdir())) == 1


def test_what_was_done_is_logged_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="cosd")
    lines = []
    for name in ("llama", "mamba", "mamba"):
        _ = loaded(name).plan
        (record,) = caplog.records
        lines.append(record.getMessage())
        caplog.clear()
    ending = r"; \d+ passes, \d+\.\d\d s"
    assert re.fullmatch(
        r"model 'mine' \(LlamaForCausalLM\): cache attention, rows together: from the table of known "
        r"architectures, and checked; 3 passes, .*",
        lines[0],
    )
    assert re.fullmatch(
        r".*: cache states, token by token, rows one by one: found by the probe" + ending, lines[1]
    )
    (file,) = folder.iterdir()
    assert re.fullmatch(rf".*: read from {re.escape(str(file))}, and checked; 6 passes, .*", lines[2])
    assert json.loads(file.read_text()) == asdict(loaded("mamba").plan)
