"""On a CUDA device: the same texts as on the CPU, models on two devices, and reduced precision runs."""

import copy

import pytest
import torch

from cosd_core import CoSDDecoder, LanguageModel, Verifier
from cosd_core.demo import held_out
from examples.bundled_pairs import load_words_pair
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
    devices: tuple[str, str], verifier: str | Verifier, sampling: dict[str, object]
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


@pytest.mark.parametrize("devices", [("cuda", "cuda"), ("cpu", "cuda"), ("cuda", "cpu")])
@pytest.mark.parametrize("verifier", ["rule", "assistant"])
def test_models_with_different_tokenizers_write_the_same_there(
    devices: tuple[str, str], verifier: str
) -> None:
    questions = [question.prompt for question in held_out("both", 12)]
    wanted = CoSDDecoder(*load_words_pair(), verifier=verifier).generate(questions, max_new_tokens=48)
    placed = [
        LanguageModel(copy.deepcopy(model.model).to(device), model.tokenizer)
        for model, device in zip(load_words_pair(), devices, strict=True)
    ]
    written = CoSDDecoder(*placed, verifier=verifier).generate(questions, max_new_tokens=48)
    assert [each.text for each in written] == [each.text for each in wanted]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_probe_finds_the_same_plan_there(dtype: torch.dtype) -> None:
    for seed in range(3):
        assert on("cuda", seed, dtype).plan == on("cpu", seed, torch.float32).plan
