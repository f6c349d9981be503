"""Every method on a CUDA device with pairs of random models of real sizes: `python -m benchmarks.gpu`.

The weights are random, so acceptance means nothing; passes and times per pass do. A higher ``--sharpness``
raises the draft's confidence, so that the assistant runs less often.

The *floor* of a token is the time in which the device reads the weights once for every pass that the token
took, at the bandwidth that it has when it copies memory.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.common import random_llama
from cosd_core import CoSDDecoder, LanguageModel
from cosd_core.demo import load_pair
from cosd_core.evaluation.benchmark import Measurement, bench

SIZES = {
    "tiny": {"hidden": 128, "layers": 2, "intermediate_size": 256},  # to try the benchmark itself
    "0.5B": {"hidden": 1280, "layers": 24, "intermediate_size": 3456},
    "1B": {"hidden": 2048, "layers": 18, "intermediate_size": 5632},
    "7B": {"hidden": 4096, "layers": 32, "intermediate_size": 11008},
}
"""Llama models of about so many parameters: the bundled pair's vocabulary takes next to none of them."""

_COPIED = 2**30
"""Bytes of one copy, more than any cache holds."""


def main() -> None:
    """Print a markdown table per pair."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", nargs="+", default=["0.5B+1B", "1B+7B"], help="draft+assistant; the default takes minutes"
    )
    for name, default in {"tokens": 64, "prompts": 4, "repeats": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sharpness", type=float, default=30.0)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    device = torch.device(given.device)
    speed = bandwidth(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, {speed / 1e9:.0f} GB/s when it copies memory")
    prompts = [f"Prompt number {at}: once upon a time there was" for at in range(given.prompts)]
    for sizes in given.pairs:
        pair = [
            random_model(size, seed, device, given.sharpness) for seed, size in enumerate(sizes.split("+"))
        ]
        floors = [weight_bytes(each) / speed for each in pair]
        millions = " and ".join(f"{each.model.num_parameters() / 1e6:.0f}" for each in pair)
        print(
            f"\n{sizes}: {millions} million parameters, read in",
            *(f"{1000 * each:.2f}" for each in floors),
            "ms",
        )
        rows = bench(
            CoSDDecoder(*pair),
            prompts,
            repeats=given.repeats,
            max_new_tokens=given.tokens,
            batch_sizes=(given.prompts,),
        )
        print_table(rows, floors)
        del pair


def bandwidth(device: torch.device) -> float:
    """The bytes per second that a device reads and writes when it copies memory: the best of ten copies."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        _wait(device)
        started = time.perf_counter()
        target.copy_(source)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * _COPIED / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_model(size: str, seed: int, device: torch.device, sharpness: float) -> LanguageModel:
    """A random model of one of the sizes, in bfloat16. Its texts have the full length: no token ends them."""
    tokenizer: Any = load_pair()[0].tokenizer
    tokenizer.eos_token = None
    shape = SIZES[size]
    with device:
        model = random_llama(tokenizer, seed, **shape, heads=shape["hidden"] // 64)
    model.lm_head.weight.data *= sharpness
    return LanguageModel(model.to(torch.bfloat16), tokenizer, name=f"random {size}")


def weight_bytes(model: LanguageModel) -> int:
    """The bytes of the weights that a pass reads: all but the table of embeddings."""
    weights: int = sum(each.nbytes for each in model.model.parameters())
    return weights - int(model.model.get_input_embeddings().weight.nbytes)


def print_table(rows: Sequence[Measurement], floors: Sequence[float]) -> None:
    """One line per method, with its time per token over the floor where the passes are known."""
    headings = ("method", "tokens/s", "time per token, relative", "over the floor", "ms to the first token",
                "ms between texts", "MB", "draft passes per token", "assistant passes per token")  # fmt: skip
    print(f"\n| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    for row in rows:
        passes = [row.draft_passes, row.assistant_passes]
        over = ""
        if row.batch_size == 1 and None not in passes:
            floor = sum(count * each for count, each in zip(passes, floors, strict=True) if count)
            over = f"{1 / row.tokens_per_second / floor:.2f}"
        cells = (
            row.method, f"{row.tokens_per_second:.0f}", f"{row.relative:.2f}", over,
            f"{1000 * row.first_token:.1f}", f"{1000 * row.between_tokens:.1f}",
            f"{(row.memory or 0) / 1e6:.0f}", *("" if each is None else f"{each:.3f}" for each in passes),
        )  # fmt: skip
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
