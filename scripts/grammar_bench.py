"""What a grammar costs per token, as a ratio to free text: `python scripts/grammar_bench.py`.

A random pair with a vocabulary of 32,000 tokens writes JSON of a nested schema, and free text of the same
length, in turns. The ratio is the median over the turns.
"""

import random
import statistics
import time
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cosd_core import CoSDDecoder, LanguageModel

VOCABULARY = 32_000
TURNS = 15
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "people": {
            "type": "array",
            "minItems": 2,
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "minLength": 20},
                    "age": {"type": "integer", "minimum": 0, "maximum": 150},
                    "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
                },
                "required": ["name", "age", "tags"],
            },
        }
    },
    "required": ["people"],
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with random merges of letters, digits and JSON's signs."""
    rng = random.Random(0)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Every single merge is written down: the two halves exist before the whole does.
    known, merges = set(pieces), []
    likely = [*"abcdefghijklmnopqrstuvwxyz0123456789", '"', ":", ",", "{", "}", "Ġ"]
    while len(pieces) < VOCABULARY - 1:
        left, right = rng.choice(pieces[-4000:] if rng.random() < 0.5 else likely), rng.choice(likely)
        if len(left) < 8 and left + right not in known:
            known.add(left + right)
            pieces.append(left + right)
            merges.append((left, right))
    made = Tokenizer(models.BPE({piece: at for at, piece in enumerate(pieces)}, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")


def model(seed: int, words: PreTrainedTokenizerFast) -> LanguageModel:
    """A random Llama of four layers."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=256, num_hidden_layers=4,
        num_attention_heads=4, eos_token_id=VOCABULARY - 1, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    return LanguageModel(LlamaForCausalLM(config), words, name=f"random-{seed}")


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    words = tokenizer()
    pair = model(0, words), model(1, words)
    for verifier in ("rule", "draft"):
        measure(CoSDDecoder(*pair, verifier=verifier), verifier)


def measure(decoder: CoSDDecoder, verifier: str) -> None:
    """Let both write in turns.

    A grammar makes the draft surer, so that the rule asks less often; the draft alone shows the bare cost.
    """

    def seconds_per_token(**options: Any) -> float:
        started = time.perf_counter()
        generation = decoder.generate("Some people as JSON: ", max_new_tokens=128, temperature=1.0, **options)
        return (time.perf_counter() - started) / len(generation.token_ids)

    ratios = []
    for turn in range(-2, TURNS):
        free, guided = seconds_per_token(seed=turn), seconds_per_token(seed=turn, grammar=SCHEMA)
        if turn >= 0:
            ratios.append(guided / free)
    low, median, high = statistics.quantiles(ratios, n=4)
    print(
        f"{verifier}: time per token with a grammar is {median:.2f} of free text's ({low:.2f} to {high:.2f})"
    )


if __name__ == "__main__":
    main()
