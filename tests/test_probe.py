"""Claim: short passes find how a model can be run, once per model and without side effects."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from cosd_core import CoSDDecoder, GenerationError, LanguageModel, RuleVerifier, UnsupportedModelError
from cosd_core.models.sequential_session import SequentialSession
from cosd_core.models.state_cache import StateCache
from cosd_core.training.teacher_forcing import observe
from tests.models import EOS, VOCABULARY, byte_tokenizer, counted_passes, random_model
from tests.reference import assert_agrees, write
from tests.test_architectures import make, pair

VERIFIER = RuleVerifier(alpha=0.9, beta=0.2)
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": EOS,
    "bos_token_id": None, "pad_token_id": None, "initializer_range": 0.3,
}  # fmt: skip


class _Counting(LlamaForCausalLM):
    """Counts its passes, also those that run no hooks."""

    passes = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        type(self).passes += 1
        return super().forward(*args, **kwargs)


class _OffByTheLength(LlamaForCausalLM):
    """A model whose logits depend on the number of cached ids."""

    def forward(self, input_ids: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        cached = past_key_values.get_seq_length() if past_key_values is not None else 0
        output = super().forward(input_ids=input_ids, past_key_values=past_key_values, **kwargs)
        output.logits[..., :100] += cached
        return output


class _WithoutCache(LlamaForCausalLM):
    """A user's model that does not support caches."""

    def forward(self, input_ids: Any, position_ids: Any = None, past_key_values: Any = None) -> Any:
        if past_key_values is not None:
            raise NotImplementedError("no cache")
        return super().forward(input_ids=input_ids, position_ids=position_ids, use_cache=False)


class _Failing(LlamaForCausalLM):
    """Raises the error that is set."""

    error: BaseException | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            raise self.error
        return super().forward(*args, **kwargs)


def of(kind: type[LlamaForCausalLM], *, seed: int = 0, name: str = "mine", **config: Any) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(LlamaConfig(**{**SHAPE, **config}))
    return LanguageModel(model, byte_tokenizer(), name=name)


def test_a_model_whose_cache_is_wrong_is_refused_before_the_first_token() -> None:
    wrong = of(_OffByTheLength)
    for models in ((wrong, of(LlamaForCausalLM)), (of(LlamaForCausalLM), wrong)):
        with pytest.raises(UnsupportedModelError) as caught:
            CoSDDecoder(*models)
        said = str(caught.value)
        assert "'mine' (_OffByTheLength) has a cache that is wrong" in said
        assert "%" in said
        assert "cache_tolerance" in said
        assert len(said.splitlines()) == 1


def test_a_tolerance_that_the_user_names_accepts_a_larger_difference() -> None:
    config = of(_OffByTheLength).model.config
    assert (
        str(LanguageModel(_OffByTheLength(config), byte_tokenizer(), cache_tolerance=1e3).plan) == "attention"
    )
    with pytest.raises(UnsupportedModelError, match="cache that is wrong"):
        _ = LanguageModel(_OffByTheLength(config), byte_tokenizer(), cache_tolerance=0.01).plan


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_rounding_explains_is_measured_on_the_model(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some real models lose more digits than any table foresees: Gemma 3 270M in bfloat16."""
    monkeypatch.setattr("cosd_core.models.comparison._ROUNDING", {dtype: 1e-6})
    for seed in range(5):
        known = of(LlamaForCausalLM, seed=seed)
        plan = known.plan
        assert LanguageModel(known.model.to(dtype), byte_tokenizer()).plan == plan
    with pytest.raises(UnsupportedModelError, match="cache that is wrong"):
        _ = LanguageModel(of(_OffByTheLength).model.to(dtype), byte_tokenizer()).plan


def test_a_model_that_fails_is_refused_with_its_error() -> None:
    model = of(_Failing)
    model.model.error = ValueError("the third gasket leaks")
    with pytest.raises(UnsupportedModelError, match=r"'mine'.*ValueError: the third gasket leaks"):
        CoSDDecoder(model, of(LlamaForCausalLM))
    model.model.error = None  # the failure is not remembered
    CoSDDecoder(model, of(LlamaForCausalLM)).generate("a", max_new_tokens=2)


def test_out_of_memory_does_not_refuse_the_model() -> None:
    model = of(_Failing)
    model.model.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(GenerationError, match=r"'mine'.*no memory.*CUDA out of memory"):
        _ = model.plan
    model.model.error = None
    assert model.batchable


def test_a_model_that_returns_nan_is_refused() -> None:
    model = of(LlamaForCausalLM)
    model.model.lm_head.weight.data[5] = torch.nan
    with pytest.raises(UnsupportedModelError, match=r"'mine'.*NaN"):
        _ = model.plan


def test_a_model_without_a_cache_processes_whole_rows_and_generates_the_right_text() -> None:
    draft, assistant = (of(_WithoutCache, seed=seed) for seed in (0, 1))
    decoder = CoSDDecoder(draft, assistant, verifier=VERIFIER, schedule="fixed", draft_length=4)
    assert str(draft.plan) == "uncached"
    plain = [of(LlamaForCausalLM, seed=seed) for seed in (0, 1)]
    for prompt in ("a", "Hello, world"):
        written = write(plain[0], plain[1:], VERIFIER, prompt, max_new_tokens=12)
        generation = decoder.generate(prompt, max_new_tokens=12)
        assert_agrees(generation, written, asked=True, tolerance=1e-4)


def test_concurrent_threads_probe_a_model_once() -> None:
    model = of(_Counting)
    _Counting.passes = 0
    of(_Counting).plan  # noqa: B018 - counts the passes of one probe
    once, _Counting.passes = _Counting.passes, 0
    plans: list[Any] = []
    threads = [threading.Thread(target=lambda: plans.append(model.plan)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(plans) == 8
    assert all(plan is plans[0] for plan in plans)
    assert _Counting.passes == once <= 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_probes_for_itself() -> None:
    model = of(LlamaForCausalLM)
    if (child := os.fork()) == 0:
        os._exit(0 if model.plan.strategy == "attention" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert model.plan.strategy == "attention"


def test_a_probe_runs_no_hooks_and_changes_no_state() -> None:
    model = of(LlamaForCausalLM)
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with counted_passes(model) as passes:
        CoSDDecoder(model, model)
    assert passes == []
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "mistral eager", "qwen3_moe", "mamba", "falcon_h1", "roberta"])
def test_every_dtype_leads_to_the_same_plan(name: str, dtype: torch.dtype) -> None:
    known, _ = pair(name)
    assert LanguageModel(make(name, seed=0).to(dtype), byte_tokenizer()).plan == known.plan


@pytest.mark.parametrize("window", [4, 8, 16, 30])
def test_rows_share_passes_where_attention_slides(window: int) -> None:
    config = MistralConfig(**{**SHAPE, "sliding_window": window})
    plan = LanguageModel(MistralForCausalLM(config), byte_tokenizer()).plan
    assert (plan.strategy, plan.batched, plan.gaps) == ("attention", True, False)


@pytest.mark.parametrize("length", [2, 5, 9, 23, 24])
def test_a_small_context_window_suffices(length: int) -> None:
    assert random_model(seed=0, max_position_embeddings=length).plan.batched


def test_a_model_of_zero_weights_is_accepted() -> None:
    model = of(LlamaForCausalLM)
    for parameter in model.model.parameters():
        parameter.data.zero_()
    assert model.plan.batched


def test_a_probe_does_not_cross_the_switch_of_a_longrope_model() -> None:
    rope = {
        "rope_type": "longrope", "rope_theta": 10_000.0, "factor": 4.0,
        "original_max_position_embeddings": 10, "short_factor": [1.0, 2.0, 3.0, 4.0],
        "long_factor": [4.0, 3.0, 2.0, 1.0],
    }  # fmt: skip
    models = [random_model(seed=seed, rope_parameters=rope) for seed in (0, 1)]
    assert str(models[0].plan) == "attention"
    written = write(models[0], models[1:], RuleVerifier(), "abcdef", max_new_tokens=12)
    generation = CoSDDecoder(*models, schedule="fixed", draft_length=4).generate("abcdef", max_new_tokens=12)
    assert_agrees(generation, written, asked=True)


# States


@pytest.fixture
def mamba() -> LanguageModel:
    config = MambaConfig(vocab_size=VOCABULARY, hidden_size=16, state_size=4, num_hidden_layers=2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LanguageModel(MambaForCausalLM(config), byte_tokenizer())


@contextmanager
def fed_ids(model: LanguageModel) -> Iterator[list[int]]:
    """The number of ids that each pass is fed."""
    fed: list[int] = []
    handle = model.model.register_forward_pre_hook(
        lambda _module, _arguments, named: fed.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        yield fed
    finally:
        handle.remove()


def test_snapshots_are_few_at_any_length_and_dense_near_the_end(mamba: LanguageModel) -> None:
    session = mamba.open_session(vocabulary=VOCABULARY)
    ids = list(range(40))
    for token in range(100):
        session.logits([ids], last=1)
        ids = [*ids, token]
    assert isinstance(session, SequentialSession)
    cache = session._rows[0].cache
    assert isinstance(cache, StateCache)
    lengths = [snapshot.length for snapshot in cache._snapshots]
    assert len(lengths) <= 8
    assert lengths[0] == 40, "the end of the prompt stays"
    assert lengths[-2:] == [138, 139]
    gaps = [after - before for before, after in pairwise(lengths[1:])]
    assert gaps == sorted(gaps, reverse=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mamba", [40, 1, 1, 1, 1, 1, 1, 1, 1]),  # the prompt, then tokens one by one, each once
        ("falcon_h1", [40, 4, 6]),  # two kept and four new tokens are fed after the prompt
    ],
)
def test_a_rollback_does_not_prefill_the_prompt_again(name: str, expected: list[int]) -> None:
    model, _ = pair(name)
    session = model.open_session(vocabulary=VOCABULARY)
    prompt = list(range(40))
    with fed_ids(model) as fed:
        session.logits([[*prompt, 1, 2, 3, 4]], last=5)
        session.logits([[*prompt, 1, 9, 5, 6, 7, 8]], last=5)
    assert fed[: len(expected)] == expected
    assert sum(fed) <= 40 + 4 + 6


@pytest.mark.parametrize("name", ["mamba", "falcon_h1", "rwkv"])
def test_teacher_forcing_is_equal_in_one_pass_and_in_several(name: str) -> None:
    models = pair(name)
    data = [
        {"prompt": "Hello, ", "completion": "world, and all who live in it" * length} for length in (1, 3)
    ]
    whole, pieces = (observe(models, data, tokens_per_pass=count) for count in (2048, 10))
    assert (whole.predicted == pieces.predicted).all()
    torch.testing.assert_close(
        *(torch.from_numpy(each.confidences()) for each in (whole, pieces)), rtol=1e-3, atol=1e-5
    )


def test_a_long_text_is_fed_one_by_one_as_well(mamba: LanguageModel) -> None:
    session, ids = mamba.open_session(vocabulary=VOCABULARY), list(range(100))
    with fed_ids(mamba) as fed, torch.inference_mode():
        whole = session.logits([ids], last=100)
        later = session.logits([[*ids, 1, 2, 3]], last=3)
    assert fed == [100, 1, 1, 1]
    with torch.inference_mode():
        truth = mamba.model(input_ids=torch.tensor([[*ids, 1, 2, 3]]), use_cache=False).logits
    torch.testing.assert_close(torch.cat([whole, later], 1), truth, rtol=1e-4, atol=1e-4)


def test_padding_tokens_inside_a_text_are_right_where_the_model_computes_position_ids() -> None:
    model, _ = pair("roberta")
    padding = model.model.config.pad_token_id
    session, ids = model.open_session(vocabulary=VOCABULARY), [5, 6, padding, 7]
    for more in ([8, 9], [10], [padding], [11, 12]):
        ids = [*ids, *more]
        with torch.inference_mode():
            truth = model.model(input_ids=torch.tensor([ids]), use_cache=False).logits
            found = session.logits([ids], last=2)
        torch.testing.assert_close(found, truth[:, -2:], rtol=1e-4, atol=1e-4)


def test_a_batchable_and_a_sequential_model_decode_together_in_batches() -> None:
    prompts, options = ["a", "Hello, world"], {"max_new_tokens": 12}
    (batchable, _), (sequential, _) = pair("llama"), pair("mamba")
    for models in ((batchable, sequential), (sequential, batchable)):
        decoder = CoSDDecoder(*models, verifier=VERIFIER, schedule="fixed", draft_length=4)
        assert decoder.batch_size == 32
        for prompt, generation in zip(prompts, decoder.generate(prompts, **options), strict=True):
            written = write(models[0], models[1:], VERIFIER, prompt, **options)
            assert_agrees(generation, written, asked=True, tolerance=1e-4)
    assert CoSDDecoder(sequential, sequential).batch_size == 1
