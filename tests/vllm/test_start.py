"""Engines that would decode without CoSD, or as was not tested, do not start; others are not touched."""

import inspect
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from cosd_core import (
    CoSDError,
    InvalidOptionError,
    MissingExtraError,
    ModelLoadError,
    VerifierFileError,
    VocabularyMismatchError,
)
from cosd_core.serving.vllm.configuration import SCHEDULER, WORKER, check_configuration
from cosd_core.serving.vllm.hooks import FIELDS, HOOKS, check_hooks
from tests.models import word_tokenizer
from tests.vllm.conftest import CONTEXT, save, small_model


def configure(folders: dict[str, str], cosd: Any = None, **options: Any) -> Any:
    """The configuration of an engine, without the engine."""
    from vllm.engine.arg_utils import EngineArgs

    speculative = {"method": "draft_model", "model": folders["draft"], "num_speculative_tokens": 4}
    defaults = {
        "model": folders["assistant"], "speculative_config": speculative, "dtype": "float32",
        "max_model_len": CONTEXT, "enforce_eager": True,
        "additional_config": {} if cosd is None else {"cosd": cosd},
    }  # fmt: skip
    return EngineArgs(**{**defaults, **options}).create_engine_config()


def test_the_plugin_is_an_entry_point_of_vllm() -> None:
    (found,) = entry_points(group="vllm.general_plugins", name="cosd")
    assert found.value == "cosd_core.serving.vllm.plugin:register"


def test_engines_without_settings_are_those_of_vllm(folders: dict[str, str]) -> None:
    config = configure(folders)
    assert "cosd" not in config.parallel_config.worker_cls
    assert config.scheduler_config.scheduler_cls != SCHEDULER


def test_engines_with_settings_have_our_classes(folders: dict[str, str]) -> None:
    config = configure(folders, {})
    assert config.parallel_config.worker_cls == WORKER
    assert config.scheduler_config.scheduler_cls == SCHEDULER
    assert not config.scheduler_config.async_scheduling


@pytest.mark.parametrize(
    ("cosd", "error", "message"),
    [
        ({"alpa": 1}, InvalidOptionError, "unknown option 'alpa': did you mean 'alpha'?"),
        ({"alpha": -1}, InvalidOptionError, "alpha=-1.0 should be a finite number of at least 0"),
        ({"verifier": "average"}, InvalidOptionError, "verifier='average' should be one of"),
        ({"verifier": "tree"}, InvalidOptionError, "needs tree_path"),
        ({"tree_path": "nowhere.json"}, VerifierFileError, "nowhere.json"),
        ({"calibration": [1.0]}, InvalidOptionError, "calibration=[1.0] should hold one temperature per"),
        ("rule", InvalidOptionError, "should be a dictionary of settings"),
    ],
)
def test_wrong_settings(folders: dict[str, str], cosd: Any, error: type[CoSDError], message: str) -> None:
    with pytest.raises(error) as raised:
        configure(folders, cosd)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speculative_config": None}, '"method": "draft_model"'),
        ({"async_scheduling": True}, "async_scheduling=True cannot be used"),
        ({"worker_cls": "vllm.v1.worker.gpu_worker.Worker"}, "worker_cls="),
        ({"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, "scheduler_cls="),
        ({"enable_lora": True}, "LoRA"),
        ({"tensor_parallel_size": 2}, "one worker only"),
        ({"logprobs_mode": "processed_logprobs"}, "logprobs_mode should be raw_logprobs"),
        ({"enable_prompt_embeds": True}, "prompt_embeds"),
    ],
)
def test_configurations_that_are_refused(
    folders: dict[str, str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidOptionError) as raised:
        configure(folders, {}, **options)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_heterogeneous_vocab": True}, "one vocabulary"),
        ({"disable_padded_drafter_batch": True}, "disable_padded_drafter_batch"),
        (
            {"rejection_sample_method": "synthetic", "synthetic_acceptance_length": 2.0},
            "rejection_sample_method",
        ),
        ({"max_model_len": 64}, "the draft reads 64 tokens and the assistant 192"),
        ({"method": "ngram", "model": None, "prompt_lookup_max": 2}, '"method": "draft_model"'),
    ],
)
def test_speculative_configurations_that_are_refused(
    folders: dict[str, str], options: dict[str, Any], message: str
) -> None:
    speculative = {"method": "draft_model", "model": folders["draft"], "num_speculative_tokens": 4, **options}
    with pytest.raises(InvalidOptionError) as raised:
        configure(folders, {}, speculative_config=speculative)
    assert message in str(raised.value)


def test_the_second_model_runner_and_gpus_are_refused(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.platforms import current_platform

    config = configure(folders, {})
    check_configuration(config)
    monkeypatch.setattr(type(config), "use_v2_model_runner", True)
    with pytest.raises(InvalidOptionError, match="VLLM_USE_V2_MODEL_RUNNER=0"):
        check_configuration(config)
    monkeypatch.undo()
    monkeypatch.setattr(current_platform, "is_cpu", lambda: False)
    with pytest.raises(InvalidOptionError, match="not on GPUs"):
        check_configuration(config)


def test_a_draft_without_a_tokenizer(folders: dict[str, str], tmp_path: Path) -> None:
    small_model(7).model.save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="tokenizer"):
        configure({**folders, "draft": str(tmp_path)}, {})


def test_different_vocabularies(folders: dict[str, str], tmp_path: Path) -> None:
    model = small_model(7)
    save(model, tmp_path)
    word_tokenizer(*(f"w{at}" for at in range(257))).save_pretrained(tmp_path)
    with pytest.raises(VocabularyMismatchError, match="vLLM with cosd needs models with one tokenizer"):
        configure({**folders, "draft": str(tmp_path)}, {})


def test_other_versions(folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.33.1")
    with pytest.raises(MissingExtraError, match=r"tested with vLLM 0\.32\.0, not with 0\.33\.1"):
        configure(folders, {})
    configure(folders)


def changed(self: Any, another: Any) -> None:
    """A function with other parameters."""


def owner_of(place: str) -> Any:
    from importlib import import_module

    module, _, path = place.partition(":")
    return getattr(import_module(module), path.partition(".")[0])


@pytest.mark.parametrize("place", HOOKS)
def test_each_changed_or_missing_hook_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = owner_of(place), place.rpartition(".")[2]
    check_hooks()
    monkeypatch.setattr(owner, name, changed)
    with pytest.raises(MissingExtraError, match=f"{name} has the parameters self, another, not "):
        check_hooks()
    monkeypatch.undo()
    if name in vars(owner):
        monkeypatch.delattr(owner, name)
        if not hasattr(owner, name):
            with pytest.raises(MissingExtraError, match=f"{name} is missing"):
                check_hooks()


@pytest.mark.parametrize("place", FIELDS)
def test_each_missing_field_is_refused(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = owner_of(place)
    fields = inspect.get_annotations(owner)
    monkeypatch.setattr(
        owner, "__annotations__", {name: fields[name] for name in fields if name not in FIELDS[place]}
    )
    with pytest.raises(MissingExtraError, match=f"has no {FIELDS[place][0]}"):
        check_hooks()
