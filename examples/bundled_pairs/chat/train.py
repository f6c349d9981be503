"""Train the chat pair: `python -m examples.bundled_pairs.chat.train --out DIR`.

A trunk is trained on all dialogues first. Two specialists start from it: the caller is trained on tool calls
and JSON, the talker on reading and small talk, each also on the other's dialogues with shuffled answers, so
that its confidence there is low. The actor starts from the caller and is also trained on the steps of a ReAct
agent. A stopped run resumes from its last checkpoint when it is started again with the same folder.
"""

import argparse
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .mixture import ACTOR, ALL, CALLER, COPYING, TALKER, dialogue, training
from .template import END, PAD
from .tokenizer import train_tokenizer
from .training import Phase, Recipe, new_model, render, train
from .words import is_rare

LONGEST_ANSWER = 256
TEXTS = 6000


@dataclass(frozen=True)
class Stage:
    """One fine-tuning of a trained model."""

    name: str
    start: str
    phase: Phase
    peak_rate: float
    seed: int


STAGES = (
    Stage("caller", "trunk", Phase(1500, CALLER), 2.5e-3, 1000),
    Stage("talker", "trunk", Phase(1500, TALKER), 2.5e-3, 2000),
    Stage("actor", "caller", Phase(1400, ACTOR), 1.5e-3, 3000),
)


def texts(seed: int) -> Iterator[str]:
    """Training texts of the tokenizer: rendered dialogues without their rare words."""
    template = train_tokenizer([])
    draw = training(seed)
    for _ in range(TEXTS):
        made = dialogue(draw)
        text = render(template, made)
        yield re.sub(r"[^\W\d_]+", lambda word: "" if is_rare(word[0]) else word[0], text)


def main(arguments: list[str] | None = None) -> None:
    """Train and write the models into the folder, a folder each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=7000, help="of the trunk")
    names = ["trunk", *(stage.name for stage in STAGES)]
    parser.add_argument("--only", choices=names, help="train this one; what it starts from first")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.only in (None, "trunk"):
        phases = (Phase(800, COPYING), Phase(options.steps - 800, ALL))
        train_one(options.out / "trunk", Recipe(phases), options.seed, start=None)
    for stage in STAGES:
        if options.only in (None, stage.name):
            recipe = Recipe((stage.phase,), peak_rate=stage.peak_rate)
            start = options.out / stage.start
            train_one(options.out / stage.name, recipe, options.seed + stage.seed, start)


def train_one(out: Path, recipe: Recipe, seed: int, start: Path | None) -> None:
    """Train one model, from the first weights or from another's, and write it."""
    out.mkdir(parents=True, exist_ok=True)
    if start is not None:
        shutil.copy(start / "tokenizer.json", out)
        shutil.copy(start / "tokenizer_config.json", out)
        shutil.copy(start / "chat_template.jinja", out)
    if (out / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    else:
        tokenizer = train_tokenizer(texts(seed))
        tokenizer.save_pretrained(out)

    def report(step: int, loss: float) -> None:
        if step % 20 == 0:
            print(f"{out.name}: step {step} loss {loss:.4f}", flush=True)

    model = (
        new_model(tokenizer, recipe, seed)
        if start is None
        else LlamaForCausalLM.from_pretrained(start, dtype="float32")
    )
    train(model, tokenizer, recipe, seed, out / "checkpoint.pt", report)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.convert_tokens_to_ids([END, PAD]),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        max_new_tokens=LONGEST_ANSWER,
    )
    model.bfloat16().save_pretrained(out)


if __name__ == "__main__":
    main()
