"""SmolLM2-135M-Instruct, downloaded once as a GGUF file and made into a transformers folder once."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from cosd_core import CoSDDecoder, GGUFModel, LanguageModel
from examples.real_pair.smollm2 import cache_folder, smollm2, smollm2_gguf

PREFIX_MB = 8
"""So little that a few calls fill it: then the memory should not grow any more."""


@pytest.fixture(scope="session")
def folder() -> Path:
    """The model's folder for transformers; bfloat16 weights."""
    return smollm2(cache_folder())


@pytest.fixture(scope="session")
def smol(folder: Path) -> LanguageModel:
    """The model in float32, so that no text depends on the shapes of passes."""
    return LanguageModel.from_pretrained(folder, dtype="float32", device="cpu", prefix_cache_mb=PREFIX_MB)


@pytest.fixture(scope="session")
def other(smol: LanguageModel) -> LanguageModel:
    """A model of the same tokens that differs in its predictions: a copy with noise in its weights."""
    with torch.no_grad():
        model = deepcopy(smol.model)
        generator = torch.Generator().manual_seed(0)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter += 0.1 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    return LanguageModel(model, smol.tokenizer, name="SmolLM2 with noise")


@pytest.fixture(scope="session")
def gguf() -> Path:
    """The GGUF file; tests that need it are skipped where llama-cpp-python is not installed."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed (make test-gguf installs it)")
    return smollm2_gguf(cache_folder())


@pytest.fixture(scope="session")
def smol_gguf(gguf: Path) -> Iterator[GGUFModel]:
    """The model by llama.cpp, on one thread."""
    with GGUFModel.from_pretrained(str(gguf), n_threads=1, n_ctx=1024, prefix_cache_mb=PREFIX_MB) as model:
        yield model


@pytest.fixture(scope="session", params=["transformers", "llama.cpp"])
def decoder(request: pytest.FixtureRequest) -> CoSDDecoder:
    """The model and the other one, the former by transformers or by llama.cpp; the default rule."""
    draft = request.getfixturevalue("smol" if request.param == "transformers" else "smol_gguf")
    return CoSDDecoder(draft, request.getfixturevalue("other"))
