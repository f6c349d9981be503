"""Tune a pair, then score the tuned methods on other questions: `python -m benchmarks.tuning`.

Tunes on 350 held-out questions of each kind and scores on the 300 others of `cosd evaluate`. "Against
average" is the difference to the average of both distributions over the same questions. `--pair FOLDER` takes
a pair from FOLDER/facts and FOLDER/arithmetic. `--overconfident FOLDER` writes two such pairs instead:

* `sharp`: the bundled pair with logits four times as large: the same greedy texts, overconfident. A
  temperature corrects that.
* `untaught`: two models of the same size, each trained on its own domain alone (three minutes of one core),
  so that confidence is no sign of knowledge.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from cosd_core import CoSDDecoder, Settings
from cosd_core.demo import load_pair
from cosd_core.evaluation import AnswerFile, Method, bundled_task, make_report, run, unasked_task
from cosd_core.evaluation.intervals import difference
from cosd_core.evaluation.report import percent
from cosd_core.tuning import Tuning, tune
from examples.bundled_pairs.recipe.mixtures import Mixture, true_fact, true_letters, true_sum
from examples.bundled_pairs.recipe.tokenizer import byte_tokenizer
from examples.bundled_pairs.recipe.training import Recipe, train
from examples.bundled_pairs.score import load_folder
from examples.bundled_pairs.train import save

AVERAGE = "average (0.5 facts)"
SHARPNESS = 4
UNTAUGHT = {
    "facts": (Mixture(((1.0, true_fact),)), Recipe(steps=1000)),
    "arithmetic": (Mixture(((0.8, true_sum), (0.2, true_letters))), Recipe(steps=1500)),
}


def main() -> None:
    """Print the tuner's advice and a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", type=Path, help="the folder of another pair")
    parser.add_argument("--overconfident", type=Path, metavar="FOLDER", help="write two pairs and stop")
    parser.add_argument("--questions", type=int, default=350, help="to tune on, of each kind")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if given.overconfident:
        write_overconfident(given.overconfident)
        return
    pair = CoSDDecoder(*(load_folder(given.pair) if given.pair else load_pair()))
    with tempfile.TemporaryDirectory() as folder:
        tuning = tune(pair, unasked_task(given.questions), folder=folder)
        print(*tuning.advice, *tuning.warnings, *tuning.calibrations, sep="\n")
        score(pair, tuning, Path(folder) / "held-out.jsonl")


def score(pair: CoSDDecoder, tuning: Tuning, answers: Path) -> None:
    """Print the accuracy of a tuning's highlights on the held-out questions."""
    lines = tuning.highlights
    methods = [Method(line.name, Settings(**line.settings).method(), bool(line.draft)) for line in lines]
    outcomes = run(pair, methods, [bundled_task(300)], answers=AnswerFile(answers))
    report = make_report(outcomes, {})
    headings = ["method", "when tuning", *report.titles, "against the better model", "against average"]
    print(f"\n| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    right = {outcome.method.name: np.array(outcome.right) for outcome in outcomes}
    for line in lines:
        found = [report.line(line.name, *column) for column in report.columns]
        cells = [f"{100 * line.accuracy.value:.1f}"]
        cells += [f"{100 * each.accuracy.value:.1f}" for each in found[:-1]]
        cells += [percent(found[-1].accuracy)]
        cells += [percent(found[-1].gain, signed=True) if found[-1].gain else ""]
        cells += [percent(difference(right[line.name], right[AVERAGE]), signed=True)]
        name = f"**{line.name}**" if line.name == tuning.recommended else line.name
        print(f"| {' | '.join([name, *cells])} |")


def write_overconfident(folder: Path) -> None:
    """Write both pairs, every model in a folder of its name."""
    for name, model in zip(UNTAUGHT, load_pair(), strict=True):
        with torch.no_grad():
            model.model.model.norm.weight *= SHARPNESS  # scales the logits
        save(model.model, byte_tokenizer(), folder / "sharp" / name)
    for name, (mixture, recipe) in UNTAUGHT.items():
        untaught = train(mixture, recipe, seed=0, report=lambda _loss: None)
        save(untaught, byte_tokenizer(), folder / "untaught" / name)


if __name__ == "__main__":
    main()
