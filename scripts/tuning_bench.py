"""Tune a pair on some of the bundled questions and see whether what comes of it holds on others.

`python scripts/tuning_bench.py` for the bundled pair, with `--pair FOLDER` for one in FOLDER/facts and
FOLDER/arithmetic (`scripts/overconfident_pair.py` makes such). Tuned on 350 held-out questions of each kind
and judged on the 300 others that `cosd evaluate` asks: the table is of these.
"Against average" is the difference to the average of both distributions over the same questions.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers.utils import logging

from cosd_core import CoSDDecoder, LanguageModel, Settings
from cosd_core.demo import load_pair
from cosd_core.evaluation import AnswerFile, Method, bundled_task, make_report, run, unasked_task
from cosd_core.evaluation.intervals import difference
from cosd_core.evaluation.report import percent
from cosd_core.tuning import Tuning, tune

AVERAGE = "average (0.5 facts)"


def main() -> None:
    """Print what tuning says, and the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pair", type=Path, help="the folder of another pair")
    parser.add_argument("--questions", type=int, default=350, help="to tune on, of each kind")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    models = _load(given.pair) if given.pair else load_pair()
    pair = CoSDDecoder(*models)
    with tempfile.TemporaryDirectory() as folder:
        tuning = tune(pair, unasked_task(given.questions), folder=folder)
        print(*tuning.advice, *tuning.warnings, sep="\n")
        for each in tuning.calibrations:
            print(each)
        judge(pair, tuning, Path(folder) / "held-out.jsonl")


def judge(pair: CoSDDecoder, tuning: Tuning, answers: Path) -> None:
    """Print how the highlights of a tuning do on the held-out questions."""
    methods = [
        Method(line.name, Settings(**line.settings).method(), line.swapped) for line in tuning.highlights
    ]
    outcomes = run(pair, methods, [bundled_task(300)], answers=AnswerFile(answers))
    report = make_report(outcomes, {})
    headings = ["method", "when tuning", *report.titles, "against the better model", "against average"]
    print(f"\n| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
    right = {outcome.method.name: np.array(outcome.right) for outcome in outcomes}
    for line in tuning.highlights:
        lines = [report.line(line.name, *column) for column in report.columns]
        cells = [f"{100 * each.accuracy.value:.1f}" for each in lines[:-1]] + [percent(lines[-1].accuracy)]
        gain = percent(lines[-1].gain, signed=True) if lines[-1].gain else ""
        against = percent(difference(right[line.name], right[AVERAGE]), signed=True)
        name = f"**{line.name}**" if line.name == tuning.recommended else line.name
        tuned = f"{100 * line.accuracy.value:.1f}"
        print(f"| {' | '.join([name, tuned, *cells, gain, '' if line.name == AVERAGE else against])} |")


def _load(folder: Path) -> list[LanguageModel]:
    return [
        LanguageModel.from_pretrained(str(folder / name), dtype="float32", device="cpu")
        for name in ("facts", "arithmetic")
    ]


if __name__ == "__main__":
    main()
