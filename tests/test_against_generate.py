"""Claim: where one model alone decides, the output is token for token that of transformers' ``generate``.

alpha = 0 and the verifier ``draft`` give the draft's greedy text, the verifier ``assistant`` the assistant's.
"""

from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    SuppressTokensLogitsProcessor,
)
from transformers.generation import MinNewTokensLengthLogitsProcessor, SequenceBiasLogitsProcessor

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier
from tests.grids import covering
from tests.models import EOS, ascii_model

DRAFT, ASSISTANT = ascii_model(seed=0), ascii_model(seed=1)
ALONE: dict[str, tuple[Any, LanguageModel]] = {
    "draft": ("draft", DRAFT),
    "alpha=0": (RuleVerifier(alpha=0.0, beta=0.0), DRAFT),
    "assistant": ("assistant", ASSISTANT),
}
PROMPTS = ["Hello", "The quick brown fox", "a", "1 + 1 = ", "naïve 你好"]


Texts = list[tuple[int, ...]]


def generate(model: LanguageModel, prompt: str, **options: Any) -> tuple[int, ...]:
    """The new token ids of transformers' own greedy search."""
    ids = torch.tensor([model.encode(prompt)])
    options = {"do_sample": False, "pad_token_id": EOS, "max_new_tokens": 24} | options
    output = model.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return tuple(output[0, ids.shape[1] :].tolist())


@cache
def plain(model: LanguageModel, prompt: str) -> tuple[int, ...]:
    """The same without any options."""
    return generate(model, prompt)


def ends(model: LanguageModel) -> list[int]:
    """Tokens that the model writes early for some prompt and late or never for others."""
    return [plain(model, prompt)[place] for prompt, place in zip(PROMPTS, (2, 7, 13), strict=False)]


def part(model: LanguageModel, prompt: str, length: int) -> str | None:
    """A part of the model's text, if one is fit: generate would also find a stop string that begins in a
    prompt, where cosd reads nothing but its own text.
    """
    text = model.decode(plain(model, prompt))
    for at in range(3, 20):
        stop = text[at : at + length]
        if stop.isascii() and not any(
            known.endswith(stop[:cut]) for known in PROMPTS for cut in range(1, length)
        ):
            return stop
    return None


def check(verifier: Any, model: LanguageModel, *, theirs: dict[str, Any], ours: dict[str, Any]) -> Texts:
    """Compare on all prompts, in one batch and alone, and return what is written."""
    expected = [generate(model, prompt, **theirs) for prompt in PROMPTS]
    for schedule, length in (("adaptive", 8), ("fixed", 4), ("adaptive", 1), ("fixed", 64)):
        decoder = CoSDDecoder(DRAFT, ASSISTANT, verifier=verifier, schedule=schedule, draft_length=length)
        got = decoder.generate(PROMPTS, **({"max_new_tokens": 24} | ours))
        assert [generation.token_ids for generation in got] == expected
    alone = CoSDDecoder(DRAFT, ASSISTANT, verifier=verifier).generate(
        PROMPTS[1], **({"max_new_tokens": 24} | ours)
    )
    assert alone.token_ids == expected[1]
    return expected


PROCESSORS = [
    NoRepeatNGramLogitsProcessor(1),
    NoRepeatNGramLogitsProcessor(2),
    SuppressTokensLogitsProcessor(list(range(32, 80))),
    NoBadWordsLogitsProcessor([[at] for at in range(60, 100)], eos_token_id=EOS),
    SequenceBiasLogitsProcessor([[[65], 25.0], [[66], 24.0], [[65, 67], 30.0]]),
]


class TestGreedyTextIsTheModelsOwn:
    @pytest.mark.parametrize(("alone", "length"), covering(product(ALONE, [1, 2, 7, 40])))
    def test_up_to_max_new_tokens(self, alone: str, length: int) -> None:
        verifier, model = ALONE[alone]
        options = {"max_new_tokens": length}
        assert max(map(len, check(verifier, model, theirs=options, ours=options))) == length

    @pytest.mark.parametrize("alone", ALONE)
    def test_up_to_an_end_token(self, alone: str) -> None:
        verifier, model = ALONE[alone]
        options = {"eos_token_id": ends(model)[1]}
        assert min(map(len, check(verifier, model, theirs=options, ours=options))) < 24

    @pytest.mark.parametrize("alone", ALONE)
    def test_up_to_any_of_several_end_tokens(self, alone: str) -> None:
        verifier, model = ALONE[alone]
        options = {"eos_token_id": [*ends(model), EOS]}
        texts = check(verifier, model, theirs=options, ours=options)
        assert len(set(map(len, texts))) > 1

    @pytest.mark.parametrize("alone", ALONE)
    def test_with_the_end_token_of_the_models_config(self, alone: str) -> None:
        verifier, model = ALONE[alone]
        before = {each: each.model.generation_config.eos_token_id for each in (DRAFT, ASSISTANT)}
        fresh = [ascii_model(seed=0), ascii_model(seed=1)]
        own = fresh[model is ASSISTANT]
        for each in fresh:
            each.model.generation_config.eos_token_id = ends(model)[:2]
        got = CoSDDecoder(*fresh, verifier=verifier).generate(PROMPTS, max_new_tokens=24)
        assert [each.token_ids for each in got] == [generate(own, prompt) for prompt in PROMPTS]
        assert min(len(each.token_ids) for each in got) < 24
        assert before == {each: each.model.generation_config.eos_token_id for each in (DRAFT, ASSISTANT)}

    @pytest.mark.parametrize(("alone", "least"), covering(product(ALONE, [1, 5, 24])))
    def test_with_min_new_tokens(self, alone: str, least: int) -> None:
        verifier, model = ALONE[alone]
        options = {"eos_token_id": ends(model), "min_new_tokens": least}
        assert min(map(len, check(verifier, model, theirs=options, ours=options))) >= least

    @pytest.mark.parametrize(("alone", "penalty"), covering(product(ALONE, [0.7, 1.2, 3.0])))
    def test_with_a_repetition_penalty(self, alone: str, penalty: float) -> None:
        verifier, model = ALONE[alone]
        options = {"repetition_penalty": penalty}
        check(verifier, model, theirs=options, ours=options)

    @pytest.mark.parametrize(("alone", "length"), covering(product(ALONE, [1, 2, 3, 4])))
    def test_up_to_a_stop_string(self, alone: str, length: int) -> None:
        verifier, model = ALONE[alone]
        stops = [stop for prompt in PROMPTS[:4] if (stop := part(model, prompt, length))]
        assert stops
        theirs = {"stop_strings": stops, "tokenizer": model.tokenizer}
        assert min(map(len, check(verifier, model, theirs=theirs, ours={"stop": stops}))) < 24

    @pytest.mark.parametrize(
        ("alone", "processor"),
        covering(product(ALONE, PROCESSORS)),
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_with_a_logits_processor(self, alone: str, processor: Any) -> None:
        verifier, model = ALONE[alone]
        theirs = {"logits_processor": LogitsProcessorList([processor])}
        texts = check(verifier, model, theirs=theirs, ours={"logits_processor": processor})
        changed = texts != [plain(model, prompt) for prompt in PROMPTS]
        assert changed, "the processor should have something to do"

    @pytest.mark.parametrize("alone", ALONE)
    def test_with_a_processor_that_counts_new_tokens(self, alone: str) -> None:
        """Its state is the prompt's length alone, so it sees whether ids are cut at the right place."""
        verifier, model = ALONE[alone]
        last = ends(model)
        processor = MinNewTokensLengthLogitsProcessor(len(PROMPTS[0]), 10, last)
        theirs = {"logits_processor": LogitsProcessorList([processor]), "eos_token_id": last}
        ours = {"logits_processor": [processor], "eos_token_id": last}
        check(verifier, model, theirs=theirs, ours=ours)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    alone=st.sampled_from(sorted(ALONE)),
    prompts=st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=40), min_size=1, max_size=4),
    draft_length=st.integers(1, 20),
    batch_size=st.integers(1, 4),
    schedule=st.sampled_from(["adaptive", "fixed"]),
    max_new_tokens=st.integers(1, 16),
    min_new_tokens=st.integers(0, 16),
    eos=st.lists(st.integers(0, 256), max_size=60),
    penalty=st.sampled_from([1.0, 1.0, 0.9, 1.5]),
    ngram=st.sampled_from([0, 0, 1, 2]),
)
def test_any_options_any_prompts(
    alone: str, prompts: list[list[int]], draft_length: int, batch_size: int,
    schedule: str, max_new_tokens: int, min_new_tokens: int, eos: list[int], penalty: float, ngram: int,
) -> None:  # fmt: skip
    verifier, model = ALONE[alone]
    min_new_tokens = min(min_new_tokens, max_new_tokens)
    processors = [NoRepeatNGramLogitsProcessor(ngram)] if ngram else []
    decoder = CoSDDecoder(
        DRAFT,
        ASSISTANT,
        verifier=verifier,
        schedule=schedule,
        draft_length=draft_length,
        batch_size=batch_size,
    )
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "min_new_tokens": min_new_tokens,
        "repetition_penalty": penalty,
        "eos_token_id": [*eos, EOS],
        "logits_processor": processors,
    }
    got = decoder.generate(prompts, **options)
    options |= {"do_sample": False, "pad_token_id": EOS, "logits_processor": LogitsProcessorList(processors)}
    for prompt, generation in zip(prompts, got, strict=True):
        ids = torch.tensor([prompt])
        output = model.model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        assert generation.token_ids == tuple(output[0, len(prompt) :].tolist())
