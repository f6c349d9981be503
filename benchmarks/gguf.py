"""The time of the loop over llama.cpp against llama.cpp's own, and against transformers, on one thread.

    python -m benchmarks.gguf draft.gguf assistant.gguf
    python -m benchmarks.gguf draft.gguf assistant.gguf --transformers DRAFT_FOLDER ASSISTANT_FOLDER

Ways take turns; the figures are processor times per token, the minimum over turns, so that other load of the
machine matters little. Peak memory is that of processes of their own.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from cosd_core import Chat, CoSDDecoder, GGUFModel

PROMPTS = [
    "Write a Python function that checks whether a number is prime.",
    "Explain how photosynthesis works.",
    "List the ten largest countries of the world by area.",
]

Ways = dict[str, Callable[[int], int]]
"""Each writes a text for the prompt of this number, and returns its number of tokens."""


def per_token(ways: Ways, turns: int) -> dict[str, float]:
    """Milliseconds of processor time per token: per prompt the least over the turns, then the mean."""
    best: dict[str, list[float]] = {name: [float("inf")] * len(PROMPTS) for name in ways}
    for turn in range(-1, turns):
        for at in range(len(PROMPTS)):
            for name, write in ways.items():
                started = time.process_time()
                count = write(at)
                if turn >= 0:
                    spent = 1000 * (time.process_time() - started) / count
                    best[name][at] = min(best[name][at], spent)
    return {name: sum(times) / len(times) for name, times in best.items()}


def fused(decoder: CoSDDecoder, tokens: int) -> Callable[[int], int]:
    """The decoder as a way."""
    chats = [Chat([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    return lambda at: len(decoder.generate(chats[at], max_new_tokens=tokens, min_new_tokens=tokens).token_ids)


def alone(model: GGUFModel, tokens: int) -> Callable[[int], int]:
    """llama-cpp-python's own generation, greedy."""
    llama = model.open_llama()
    chats: list[Any] = [
        model.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        for prompt in PROMPTS
    ]

    def write(at: int) -> int:
        llama.reset()
        for count, _ in enumerate(llama.generate(chats[at], temp=0.0), 1):
            if count == tokens:
                break
        return tokens

    return write


def ways_of(draft: str, assistant: str, tokens: int, verifiers: Sequence[str]) -> tuple[Ways, CoSDDecoder]:
    """The decoder with each verifier."""
    backend = "llama.cpp" if draft.endswith(".gguf") else "transformers"
    options: dict[str, Any] = {"n_threads": 1} if backend == "llama.cpp" else {"dtype": "float32"}
    options["prefix_cache_mb"] = 0  # every turn reads its prompt
    ways: Ways = {}
    for verifier in verifiers:
        decoder = CoSDDecoder.from_pretrained(draft, assistant, verifier=verifier, **options)
        ways[f"{verifier}, {backend}"] = fused(decoder, tokens)
    return ways, decoder


def peak_memory(draft: str, assistant: str, tokens: int) -> float:
    """The peak memory of a process that loads a pair and writes the texts once with the rule, in MB."""
    command = [sys.executable, "-m", "benchmarks.gguf", draft, assistant, "--memory", "--tokens", str(tokens)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("draft")
    parser.add_argument("assistant")
    parser.add_argument("--transformers", nargs=2, metavar=("DRAFT", "ASSISTANT"))
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--memory", action="store_true", help="print the peak memory in MB alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pair, tokens = (arguments.draft, arguments.assistant), arguments.tokens
    if arguments.memory:
        ways, _ = ways_of(*pair, tokens, ["rule"])
        per_token(ways, turns=1)
        # Not getrusage, whose peak includes that of the process that started this one.
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        return
    ways, decoder = ways_of(*pair, tokens, ["draft", "rule"])
    if isinstance(decoder.draft, GGUFModel):
        ways["llama-cpp-python"] = alone(decoder.draft, tokens)
    if arguments.transformers:
        twin_draft, twin_assistant = arguments.transformers
        ways |= ways_of(twin_draft, twin_assistant, tokens, ["draft", "rule"])[0]
    found = per_token(ways, arguments.turns)
    for name, milliseconds in found.items():
        print(f"{name:24} {milliseconds:7.1f} ms per token")
    print(f"draft over llama-cpp-python: {found['draft, llama.cpp'] / found['llama-cpp-python']:.3f}")
    print(f"peak memory, llama.cpp: {peak_memory(*pair, tokens):.0f} MB")
    if arguments.transformers:
        ratio = found["rule, transformers"] / found["rule, llama.cpp"]
        print(f"rule, transformers over llama.cpp: {ratio:.2f}")
        print(f"peak memory, transformers: {peak_memory(twin_draft, twin_assistant, tokens):.0f} MB")


if __name__ == "__main__":
    main()
