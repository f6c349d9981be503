"""Is the advice of `tune` right on real pairs? `python -m benchmarks.real_pairs MODEL MODEL [MODEL ...]`.

Models are folders or GGUF files; nothing is downloaded. Every pair is tuned on each of the mixed tasks of
`real_tasks.py`. Then both models alone, the default rule and learned trees with either model as the draft,
and what was advised, answer other questions. "Per group" follows the advice for each group of questions.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.real_tasks import make_tasks
from cosd_core import CoSDDecoder, RuleVerifier
from cosd_core.evaluation.intervals import accuracy, difference
from cosd_core.evaluation.report import percent
from cosd_core.evaluation.tasks import Task
from cosd_core.frontend.settings import Settings
from cosd_core.tuning import ReplayCache, Setting, Tuning, tune
from cosd_core.verifiers import DraftVerifier, PairwiseVerifier

Right = NDArray[np.bool_]


def main() -> None:
    """Print a table per pair and task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="folders or GGUF files")
    parser.add_argument("--questions", type=int, default=40, help="to tune on and to test on, per group")
    parser.add_argument("--tasks", type=int, default=3, help="how many of the tasks")
    given = parser.parse_args()
    for sources in combinations(given.models, 2):
        pair = CoSDDecoder.from_pretrained(draft=sources[0], assistant=sources[1])
        for task, held_out in list(make_tasks(given.questions))[: given.tasks]:
            with tempfile.TemporaryDirectory() as folder:
                started = time.process_time()
                tuning = tune(pair, task, folder=folder, progress=_report)
                report(pair, tuning, held_out, time.process_time() - started)


def _report(what: str, done: int, total: int) -> None:
    print(f"\r{what} {done} of {total}    ", end="", file=sys.stderr, flush=True)


def report(pair: CoSDDecoder, tuning: Tuning, task: Task, seconds: float) -> None:
    """Print the advice, and how it does on the held-out questions."""
    print(f"\n### {' + '.join(tuning.names)}: {tuning.task}\n")
    print(f"Tuned on {tuning.questions} questions in {seconds:.0f} s of processor time.\n")
    print(
        *(f"* {sentence}" for sentence in (*tuning.advice, *tuning.group_advice, *tuning.warnings)), sep="\n"
    )
    rows = dict(_answers(pair, tuning, task))
    singles = [name for name in rows if name.endswith(" alone")]
    better = rows[max(singles, key=lambda name: int(rows[name].sum()))]
    groups = [item.group for item in task.items]
    titles = ["method", *task.groups, "all", "against the better model"]
    print(f"\n| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    for name, right in rows.items():
        parts = [right[[each == group for each in groups]].mean() for group in task.groups]
        cells = [f"{100 * part:.0f}" for part in parts] + [percent(accuracy(right))]
        cells.append("" if right is better else percent(difference(right, better), signed=True))
        print(f"| {' | '.join([name, *cells])} |", flush=True)


def _answers(pair: CoSDDecoder, tuning: Tuning, task: Task) -> Iterator[tuple[str, Right]]:
    """Whether every method answers right; all are replayed from the same predictions."""
    names = tuning.names
    by_name = {line.name: line for line in tuning.lines}
    advised = [tuning.recommended, *(each.recommended for each in tuning.groups)]
    chosen = {name: by_name[name] for name in advised}
    heats = [_temperatures(line.settings, line.draft, len(names)) for line in chosen.values()]
    temperatures = tuple(zip((1.0,) * len(names), *heats, strict=True))
    cache = ReplayCache(
        pair.models, [item.prompt for item in task.items], task.options, temperatures=temperatures
    )

    def right(setting: Setting) -> Right:
        endings = cache.generate([(setting, at) for at in range(len(task.items))])
        return np.array([item.is_right(each.text) for item, each in zip(task.items, endings, strict=True)])

    for draft, name in enumerate(names):
        yield f"{name} alone", right(Setting(DraftVerifier(), draft))
    for draft, name in enumerate(names):
        yield f"default rule, {name} drafts", right(Setting(RuleVerifier(), draft))
    for (draft, name), kind in product(enumerate(names), ("tree", "tree of mismatches")):
        if line := by_name.get(f"{kind}, {name} drafts"):
            yield line.name, right(Setting(_verifier(line.settings), draft))
    found = {
        name: right(Setting(_verifier(line.settings), line.draft, 1 + at))
        for at, (name, line) in enumerate(chosen.items())
    }
    yield f"**advised: {tuning.recommended}**", found[tuning.recommended]
    if tuning.groups:
        of_group = {each.name: found[each.recommended] for each in tuning.groups}
        overall = found[tuning.recommended]
        mixed = [of_group.get(item.group, overall)[at] for at, item in enumerate(task.items)]
        yield "**advised per group**", np.array(mixed)


def _verifier(settings: Mapping[str, Any]) -> PairwiseVerifier:
    verifier = Settings(**settings).method()["verifier"]
    assert isinstance(verifier, PairwiseVerifier), "averages have no place among different tokenizers"
    return verifier


def _temperatures(settings: Mapping[str, Any], draft: int, models: int) -> Sequence[float]:
    """The temperatures in the settings, in the order of the models."""
    order = (draft, *(at for at in range(models) if at != draft))
    values = dict(zip(order, settings.get("calibration", (1.0,) * models), strict=True))
    return [values[model] for model in range(models)]


if __name__ == "__main__":
    main()
