"""Train the bundled pair from scratch: `python -m cosd_core.demo.train`.

The honest uncertainty of the pair is trained in on purpose. Each model sees the other's domain with its
associations destroyed (see `recipe/mixtures.py`), so its confidence is low exactly where it knows nothing.
Models that were not trained this way can be wrong with confidence; the demo shows what collaborative
decoding does with informative confidences, not that confidences are informative everywhere.

The same seed gives the same weights on the same kind of machine.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers import GenerationConfig, LlamaForCausalLM

from cosd_core.demo.recipe.mixtures import ARITHMETIC, FACTS, Mixture
from cosd_core.demo.recipe.tokenizer import BOS_ID, EOS_ID, PAD_ID, byte_tokenizer
from cosd_core.demo.recipe.training import Recipe, train

MODELS: dict[str, tuple[Mixture, Recipe]] = {
    "facts": (FACTS, Recipe(steps=2000)),
    "arithmetic": (ARITHMETIC, Recipe(steps=3000)),
}
LONGEST_ANSWER = 48
CLASS = "PreTrainedTokenizerFast"


def main(arguments: list[str] | None = None) -> None:
    """Train one model or both and write each into a folder of its name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "weights")
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    options = parser.parse_args(arguments)
    # More threads are slower for models this small, and one thread adds up in one order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in MODELS if options.model == "both" else [options.model]:
        save(train_with_progress(name, options.seed), options.out / name)


def train_with_progress(name: str, seed: int) -> LlamaForCausalLM:
    """Train the model called `name`, with a progress bar."""
    mixture, recipe = MODELS[name]
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

        return train(mixture, recipe, seed, report)


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write the weights as bf16 with the tokenizer beside them."""
    model.generation_config = GenerationConfig(
        bos_token_id=BOS_ID, eos_token_id=EOS_ID, pad_token_id=PAD_ID, max_new_tokens=LONGEST_ANSWER
    )
    model.bfloat16().save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    byte_tokenizer().save_pretrained(folder)
    # The newest transformers names a class that older ones do not have; this name is known to all.
    config = folder / "tokenizer_config.json"
    fields = {**json.loads(config.read_text()), "tokenizer_class": CLASS}
    config.write_text(json.dumps(fields, indent=2) + "\n")


if __name__ == "__main__":
    main()
