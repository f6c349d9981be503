"""Train the all-round trunk of the chat pair: `python -m cosd_core.demo.chat.train --out DIR`.

A run that is stopped goes on from its last checkpoint when it is started again with the same folder.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from cosd_core.demo.chat.mixture import dialogue, training
from cosd_core.demo.chat.template import END, PAD
from cosd_core.demo.chat.tokenizer import train_tokenizer
from cosd_core.demo.chat.training import Recipe, render, train
from cosd_core.demo.chat.words import is_rare

LONGEST_ANSWER = 256
TEXTS = 6000


def texts(seed: int) -> Iterator[str]:
    """What the tokenizer learns from: rendered dialogues without their rare words."""
    template = train_tokenizer([])
    draw = training(seed)
    for _ in range(TEXTS):
        made = dialogue(draw)
        text = render(template, made)
        yield re.sub(r"[^\W\d_]+", lambda word: "" if is_rare(word[0]) else word[0], text)


def main(arguments: list[str] | None = None) -> None:
    """Train and write the model into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    if (options.out / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(options.out)
    else:
        tokenizer = train_tokenizer(texts(options.seed))
        tokenizer.save_pretrained(options.out)

    def report(step: int, loss: float) -> None:
        if step % 20 == 0:
            print(f"step {step} loss {loss:.4f}", flush=True)

    model = train(tokenizer, Recipe(options.steps), options.seed, options.out / "checkpoint.pt", report)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids([END, PAD]),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        max_new_tokens=LONGEST_ANSWER,
    )
    model.bfloat16().save_pretrained(options.out)


if __name__ == "__main__":
    main()
