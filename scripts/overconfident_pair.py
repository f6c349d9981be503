"""Two pairs that are too sure of themselves, to see whether `cosd tune` says so and is right.

`python scripts/overconfident_pair.py FOLDER` writes into FOLDER:

* `sharp`: the bundled pair with all logits four times as large. It knows and writes the same, but is nearly
  always sure. A temperature undoes that.
* `untaught`: two models of the same size, each trained on its own domain alone. Neither has ever been wrong,
  so its confidence says nothing about what it does not know. Training takes about three minutes of one core.
"""

import argparse
from pathlib import Path

import torch
from cosd_core.demo.recipe.mixtures import Mixture, true_fact, true_letters, true_sum
from cosd_core.demo.recipe.tokenizer import byte_tokenizer
from cosd_core.demo.recipe.training import Recipe, train
from cosd_core.demo.train import save

from cosd_core.demo import load_pair

SHARPNESS = 4

UNTAUGHT = {
    "facts": (Mixture(((1.0, true_fact),)), Recipe(steps=1000)),
    "arithmetic": (Mixture(((0.8, true_sum), (0.2, true_letters))), Recipe(steps=1500)),
}


def main() -> None:
    """Write both pairs, every model in a folder of its name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    torch.set_num_threads(1)  # models this small are slower on several
    for name, model in zip(UNTAUGHT, load_pair(), strict=True):
        with torch.no_grad():
            model.model.model.norm.weight *= SHARPNESS  # the last thing before the logits
        save(model.model, byte_tokenizer(), folder / "sharp" / name)
    for name, (mixture, recipe) in UNTAUGHT.items():
        untaught = train(mixture, recipe, seed=0, report=lambda _loss: None)
        save(untaught, byte_tokenizer(), folder / "untaught" / name)
        print(f"wrote {folder / 'untaught' / name}", flush=True)


if __name__ == "__main__":
    main()
