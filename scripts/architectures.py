"""Which causal language models can take part: `python scripts/architectures.py` writes docs/architectures.md.

Of every architecture that the installed transformers knows, two small random models write together, three
prompts of different lengths at once and one by one, and are held against the uncached reference of the tests.
Each runs in a process of its own with a time limit. With names as arguments only these are tried, and
nothing is written.
"""

import multiprocessing
import os
import re
import sys
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))  # the reference is part of the tests

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from cosd_core import CoSDDecoder, CoSDError, LanguageModel, RuleVerifier, UnsupportedModelError
from tests.models import EOS, VOCABULARY, byte_tokenizer
from tests.reference import assert_agrees, write

PAGE = Path(__file__).parent.parent / "docs/architectures.md"
SECONDS = 240
PROMPTS = ["a", "Hello, world", "The quick brown fox jumps over the lazy dog, and the dog does not mind."]
NEW_TOKENS = 12
VERIFIER = RuleVerifier(alpha=0.9, beta=0.3)

SIZES: dict[str, int] = {
    # fields of configs, and what they are set to where a config has them and they are not None
    **dict.fromkeys(("vocab_size", "n_words", "vocab_size_per_layer_input", "n_token"), VOCABULARY),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("attention_heads", "decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "swa_num_key_value_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "n_inner", "dff", "d_inner"), 64),
    **dict.fromkeys(("head_dim", "d_head", "global_head_dim", "swa_head_dim", "v_head_dim"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "index_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 256),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_top_k", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("shared_intermediate_size", "lru_width", "hidden_size_per_layer_input"), 32),
    **dict.fromkeys(("sliding_window", "attention_window_size", "window_size", "attention_chunk_size"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size", "mamba_state_size"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "n_mamba_heads"), 8),
    **dict.fromkeys(("mamba_d_head", "mamba_head_dim", "mamba_headdim"), 8),
    **dict.fromkeys(("chunk_size", "mamba_chunk_size"), 4),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("n_groups", "mamba_n_groups", "mamba_ngroups"), 2),
    "mamba_d_ssm": 64,
    "index_topk": 4,
    "query_pre_attn_scalar": 8,
}

_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_INDEXED = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 4, "hc_lowrank": 16, "ngram_vocab_size_base": 100, "ple_embed_dim": 16,
}  # fmt: skip

OVERRIDES: dict[str, dict[str, Any]] = {
    # what an architecture needs beyond that
    "bailing_hybrid": {
        "num_expert_group": 1, "num_experts_per_token": 2, "linear_head_dim": 8, "linear_num_heads": 4,
    },
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": dict.fromkeys(("sliding_attention", "full_attention"), _ROPE)},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note": {"num_key_value_heads": 4},
    "dots3_note_text": {"num_key_value_heads": 4},
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {
        "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
    },
    "kimi_linear": {"num_experts_per_token": 2, "linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8},
    "qwen4_exp_text": _INDEXED,
    "qwen4_exp": {"text_config": _INDEXED},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {
        "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 16], "attention_head_size": 8,
    },
    "xlm": {"causal": True},
    "xlstm": {"hidden_size": 128, "embedding_dim": 128, "num_blocks": 2},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3, "layer_types": ["linear_attention", "hybrid", "hybrid"], "mamba_dt_rank": 2,
        "attention_hidden_size": 64, "attention_head_dim": 16,
    },
    "zamba2": {
        "num_hidden_layers": 3, "layer_types": ["linear_attention", "hybrid", "hybrid"],
        "hybrid_layer_ids": [1, 2],
    },
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip

SCALES = (0.3, 0.15, 0.6)
"""Standard deviations of the weights, until one makes models that read their prompts and disagree."""


@dataclass(frozen=True)
class Outcome:
    """What came of an architecture: a kind, and what there is to say."""

    kind: str  # "works", "refused", "wrong", "not built"
    strategy: str
    note: str


def shrunk(config: PreTrainedConfig, overrides: dict[str, Any]) -> PreTrainedConfig:
    """A config of the same class with small sizes."""
    given = config.to_dict()
    values: dict[str, Any] = {
        name: size
        for name, size in SIZES.items()
        if isinstance(given.get(name), int) and not isinstance(given[name], bool)
    }
    values |= {"head_dim": SIZES["head_dim"]} if "head_dim" in given else {}
    if "num_key_value_heads" in given and (given["num_key_value_heads"] is None or given.get("kv_lora_rank")):
        values["num_key_value_heads"] = SIZES["num_attention_heads"]
    if kinds := given.get("layer_types"):
        distinct = list(dict.fromkeys(kinds))
        values["layer_types"] = distinct if len(distinct) > 1 else distinct * 2
        values |= {name: len(values["layer_types"]) for name in ("num_hidden_layers",) if name in given}
    for name, value in given.items():
        if name.endswith("_token_id") and isinstance(value, int):
            values[name] = {"eos_token_id": EOS, "pad_token_id": 0}.get(name, 255)
    values |= {"eos_token_id": EOS}
    if "is_decoder" in given:
        values["is_decoder"] = True
    for name in config.sub_configs:
        if isinstance(part := getattr(config, name, None), PreTrainedConfig):
            values[name] = shrunk(part, overrides.get(name, {}))
    values |= {name: value for name, value in overrides.items() if name not in config.sub_configs}
    return type(config)(**values)


def build(kind: str, *, seed: int, scale: float) -> PreTrainedModel:
    """A small random model with weights large enough that an error shows."""
    config = shrunk(CONFIG_MAPPING[kind](), OVERRIDES.get(kind, {}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config).float().eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(std=scale)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = EOS
    return model


def examine(kind: str) -> Outcome:
    """Build models until two of them show something, let them write, and compare."""
    outcome = Outcome("not built", "", "")
    for scale in SCALES:
        try:
            models = [build(kind, seed=seed, scale=scale) for seed in (0, 1)]
            with torch.inference_mode():
                models[0](input_ids=torch.arange(5)[None])
        except Exception as error:
            return Outcome("not built", "", _said(error))
        outcome = _compare(kind, *(LanguageModel(model, byte_tokenizer(), name=kind) for model in models))
        if outcome.note != _MUTE:
            break
    return outcome


_MUTE = "random models of it all write the same"


def _compare(kind: str, draft: LanguageModel, assistant: LanguageModel) -> Outcome:
    try:
        plan = draft.plan
        decoder = CoSDDecoder(draft, assistant, verifier=VERIFIER, schedule="fixed", draft_length=4)
    except UnsupportedModelError as error:
        return Outcome(
            "refused", "", _said(error).removeprefix(f"model '{kind}' ({type(draft.model).__name__}) ")
        )
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS}
    written = [write(draft, [assistant], VERIFIER, prompt, **options) for prompt in PROMPTS]
    if len({each.ids for each in written}) < len(PROMPTS) or not any(each.replaced for each in written):
        return Outcome("not built", "", _MUTE)
    try:
        for prompt, each in zip(PROMPTS, written, strict=True):
            assert_agrees(decoder.generate(prompt, **options), each, asked=True, tolerance=1e-3)
        for each, generation in zip(written, decoder.generate(PROMPTS, **options), strict=True):
            assert_agrees(generation, each, asked=True, tolerance=1e-3)
    except (AssertionError, CoSDError) as error:
        return Outcome("wrong", str(plan), f"{type(error).__name__}: {_said(error)}")
    return Outcome("works", str(plan), "together" if plan.batched else "one by one")


def _said(error: BaseException) -> str:
    """What an exception says, in one line and without places of this machine."""
    line = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"(/[\w.+-]+){2,}/?", "...", line)[:160]


def _child(kind: str, answer: Connection) -> None:
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    if not os.environ.get("VERBOSE"):
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        answer.send(examine(kind))
    except BaseException as error:
        if os.environ.get("VERBOSE"):
            traceback.print_exc()
        answer.send(Outcome("wrong", "", f"{type(error).__name__}: {_said(error)}"))


def examined(kind: str) -> Outcome:
    """The outcome of an architecture, in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_child, args=(kind, there))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(SECONDS) else Outcome("not built", "", f"takes over {SECONDS} s")
    except EOFError:
        return Outcome("wrong", "", "the process ended")
    finally:
        process.kill()
        process.join()


def page(outcomes: dict[str, Outcome]) -> str:
    """The outcomes as a page of markdown."""
    count = Counter(outcome.kind for outcome in outcomes.values())
    counts = {kind.replace(" ", "_"): count[kind] for kind in _KINDS}
    lengths = "{}, {} and {}".format(*map(len, PROMPTS))
    lines = [_HEAD.format(version=transformers.__version__, lengths=lengths, **counts)]
    for kind, outcome in outcomes.items():
        cells = [f"`{kind}`", f"`{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]}`", outcome.kind]
        note = outcome.note.replace("|", "/")
        cells += [outcome.strategy, note, ""] if outcome.kind == "works" else [outcome.strategy, "", note]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_KINDS = ("works", "refused", "wrong", "not built")

_HEAD = """\
# Which architectures can take part

A model is asked about positions ahead of the text, and what it thinks is thrown away where a drafted token
does not stand. So its memory must go back, and be right afterwards. When a model is first used,
`cosd_core/models/probe.py` runs about ten passes over up to two dozen tokens, some with a cache and some
without, and takes the first of these strategies under which both say the same, up to what rounding does in
the model's type:

* **attention**: keys and values per position. Any suffix can be dropped. Rows of different lengths share
  passes (*together*) if the model is right about padding; if not, every row has passes of its own (*one by
  one*). Where attention goes by positions alone, rows of a batch may keep masked gaps behind dropped
  tokens.
* **states**: a state that moves on with every token, as in Mamba and its hybrids. Snapshots are kept at up
  to eight lengths, dense near the end, one of them at the end of the prompt; going back restores the latest
  that is not too long, and reads on from there. Layers of attention beside the states are cut, not copied.
  A row has a state of its own, so rows are read one by one. *In blocks*: several tokens can be fed at once
  on top of a state. *Token by token*: the model is right only if they come singly, so a verification costs
  one pass per drafted token.
* **uncached**: there is no cache, or none that is right, and every pass reads the whole text. The text is
  right, and long ones are slow.

A model is refused before its first token, with the reason, if its passes fail, if it is not causal, or if
it says that it keeps keys and values alone and is wrong with them. What a short pass cannot see is taken
from the config: sliding windows, rotary embeddings that follow the length, attention scaled by the slot. A
text that crosses the length at which a longrope model changes its frequencies is read anew there.

The table holds every causal language model of transformers {version}: {works} work, {refused} are refused,
{wrong} are wrong, {not_built} were not built small enough to try. Of each, two random models wrote three
texts from prompts of {lengths} tokens, alone and as one batch, with windows of 8 tokens and replacements
among what was drafted, and every token and confidence was held against a loop without a cache
(`tests/reference.py`). `python scripts/architectures.py` makes this page anew.

| architecture | class | outcome | strategy | rows | why not |
|---|---|---|---|---|---|"""


def main(names: list[str]) -> None:
    """Try them all, and say how it goes."""
    torch.set_num_threads(1)
    kinds = names or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    outcomes: dict[str, Outcome] = {}
    for number, kind in enumerate(kinds, 1):
        outcome = outcomes[kind] = examined(kind)
        said = " ".join(filter(None, (outcome.strategy, outcome.note)))
        print(f"{number}/{len(kinds)} {kind}: {outcome.kind}: {said}", flush=True)
    if not names:
        PAGE.write_text(page(outcomes), encoding="utf-8")
    sys.exit(any(outcome.kind == "wrong" for outcome in outcomes.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
