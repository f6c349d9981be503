"""Claim: rolling back, ragged batches and rows that join are right for causal models, whatever their caches.

Of each architecture two tiny random models write together, and the batch's texts and traces are those of the
uncached reference. docs/architectures.md holds the same for every architecture there is.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier, UnsupportedModelError
from tests.grids import but_for
from tests.joining import decode_joining
from tests.models import EOS, VOCABULARY, byte_tokenizer
from tests.reference import assert_agrees, write

_SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 128,
    "bos_token_id": None, "pad_token_id": None, "eos_token_id": EOS,
}  # fmt: skip
_UNLESS = ("head_dim", "max_position_embeddings")  # omitted if they are None
_SINGLE = {"dtype": torch.float32}  # the type that its expert kernels and eager attention masks support
_EXPERTS = _SINGLE | {
    "num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 16,
}  # fmt: skip
_LATENT = {
    "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "num_key_value_heads": 2, "topk_method": "greedy", "n_shared_experts": 1, "head_dim": 4,
}  # fmt: skip
_MIXED = ["sliding_attention", "full_attention"]
_YARN = {
    "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0,
}  # fmt: skip

ARCHITECTURES: dict[str, dict[str, Any]] = {
    # name of the case: model type (if it differs) and what its config needs beyond the common shape
    "llama": {},
    "llama eager": _SINGLE | {"type": "llama", "attn_implementation": "eager"},
    "llama yarn": {"type": "llama", "rope_parameters": _YARN},
    "mistral": {"sliding_window": 8},
    "mistral eager": _SINGLE | {"type": "mistral", "sliding_window": 8, "attn_implementation": "eager"},
    "ministral": {"sliding_window": 8, "layer_types": _MIXED},
    "qwen2": {},
    "qwen2 sliding": {
        "type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 8,
        "max_window_layers": 1,
        "layer_types": _MIXED,
    },
    "qwen3": {},
    "gemma": {},
    "gemma2": _SINGLE | {"sliding_window": 8, "layer_types": _MIXED, "query_pre_attn_scalar": 8},
    "gemma3 text": {
        "type": "gemma3_text",
        "sliding_window": 8,
        "layer_types": _MIXED,
        "query_pre_attn_scalar": 8,
    },
    "gpt2": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "gpt_bigcode": {},
    "codegen": {"rotary_dim": 4, "num_attention_heads": 4},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16, "pad_token_id": 1},
    "bloom": _SINGLE,
    "falcon": {"head_dim": None},
    "falcon alibi": {"type": "falcon", "head_dim": None, "alibi": True},
    "mpt": _SINGLE | {"max_seq_len": 128},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "starcoder2": {"sliding_window": 8},
    "stablelm": {},
    "persimmon": {},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 8, "layer_types": _MIXED},
    "cohere": {},
    "cohere2": {"sliding_window": 8, "layer_types": _MIXED},
    "granite": {},
    "glm": {"pad_token_id": 0},
    "glm4": {"pad_token_id": 0},
    "smollm3": {},
    "ernie4_5": {},
    "exaone4": {"sliding_window": 8, "layer_types": _MIXED},
    "helium": {},
    "nemotron": {},
    "biogpt": {"pad_token_id": 1},
    "xglm": _SINGLE
    | {"d_model": 16, "num_layers": 2, "attention_heads": 2, "ffn_dim": 32, "pad_token_id": 1},
    "mixtral": _EXPERTS | {"sliding_window": 8},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": _EXPERTS,
    "olmoe": _EXPERTS,
    "granitemoe": _EXPERTS,
    "phimoe": _EXPERTS,
    "gpt_oss": _EXPERTS | {"sliding_window": 8, "layer_types": _MIXED},
    "jetmoe": {},
    "arcee": {},
    "bitnet": {},
    "seed_oss": {},
    "llama4_text": _EXPERTS | {"attention_chunk_size": 8},
    "gemma4_text": {"sliding_window": 8, "vocab_size_per_layer_input": VOCABULARY},
    "vaultgemma": _SINGLE | {"sliding_window": 8},
    "mimo_v2_flash": _EXPERTS | {"sliding_window": 8},
    "deepseek_v2": _EXPERTS | _LATENT,
    "deepseek_v3": _EXPERTS | _LATENT,
}
_HYBRID = _SINGLE | {"layer_types": ["linear_attention", "full_attention"]}
_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 4}
STATEFUL: dict[str, dict[str, Any]] = {
    # the same, for models that cache something else than keys and values per position
    "mamba": _SINGLE | {"state_size": 4},
    "falcon_h1": _SINGLE | _MAMBA | {"mamba_d_ssm": 32, "mamba_n_groups": 2},
    "lfm2": _SINGLE | {"layer_types": ["conv", "full_attention"]},
    "qwen3_next": _HYBRID
    | _EXPERTS
    | {
        "linear_key_head_dim": 4, "linear_value_head_dim": 4, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "shared_expert_intermediate_size": 16,
    },
    "deepseek_v32": _EXPERTS | _LATENT | {"index_head_dim": 4, "index_n_heads": 8, "index_topk": 4},
    "minimax": _EXPERTS | _HYBRID,
    "rwkv": _SINGLE | {"context_length": 128},
    "recurrent_gemma": _SINGLE | {"num_hidden_layers": 3, "lru_width": 16, "attention_window_size": 8},
    "openai-gpt": _SINGLE | {"n_embd": 16, "n_layer": 2, "n_head": 2},
    "roberta": _SINGLE | {"is_decoder": True, "pad_token_id": 1},
}  # fmt: skip
ORDINARY = (
    "llama", "llama yarn", "mistral eager", "gemma3 text", "gpt2", "falcon alibi", "gpt_oss", "llama4_text",
    "deepseek_v3", "lfm2", "mamba", "openai-gpt", "roberta",
)  # fmt: skip
"""One for each way to know positions, to attend and to cache."""
PLANS = {
    **dict.fromkeys(STATEFUL, "states, in blocks"),
    **dict.fromkeys(("mamba", "minimax"), "states, token by token"),
    **dict.fromkeys(("recurrent_gemma", "openai-gpt"), "uncached"),
    "roberta": "attention",  # its positions do not begin at zero, so rows cannot be padded
}
LOOKS_AHEAD = {
    "xlnet": {"d_head": 8, "d_inner": 16, "n_layer": 2, "n_head": 2, "max_position_embeddings": None},
}
PROMPTS = ["a", "Hello, world", "The quick brown fox jumps over the lazy dog."]


def make(name: str, *, seed: int) -> PreTrainedModel:
    settings = dict((ARCHITECTURES | STATEFUL | LOOKS_AHEAD)[name])
    attention, dtype = settings.pop("attn_implementation", None), settings.pop("dtype", torch.float64)
    kind, shape = settings.pop("type", name), {**_SHAPE, **settings}
    given = {key: value for key, value in shape.items() if value or key not in _UNLESS}
    config = AutoConfig.for_model(kind, **given)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).to(dtype)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(std=0.4)
    model.generation_config.eos_token_id = EOS
    return model


@cache
def pair(name: str) -> tuple[LanguageModel, LanguageModel]:
    draft, assistant = (LanguageModel(make(name, seed=seed), byte_tokenizer()) for seed in (0, 1))
    return draft, assistant


@pytest.mark.parametrize("name", but_for(ORDINARY, ARCHITECTURES))
def test_a_ragged_batch_and_rows_that_join_it_give_the_uncached_texts(name: str) -> None:
    draft, _ = pair(name)
    assert str(draft.plan) == "attention"
    assert draft.batchable == (name != "llama4_text")
    assert_right(name, new_tokens=14, times=2)


@pytest.mark.parametrize("name", but_for(ORDINARY, STATEFUL))
def test_models_with_other_caches_or_none_give_the_uncached_texts_too(name: str) -> None:
    draft, _ = pair(name)
    assert str(draft.plan) == PLANS[name]
    assert not draft.batchable
    assert_right(name, new_tokens=10, times=1)


def assert_right(name: str, *, new_tokens: int, times: int) -> None:
    draft, assistant = pair(name)
    verifier, options = RuleVerifier(alpha=0.9, beta=0.3), {"max_new_tokens": new_tokens}
    written = [write(draft, [assistant], verifier, prompt, **options) for prompt in PROMPTS]
    assert len({each.ids for each in written}) == 3, "the models should read their prompts"
    assert any(each.replaced > 0 for each in written), "something should be rolled back"
    for schedule, length in (("adaptive", 8), ("fixed", 5)):
        decoder = CoSDDecoder(draft, assistant, verifier=verifier, schedule=schedule, draft_length=length)
        for each, generation in zip(written, decoder.generate(PROMPTS, **options), strict=True):
            assert_agrees(generation, each, asked=schedule == "fixed", tolerance=1e-4)
        joining = decode_joining(decoder, [(prompt, options) for prompt in PROMPTS * times], seed=length)
        for each, generation in zip(written * times, joining, strict=True):
            assert_agrees(generation, each, asked=schedule == "fixed", tolerance=1e-4)


@pytest.mark.parametrize("name", LOOKS_AHEAD)
def test_a_model_that_is_not_causal_is_refused_before_the_first_token(name: str) -> None:
    model = LanguageModel(make(name, seed=0), byte_tokenizer(), name=name)
    with pytest.raises(UnsupportedModelError, match=f"'{name}'.*not causal"):
        CoSDDecoder(pair("llama")[0], model)


def test_the_page_of_architectures_names_classes_that_exist_and_many_of_them_work() -> None:
    page = (Path(__file__).parent.parent / "docs/architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| `(\w+)` \| ([\w ]+) \|", page, re.MULTILINE)
    known = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items())
    assert {(name, kind) for name, kind, _ in rows} <= known
    outcomes = [outcome for _, _, outcome in rows]
    assert outcomes.count("works") >= 60
    assert outcomes.count("wrong") == 0


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_models_whose_rotary_embeddings_depend_on_the_longest_row_run_rows_one_by_one(kind: str) -> None:
    rope = {"rope_type": kind, "factor": 4.0, "rope_theta": 10_000.0, "original_max_position_embeddings": 64}
    if kind == "longrope":
        rope |= {"short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [2.0, 3.0, 4.0, 5.0]}
    config = AutoConfig.for_model("llama", **_SHAPE, rope_parameters=rope)
    torch_models = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            torch_models.append(AutoModelForCausalLM.from_config(config))
    draft, assistant = (LanguageModel(model, byte_tokenizer()) for model in torch_models)
    assert not draft.batchable
    decoder = CoSDDecoder(draft, assistant, batch_size=8)
    assert decoder.batch_size == 1
    together = decoder.generate(PROMPTS, max_new_tokens=14)
    alone = [decoder.generate(prompt, max_new_tokens=14) for prompt in PROMPTS]
    assert [each.token_ids for each in together] == [each.token_ids for each in alone]
    assert LanguageModel(make("llama", seed=0), byte_tokenizer()).batchable
