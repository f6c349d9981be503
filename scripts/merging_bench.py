"""What sharing batches saves, as ratios: `python scripts/merging_bench.py`.

Twelve requests to the bundled pair, awaited one after another, all at once, and as one batch, in turns. The
ratios are medians over the turns.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import torch

from cosd_core import CoSDDecoder
from cosd_core.demo import load_pair

TURNS = 15
PROMPTS = [f"Q: letters in the capital of France plus {number}? A:" for number in range(12)]
OPTIONS: dict[str, Any] = {"max_new_tokens": 64, "min_new_tokens": 64}


async def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    decoder = CoSDDecoder(*load_pair())

    async def one_by_one() -> None:
        for prompt in PROMPTS:
            await decoder.agenerate(prompt, **OPTIONS)

    async def at_once() -> None:
        await asyncio.gather(*(decoder.agenerate(prompt, **OPTIONS) for prompt in PROMPTS))

    async def scattered() -> None:
        tasks = []
        for prompt in PROMPTS:
            tasks.append(asyncio.create_task(decoder.agenerate(prompt, **OPTIONS)))
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)

    async def one_batch() -> None:
        await decoder.agenerate(PROMPTS, **OPTIONS)

    ways = {"at once": at_once, "10 ms apart": scattered, "as one batch": one_batch}
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, TURNS):
        alone = await _seconds(one_by_one)
        for name, way in ways.items():
            ratio = alone / await _seconds(way)
            if turn >= 0:
                ratios[name].append(ratio)
    for name, measured in ratios.items():
        low, median, high = statistics.quantiles(measured, n=4)
        print(f"{name}: {median:.2f} times as fast as one by one ({low:.2f} to {high:.2f})")


async def _seconds(work: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await work()
    return time.perf_counter() - started


if __name__ == "__main__":
    asyncio.run(main())
