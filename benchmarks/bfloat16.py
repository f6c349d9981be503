"""How many texts of a model are the same alone and beside others, by dtype and settings."""

import asyncio
import sys
from typing import Any

import torch

from cosd_core import CoSDDecoder, LanguageModel

PROMPTS = (
    "The capital of France is", "Once upon a time there was a", "def add(a, b):", "In 1969, the first",
    "My favourite recipe needs", "The weather today is", "Dear Sir or Madam,", "A list of animals:",
)  # fmt: skip

SETTINGS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("float32", {}),
    ("bfloat16", {}),
    ("bfloat16", {"batch_size": 1}),
    ("bfloat16", {"deterministic": True}),
)


def same_texts(decoder: CoSDDecoder, temperature: float) -> int:
    """How many prompts have the same text alone and as calls at once."""
    options: Any = {"max_new_tokens": 32, "temperature": temperature, "seed": 7}

    async def together() -> list[Any]:
        return await asyncio.gather(*(decoder.agenerate(prompt, **options) for prompt in PROMPTS))

    alone = [decoder.generate(prompt, **options) for prompt in PROMPTS]
    pairs = zip(alone, asyncio.run(together()), strict=True)
    return sum(one.token_ids == other.token_ids for one, other in pairs)


def main(folder: str) -> None:
    """Print one line per dtype and settings."""
    torch.set_num_threads(1)
    print("| dtype and settings | greedy | sampled |\n|---|---|---|")
    for dtype, settings in SETTINGS:
        model = LanguageModel.from_pretrained(folder, dtype=dtype, prefix_cache_mb=0)
        decoder = CoSDDecoder(model, model, **settings)
        counts = [same_texts(decoder, temperature) for temperature in (0.0, 1.0)]
        print(f"| {dtype} {settings or ''} | {counts[0]} | {counts[1]} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
