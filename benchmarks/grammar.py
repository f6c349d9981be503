"""The time per token with a grammar over free text: `python -m benchmarks.grammar`.

A random pair with a vocabulary of 32,000 tokens writes JSON of a nested schema, and free text of the same
length, in turns, under the rule and with the draft alone. Under the rule a grammar raises the draft's
confidence, so that the assistant runs less often; the draft alone shows the cost of the masks.
"""

import random
import statistics
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from benchmarks.common import byte_level, random_model, seconds
from cosd_core import CoSDDecoder

VOCABULARY = 32_000
TURNS = 15
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
    },
    "required": ["name", "age", "tags"],
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"people": {"type": "array", "minItems": 2, "items": PERSON}},
    "required": ["people"],
}


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with random merges of letters, digits and JSON's signs."""
    rng = random.Random(0)
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, merges = set(pieces), []
    likely = [*"abcdefghijklmnopqrstuvwxyz0123456789", '"', ":", ",", "{", "}", "Ġ"]
    while len(pieces) < VOCABULARY - 1:
        left, right = rng.choice(pieces[-4000:] if rng.random() < 0.5 else likely), rng.choice(likely)
        if len(left) < 8 and left + right not in known:
            known.add(left + right)
            pieces.append(left + right)
            merges.append((left, right))
    return byte_level({piece: at for at, piece in enumerate(pieces)}, merges)


def measure(decoder: CoSDDecoder, verifier: str) -> None:
    """Print the ratio of one verifier."""

    def per_token(**options: Any) -> float:
        texts: list[Any] = []
        prompt = "Some people as JSON: "
        time = seconds(
            lambda: texts.append(decoder.generate(prompt, max_new_tokens=128, temperature=1, **options))
        )
        return time / len(texts[0].token_ids)

    ratios = []
    for turn in range(-2, TURNS):
        free, guided = per_token(seed=turn), per_token(seed=turn, grammar=SCHEMA)
        if turn >= 0:
            ratios.append(guided / free)
    low, median, high = statistics.quantiles(ratios, n=4)
    print(f"{verifier}: {median:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    torch.set_num_threads(1)
    shared = tokenizer()
    sizes = {"hidden": 128, "layers": 4, "heads": 4, "intermediate_size": 256}
    pair = [random_model(shared, seed, **sizes) for seed in (0, 1)]
    for name in ("rule", "draft"):
        measure(CoSDDecoder(*pair, verifier=name), name)
