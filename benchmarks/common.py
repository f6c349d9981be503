"""Shared by the benchmarks: ratios measured in turns, and random Llama models."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cosd_core import LanguageModel

Call = Callable[[], object]


def seconds(call: Call, clock: Callable[[], float] = time.perf_counter) -> float:
    """The time of one call by a clock, by default the wall time."""
    started = clock()
    call()
    return clock() - started


def print_ratios(
    ways: Mapping[str, tuple[Call, Call]], turns: int, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Print, per way, the time of the first call over that of the second: median and quartiles over turns.

    The two calls run one after the other within a turn, in alternating order, so that other load of the
    machine affects both. The first turn is not counted.
    """
    for name, (first, second) in ways.items():
        ratios = []
        for turn in range(-1, turns):
            order = ((0, first), (1, second)) if turn % 2 else ((1, second), (0, first))
            times = {number: seconds(call, clock) for number, call in order}
            if turn >= 0:
                ratios.append(times[0] / times[1])
        low, median, high = statistics.quantiles(ratios, n=4)
        print(f"{name:24} {median:.3f} ({low:.3f} to {high:.3f})", flush=True)


def byte_level(vocabulary: Mapping[str, int], merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; its end token is the id after the vocabulary."""
    tokenizer = Tokenizer(models.BPE(dict(vocabulary), merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def random_llama(tokenizer: Any, seed: int, *, hidden: int, layers: int, heads: int, **more: Any) -> Any:
    """A Llama with random weights over a tokenizer's ids."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, **more}
    config = LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        bos_token_id=None, pad_token_id=None, **sizes,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def random_model(tokenizer: Any, seed: int, **sizes: Any) -> LanguageModel:
    """:func:`random_llama` with its tokenizer."""
    return LanguageModel(random_llama(tokenizer, seed, **sizes), tokenizer, name=f"random-{seed}")
