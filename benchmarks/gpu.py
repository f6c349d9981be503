"""Every method on a CUDA device with two random models of real size: `python -m benchmarks.gpu`.

The weights are random, so acceptance means nothing; passes and times per pass do. A higher ``--sharpness``
raises the draft's confidence, so that the assistant runs less often.
"""

import argparse
from typing import Any

import torch

from benchmarks.common import random_llama
from cosd_core import CoSDDecoder, LanguageModel
from cosd_core.demo import load_pair
from cosd_core.evaluation.benchmark import bench


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"layers": 16, "hidden": 2048, "tokens": 128, "prompts": 16, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sharpness", type=float, default=30.0)
    given = parser.parse_args()
    tokenizer: Any = load_pair()[0].tokenizer
    tokenizer.eos_token = None  # every text has the full length then
    sizes = {"hidden": given.hidden, "layers": given.layers, "heads": given.hidden // 64}
    pair = []
    for seed in (0, 1):
        with torch.device("cuda"):
            model = random_llama(tokenizer, seed, **sizes, intermediate_size=4 * given.hidden)
        model.lm_head.weight.data *= given.sharpness
        pair.append(LanguageModel(model.to(torch.bfloat16), tokenizer, name=f"random-{seed}"))
    prompts = [f"Prompt number {at}: once upon a time there was" for at in range(given.prompts)]
    rows = bench(CoSDDecoder(*pair), prompts, repeats=given.repeats, max_new_tokens=given.tokens)
    parameters = sum(each.numel() for each in pair[0].model.parameters()) / 1e6
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {parameters:.0f} M parameters each")
    headings = (
        "method",
        "tokens/s",
        "relative time per token",
        "ms to the first token",
        "MB",
        "draft passes",
    )
    print(f"\n| {' | '.join(headings)} | asked |\n{'|---' * (len(headings) + 1)}|")
    for row in rows:
        passes = [
            f"{each:.3f}" if each is not None else "" for each in (row.draft_passes, row.assistant_passes)
        ]
        print(
            f"| {row.method} | {row.tokens_per_second:.0f} | {row.relative:.2f} "
            f"| {1000 * row.first_token:.1f} | {(row.memory or 0) / 1e6:.0f} | {' | '.join(passes)} |"
        )


if __name__ == "__main__":
    main()
