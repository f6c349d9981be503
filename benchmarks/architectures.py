"""Try every causal architecture of transformers: `python -m benchmarks.architectures` (about 20 minutes).

Per architecture two small random models write together, three prompts of different lengths at once and one
by one; the texts are compared with the uncached reference of the tests. Each architecture runs in a process
of its own with a time limit. The table of docs/architectures.md is replaced; with names as arguments only
these are tried, and nothing is written.
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

_FIELDS = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input",
    256: "max_position_embeddings n_positions n_ctx max_seq_len",
    64: "intermediate_size ffn_dim decoder_ffn_dim dff d_inner mamba_d_ssm",
    32: "hidden_size n_embd d_model emb_dim embedding_size word_embed_proj_dim lru_width "
    "hidden_size_per_layer_input moe_intermediate_size shared_expert_intermediate_size "
    "shared_intermediate_size",
    16: "q_lora_rank kv_lora_rank",
    8: "head_dim d_head swa_head_dim v_head_dim qk_nope_head_dim qk_rope_head_dim index_head_dim rotary_dim "
    "sliding_window attention_window_size window_size attention_chunk_size state_size mamba_d_state "
    "ssm_state_size mamba_n_heads mamba_num_heads n_mamba_heads mamba_d_head mamba_head_dim mamba_headdim "
    "linear_key_head_dim linear_value_head_dim query_pre_attn_scalar",
    4: "num_attention_heads n_head n_heads num_heads attention_heads decoder_attention_heads "
    "encoder_attention_heads num_experts num_local_experts n_routed_experts moe_num_experts chunk_size "
    "mamba_chunk_size linear_num_key_heads linear_num_value_heads index_topk",
    2: "num_hidden_layers n_layer n_layers num_layers decoder_layers num_key_value_heads num_kv_heads "
    "swa_num_key_value_heads num_experts_per_tok moe_top_k moe_k n_groups mamba_n_groups mamba_ngroups",
    1: "n_group topk_group first_k_dense_replace n_shared_experts",
}
SIZES = {name: size for size, names in _FIELDS.items() for name in names.split()}
"""Fields of configs, and what they are set to where a config has them and they are not None."""

_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_HYBRID = {"num_hidden_layers": 3, "layer_types": ["linear_attention", "hybrid", "hybrid"]}
_INDEXED = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
    "indexer_compress_ratio": 4, "hc_lowrank": 16, "ngram_vocab_size_base": 100, "ple_embed_dim": 16,
}  # fmt: skip

OVERRIDES: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"num_expert_group": 1, "num_experts_per_token": 2},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": dict.fromkeys(("sliding_attention", "full_attention"), _ROPE)},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    "dots3_note": {"num_key_value_heads": 4},
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"num_experts_per_token": 2, "linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": _INDEXED,
    "qwen4_exp": {"text_config": _INDEXED},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 16], "attention_head_size": 8},
    "xlm": {"causal": True},
    "xlstm": {"hidden_size": 128},
    "xmod": {"default_language": "en_XX"},
    "zamba": _HYBRID,
    "zamba2": {**_HYBRID, "hybrid_layer_ids": [1, 2]},
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
"""Settings that an architecture needs beyond that."""

SCALES = (0.3, 0.15, 0.6)
"""Standard deviations of the weights, until one makes models that read their prompts and disagree."""

KINDS = ("works", "refused", "wrong", "not built")


@dataclass(frozen=True)
class Outcome:
    """The result of one architecture: one of KINDS, the strategy of its cache, and a note."""

    kind: str
    strategy: str = ""
    note: str = ""


def shrunk(config: PreTrainedConfig, overrides: dict[str, Any]) -> PreTrainedConfig:
    """A config of the same class with small sizes."""
    given = config.to_dict()
    values: dict[str, Any] = {name: size for name, size in SIZES.items() if type(given.get(name)) is int}
    values |= {"head_dim": SIZES["head_dim"]} if "head_dim" in given else {}
    if "num_key_value_heads" in given and (given["num_key_value_heads"] is None or given.get("kv_lora_rank")):
        values["num_key_value_heads"] = SIZES["num_attention_heads"]
    if kinds := given.get("layer_types"):
        distinct = list(dict.fromkeys(kinds))
        values["layer_types"] = distinct if len(distinct) > 1 else distinct * 2
        if "num_hidden_layers" in given:
            values["num_hidden_layers"] = len(values["layer_types"])
    for name, value in given.items():
        if name.endswith("_token_id") and isinstance(value, int):
            values[name] = {"eos_token_id": EOS, "pad_token_id": 0}.get(name, 255)
    values |= {"eos_token_id": EOS} | ({"is_decoder": True} if "is_decoder" in given else {})
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
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config).float().eval()
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.normal_(std=scale)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = EOS
    return model


def examine(kind: str) -> Outcome:
    """Build models until two of them write different texts, and compare these with the reference."""
    outcome = Outcome("not built")
    for scale in SCALES:
        try:
            models = [build(kind, seed=seed, scale=scale) for seed in (0, 1)]
            with torch.inference_mode():
                models[0](input_ids=torch.arange(5)[None])
        except Exception as error:
            return Outcome("not built", "", _line(error))
        outcome = _compare(kind, *(LanguageModel(model, byte_tokenizer(), name=kind) for model in models))
        if outcome.note != _SAME:
            break
    return outcome


_SAME = "random models of it all write the same"


def _compare(kind: str, draft: LanguageModel, assistant: LanguageModel) -> Outcome:
    try:
        plan = draft.plan
        decoder = CoSDDecoder(draft, assistant, verifier=VERIFIER, schedule="fixed", draft_length=4)
    except UnsupportedModelError as error:
        named = f"model '{kind}' ({type(draft.model).__name__}) "
        return Outcome("refused", note=_line(error).removeprefix(named))
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS}
    written = [write(draft, [assistant], VERIFIER, prompt, **options) for prompt in PROMPTS]
    if len({each.ids for each in written}) < len(PROMPTS) or not any(each.replaced for each in written):
        return Outcome("not built", "", _SAME)
    try:
        for prompt, each in zip(PROMPTS, written, strict=True):
            assert_agrees(decoder.generate(prompt, **options), each, asked=True, tolerance=1e-3)
        for each, generation in zip(written, decoder.generate(PROMPTS, **options), strict=True):
            assert_agrees(generation, each, asked=True, tolerance=1e-3)
    except (AssertionError, CoSDError) as error:
        return Outcome("wrong", str(plan), f"{type(error).__name__}: {_line(error)}")
    return Outcome("works", str(plan), "together" if plan.batched else "one by one")


def _line(error: BaseException) -> str:
    """An exception's message in one line, without paths of this machine."""
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
        answer.send(Outcome("wrong", "", f"{type(error).__name__}: {_line(error)}"))


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
    """The page with its text as it is, and new counts and a new table."""
    text, counted, _ = PAGE.read_text(encoding="utf-8").partition("\nTried with transformers ")
    count = Counter(outcome.kind for outcome in outcomes.values())
    counts = ", ".join(f"{count[kind]} {kind}" for kind in KINDS)
    lines = [text + counted + f"{transformers.__version__}: {counts}.\n"]
    lines += ["| architecture | class | outcome | strategy | rows | why not |\n|---|---|---|---|---|---|"]
    for kind, outcome in outcomes.items():
        note = outcome.note.replace("|", "/")
        notes = [note, ""] if outcome.kind == "works" else ["", note]
        names = [f"`{kind}`", f"`{MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]}`"]
        cells = [*names, outcome.kind, outcome.strategy, *notes]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Try all and print each outcome."""
    torch.set_num_threads(1)
    kinds = names or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    outcomes: dict[str, Outcome] = {}
    for number, kind in enumerate(kinds, 1):
        outcome = outcomes[kind] = examined(kind)
        print(f"{number}/{len(kinds)} {kind}: {outcome.kind}: {outcome.strategy} {outcome.note}", flush=True)
    if not names:
        PAGE.write_text(page(outcomes), encoding="utf-8")
    sys.exit(any(outcome.kind == "wrong" for outcome in outcomes.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
