"""On a CUDA device: the same texts as on the CPU, models on two devices, and reduced precision runs."""

import pytest
import torch

from cosd_core import CoSDDecoder, LanguageModel
from tests.models import random_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

PROMPTS = ["hello", "a rather longer prompt than the first", "x"]


def on(device: str, seed: int, dtype: torch.dtype = torch.float64) -> LanguageModel:
    model = random_model(seed=seed, dtype=dtype)
    model.model.to(device)
    return model


@pytest.mark.parametrize("verifier", ["rule", "average", "speculative", "assistant"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.8, "top_k": 50, "seed": 5}])
@pytest.mark.parametrize("devices", [("cuda", "cuda"), ("cpu", "cuda"), ("cuda", "cpu")])
def test_the_device_does_not_change_the_text(
    devices: tuple[str, str], verifier: str, sampling: dict[str, object]
) -> None:
    expected = CoSDDecoder(on("cpu", 0), on("cpu", 1), verifier=verifier)
    decoder = CoSDDecoder(on(devices[0], 0), on(devices[1], 1), verifier=verifier)
    for ours, theirs in zip(
        decoder.generate(PROMPTS, max_new_tokens=48, **sampling),
        expected.generate(PROMPTS, max_new_tokens=48, **sampling),
        strict=True,
    ):
        assert ours.token_ids == theirs.token_ids


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_reduced_precision_decodes_with_confidences_between_0_and_1(dtype: torch.dtype) -> None:
    decoder = CoSDDecoder(on("cuda", 0, dtype), on("cuda", 1, dtype))
    for generation in decoder.generate(PROMPTS, max_new_tokens=48):
        assert generation.finish_reason in {"stop", "length"}
        assert all(0 <= token.p <= 1 for token in generation.tokens)


def test_a_stream_can_be_cancelled_on_the_device() -> None:
    decoder = CoSDDecoder(on("cuda", 0), on("cuda", 1))
    stream = decoder.stream("hello", max_new_tokens=64)
    next(stream)
    stream.close()
    assert decoder.generate("hello", max_new_tokens=8).token_ids
