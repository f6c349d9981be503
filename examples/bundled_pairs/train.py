"""Train the bundled pair and the arithmetic model in words: `python -m examples.bundled_pairs.train`.

Each model is trained on the other's domain with the answers shuffled (see `recipe/mixtures.py`), so that its
confidence is low there. Models that were not trained this way can be wrong with high confidence; the demo
shows the effect of collaborative decoding on informative confidences, not that confidences are informative
everywhere.

The same seed gives the same weights on the same kind of machine.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from cosd_core import demo

from . import WEIGHTS
from .recipe.mixtures import ARITHMETIC, FACTS, Mixture
from .recipe.tokenizer import byte_tokenizer
from .recipe.training import Recipe, train
from .recipe.words import word_tokenizer

MODELS: dict[str, tuple[Mixture, Recipe, Callable[[], PreTrainedTokenizerFast]]] = {
    "facts": (FACTS, Recipe(steps=2000), byte_tokenizer),
    "arithmetic": (ARITHMETIC, Recipe(steps=3000), byte_tokenizer),
    "arithmetic_words": (ARITHMETIC, Recipe(steps=3000), word_tokenizer),
}
PACKAGED = Path(demo.__file__).parent / "weights"
LONGEST_ANSWER = 48
CLASS = "PreTrainedTokenizerFast"


def main(arguments: list[str] | None = None) -> None:
    """Train one model or all and write each into a folder of its name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: where the bundled weights are")
    parser.add_argument("--model", choices=[*MODELS, "all"], default="all")
    options = parser.parse_args(arguments)
    # More threads are slower for models this small, and one thread adds up in one order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in MODELS if options.model == "all" else [options.model]:
        tokenizer = MODELS[name][-1]()
        out = options.out or (WEIGHTS if name == "arithmetic_words" else PACKAGED)
        save(train_with_progress(name, options.seed, tokenizer), tokenizer, out / name)


def train_with_progress(name: str, seed: int, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Train the model called `name` in a tokenizer's tokens, with a progress bar."""
    mixture, recipe, _ = MODELS[name]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(f"{name} model", total=recipe.steps, loss=float("nan"))

        def report(loss: float) -> None:
            progress.update(task, advance=1, loss=loss)

        return train(mixture, recipe, seed, report, tokenizer=tokenizer)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the weights as bf16 with the tokenizer beside them."""
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=LONGEST_ANSWER,
    )
    model.bfloat16().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(folder)
    # The newest transformers writes a class name that older ones do not have; all have this one.
    config = folder / "tokenizer_config.json"
    fields = {**json.loads(config.read_text()), "tokenizer_class": CLASS}
    config.write_text(json.dumps(fields, indent=2) + "\n")


if __name__ == "__main__":
    main()
