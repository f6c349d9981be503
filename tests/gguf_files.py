"""GGUF files of small random Llamas, written from the transformers models that they are compared with."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cosd_core import LanguageModel
from tests.tokenizers import gpt2

CONTEXT = 512
_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def llama(seed: int, tokenizer: PreTrainedTokenizerFast | None = None, **config: Any) -> LanguageModel:
    """A random two-layer Llama in float32 over a byte-level BPE, sharp enough to be sure sometimes."""
    tokenizer = tokenizer or gpt2(400)
    shape = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
        "initializer_range": 0.3, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
        "pad_token_id": None, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**{**shape, **config})).float()
    model.lm_head.weight.data *= 1.5
    return LanguageModel(model, tokenizer, name=f"llama-{seed}")


def save_gguf(model: LanguageModel, path: Path, *, template: str | None = None, pre: str = "gpt-2") -> str:
    """Write a Llama and its byte-level tokenizer as a GGUF file."""
    gguf = __import__("gguf")
    config = model.model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, model.tokenizer, template, pre)
    for name, tensor in model.model.state_dict().items():
        writer.add_tensor(_gguf_name(name), _rotated(name, tensor, config).numpy())
    _write(writer)
    return str(path)


def save_lora(model: LanguageModel, path: Path, *, seed: int) -> str:
    """Write a random LoRA adapter of rank 4 over the value projections of such a model."""
    gguf = __import__("gguf")
    config, random = model.model.config, np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    size = config.hidden_size
    for layer in range(config.num_hidden_layers):
        for end, shape in (("a", (4, size)), ("b", (size, 4))):
            weights = random.normal(size=shape).astype(np.float32)
            writer.add_tensor(f"blk.{layer}.attn_v.weight.lora_{end}", weights)
    _write(writer)
    return str(path)


def save_mamba(tokenizer: PreTrainedTokenizerFast, path: Path, *, seed: int) -> str:
    """Write a random Mamba, whose state cannot go back."""
    gguf = __import__("gguf")
    random, size, state, rank, width = np.random.default_rng(seed), 32, 8, 4, 4
    inner = 2 * size
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(size)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(2)
    writer.add_ssm_conv_kernel(width)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokenizer))
    _add_tokenizer(writer, tokenizer, None, "gpt-2")
    shapes = {"token_embd.weight": (len(tokenizer), size), "output.weight": (len(tokenizer), size)}
    for layer in range(2):
        shapes |= {
            f"blk.{layer}.ssm_in.weight": (2 * inner, size),
            f"blk.{layer}.ssm_conv1d.weight": (inner, width),
            f"blk.{layer}.ssm_conv1d.bias": (inner,),
            f"blk.{layer}.ssm_x.weight": (rank + 2 * state, inner),
            f"blk.{layer}.ssm_dt.weight": (inner, rank),
            f"blk.{layer}.ssm_dt.bias": (inner,),
            f"blk.{layer}.ssm_d": (inner,),
            f"blk.{layer}.ssm_out.weight": (size, inner),
        }
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(scale=0.4, size=shape).astype(np.float32))
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.1.attn_norm.weight"):
        writer.add_tensor(name, np.ones(size, np.float32))
    for layer in range(2):
        decay = -np.tile(np.arange(1, state + 1, dtype=np.float32), (inner, 1))
        writer.add_tensor(f"blk.{layer}.ssm_a", decay)
    _write(writer)
    return str(path)


def _add_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerFast, template: str | None, pre: str) -> None:
    import json

    written = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = [tokenizer.convert_ids_to_tokens(at) for at in range(len(tokenizer))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in written["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)


def _write(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _WHOLE:
        return f"{_WHOLE[stem]}.weight"
    layer, _, part = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_LAYER[part]}.weight"


def _rotated(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """llama.cpp rotates neighbouring numbers of a head, transformers those that are half a head apart."""
    if "q_proj" not in name and "k_proj" not in name:
        return tensor
    heads = config.num_attention_heads
    return tensor.view(heads, 2, -1, config.hidden_size).transpose(1, 2).reshape(tensor.shape).contiguous()
