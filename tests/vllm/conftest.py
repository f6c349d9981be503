"""Engines of vLLM on tiny random pairs. Where vLLM is missing nothing here is collected: `make test-vllm`."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# vLLM reads these when it is imported.
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
# vLLM compiles a small function for logprobs, which takes half a minute.
os.environ["TORCHDYNAMO_DISABLE"] = "1"

import pytest
import torch

from cosd_core import LanguageModel
from tests.models import random_model

if find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]

CONTEXT = 192


@pytest.hookimpl
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("default"))  # vLLM and its packages warn


def small_model(seed: int, **config: Any) -> LanguageModel:
    """A random Llama in float32 whose heads have a size that vLLM's attention runs on processors."""
    shape = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "max_position_embeddings": CONTEXT,
    }
    return random_model(seed=seed, dtype=torch.float32, sharpness=1.0, **{**shape, **config})


@pytest.fixture(scope="session")
def draft() -> LanguageModel:
    return small_model(0)


@pytest.fixture(scope="session")
def assistant() -> LanguageModel:
    return small_model(1)


@pytest.fixture(scope="session")
def folders(
    draft: LanguageModel, assistant: LanguageModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Both models as folders, by their roles."""
    root = tmp_path_factory.mktemp("models")
    for name, model in (("draft", draft), ("assistant", assistant)):
        save(model, root / name)
    return {name: str(root / name) for name in ("draft", "assistant")}


def save(model: LanguageModel, folder: Path) -> None:
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


@contextmanager
def engine(
    folders: dict[str, str], *, draft_length: int, cosd: dict[str, Any] | None = None, **options: Any
) -> Iterator[Any]:
    """A vLLM engine; without ``cosd`` one with vLLM's own speculative decoding."""
    from vllm import LLM

    defaults: dict[str, Any] = {
        "model": folders["assistant"],
        "speculative_config": {
            "method": "draft_model", "model": folders["draft"], "num_speculative_tokens": draft_length,
        },
        "dtype": "float32", "max_model_len": CONTEXT, "enforce_eager": True, "max_num_seqs": 16,
        "disable_log_stats": True, "seed": 0,
    }  # fmt: skip
    if cosd is not None:
        defaults["additional_config"] = {"cosd": cosd}
    llm = LLM(**{**defaults, **options})
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm


EngineFactory = Callable[..., Any]
