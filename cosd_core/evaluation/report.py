"""The report of an evaluation: a line per method, task and group; as markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, compress
from pathlib import Path
from typing import Any

from cosd_core.evaluation.files import save_files
from cosd_core.evaluation.intervals import Interval, accuracy, difference
from cosd_core.evaluation.runner import Outcome
from cosd_core.utils.escaping import csv_value, markdown_text

ALL = "all"
"""The group of all questions of a task, and the task of all questions."""

NOTES = """\
* Accuracy: Wilson's interval of 95 percent.
* Against the best single model: the method's accuracy minus that of the draft or the assistant alone,
  whichever has more of the same questions right; Newcombe's paired interval of 95 percent. The better model
  is chosen by these answers, which favours it: a difference just below 0 is no proof of harm.
* Every question counts the same in "all".
* Tokens per second compare methods of one run only: they took turns, batch by batch, on one machine. The
  assistant alone runs in the same loop, with the draft before it; without the loop it would be faster.
* Acceptance: drafted tokens that were kept. Passes: per token of the answers.
"""

_COSTS = (
    ("tokens/s", "tokens_per_second", ".0f"),
    ("tokens per answer", "tokens", ".1f"),
    ("rounds per answer", "rounds", ".1f"),
    ("acceptance", "acceptance", ".2f"),
    ("draft passes per token", "draft_passes", ".2f"),
    ("assistant passes per token", "assistant_passes", ".2f"),
)
"""The columns of the table of costs: heading, field of :class:`Line`, format."""


@dataclass(frozen=True, slots=True)
class Line:
    """The result of one method on one group of questions.

    Attributes:
        method: The method's name.
        task: The task's name, or :data:`ALL`.
        group: The group's name, or :data:`ALL`.
        items: How many questions.
        right: How many were answered right.
        accuracy: Their share with its Wilson interval of 95 percent, between 0 and 1.
        gain: The accuracy minus that of the best single model over the same questions, with Newcombe's
            paired interval of 95 percent; None if no single model was among the methods, or this is one.
        best_single: The name of that model: ``"draft"``, ``"assistant"``, or of several ``"assistant 2"``.
        tokens_per_second: Tokens of the answers per second of wall time.
        tokens: Tokens per answer.
        rounds: Drafted blocks per answer.
        acceptance: The share of drafted tokens that were kept, between 0 and 1.
        draft_passes: Forward passes of the draft per token.
        assistant_passes: How often the assistants ran, per token.
    """

    method: str
    task: str
    group: str
    items: int
    right: int
    accuracy: Interval
    gain: Interval | None
    best_single: str | None
    tokens_per_second: float
    tokens: float
    rounds: float
    acceptance: float
    draft_passes: float
    assistant_passes: float


@dataclass(frozen=True, slots=True)
class Report:
    """All lines of an evaluation.

    Attributes:
        lines: Task by task and group by group, methods in their order.
        about: The models and options, as plain JSON values.
        runs: The number of runs that wrote the answers; speeds of different runs do not compare.
    """

    lines: tuple[Line, ...]
    about: Mapping[str, Any]
    runs: int = 1

    def to_markdown(self) -> str:
        """The tables of accuracy, gain and cost, with notes; names are escaped."""
        parts = [
            "# Evaluation",
            *(f"* {name}: {markdown_text(str(value))}" for name, value in self.about.items()),
            "",
        ]
        parts += ["## Accuracy, percent", "", *self._table("accuracy"), ""]
        if any(line.gain for line in self.lines):
            parts += ["## Against the best single model, points", "", *self._table("gain"), ""]
        parts += ["## Cost", "", *self._costs(), "", "## How to read it", "", NOTES.rstrip()]
        if self.runs > 1:
            parts.append(f"* The answers were written in {self.runs} runs, so their speeds do not compare.")
        return "\n".join(parts) + "\n"

    def to_csv(self) -> str:
        """One row per line, intervals as three columns each; no text is a formula of a spreadsheet."""
        rows = [_flat(line) for line in self.lines]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        lines = [asdict(line) for line in self.lines]
        return {"about": dict(self.about), "runs": self.runs, "lines": lines}

    def save(self, folder: str | Path) -> list[Path]:
        """Write ``report.md``, ``report.csv`` and ``report.json``.

        Raises:
            EvaluationFileError: They cannot be written.
        """
        texts = {
            "report.md": self.to_markdown(),
            "report.csv": self.to_csv(),
            "report.json": json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n",
        }
        return save_files(folder, texts)

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Task and group of every column of a table."""
        return list(dict.fromkeys((line.task, line.group) for line in self.lines))

    @property
    def titles(self) -> list[str]:
        """The columns' headings: the task's name only where there are several."""
        alone = len({task for task, _ in self.columns}) == 1
        return [
            group if alone or task == ALL else task if group == ALL else f"{task}: {group}"
            for task, group in self.columns
        ]

    @property
    def methods(self) -> list[str]:
        """The methods in their order."""
        return list(dict.fromkeys(line.method for line in self.lines))

    def line(self, method: str, task: str, group: str) -> Line:
        """The line of one method over one group."""
        key = (method, task, group)
        return next(line for line in self.lines if (line.method, line.task, line.group) == key)

    def _table(self, field: str) -> Iterator[str]:
        """A row per method and a column per group, with the line's interval of that name in percent."""
        yield _row("method", *self.titles)
        yield "|---" * (1 + len(self.titles)) + "|"
        for method in self.methods:
            intervals = [getattr(self.line(method, *column), field) for column in self.columns]
            yield _row(method, *(percent(each, signed=field == "gain") if each else "" for each in intervals))

    def _costs(self) -> Iterator[str]:
        yield _row("method", *(heading for heading, _, _ in _COSTS))
        yield "|---" * (1 + len(_COSTS)) + "|"
        for method in self.methods:
            line = self.line(method, *self.columns[-1])
            yield _row(method, *(format(getattr(line, field), form) for _, field, form in _COSTS))


def make_report(outcomes: Sequence[Outcome], about: Mapping[str, Any]) -> Report:
    """Summarise the outcomes of all methods and tasks; the last lines cover all questions."""
    tasks = list(dict.fromkeys(outcome.task.name for outcome in outcomes))
    lines: list[Line] = []
    for name in tasks:
        of_task = [outcome for outcome in outcomes if outcome.task.name == name]
        groups = of_task[0].task.groups
        for group in groups if len(groups) > 1 else ():
            lines += _lines([_of_group(each, group) for each in of_task], name, group or "none")
        lines += _lines(of_task, name, ALL)
    if len(tasks) > 1:
        methods = dict.fromkeys(outcome.method.name for outcome in outcomes)
        lines += _lines([_joined(outcomes, method) for method in methods], ALL, ALL)
    runs = {answer.run for outcome in outcomes for answer in outcome.answers}
    return Report(tuple(lines), dict(about), len(runs))


def _of_group(outcome: Outcome, group: str) -> Outcome:
    """The answers to one group's questions."""
    kept = [item.group == group for item in outcome.task.items]
    answers, right = compress(outcome.answers, kept), compress(outcome.right, kept)
    return replace(outcome, answers=tuple(answers), right=tuple(right))


def _joined(outcomes: Sequence[Outcome], method: str) -> Outcome:
    """One method's answers in all tasks."""
    own = [outcome for outcome in outcomes if outcome.method.name == method]
    answers = chain.from_iterable(outcome.answers for outcome in own)
    right = chain.from_iterable(outcome.right for outcome in own)
    return replace(own[0], answers=tuple(answers), right=tuple(right))


def _lines(outcomes: Sequence[Outcome], task: str, group: str) -> Iterator[Line]:
    """A line per method, over the same questions."""
    singles = {single: outcome for outcome in outcomes if (single := outcome.method.single)}
    draft_first = sorted(singles, key=lambda name: name != "draft")  # of equals the first is chosen
    best = max(draft_first, key=lambda name: sum(singles[name].right), default="")
    for outcome in outcomes:
        answers, count = outcome.answers, len(outcome.answers)
        tokens, drafted = sum(each.tokens for each in answers), sum(each.drafted for each in answers)
        compared = bool(singles) and outcome.method.single is None
        yield Line(
            method=outcome.method.name,
            task=task,
            group=group,
            items=count,
            right=sum(outcome.right),
            accuracy=accuracy(outcome.right),
            gain=difference(outcome.right, singles[best].right) if compared else None,
            best_single=best if compared else None,
            tokens_per_second=_ratio(tokens, sum(each.seconds for each in answers)),
            tokens=tokens / count,
            rounds=sum(each.rounds for each in answers) / count,
            acceptance=_ratio(sum(each.kept for each in answers), drafted),
            draft_passes=_ratio(sum(each.draft_passes for each in answers), tokens),
            assistant_passes=_ratio(sum(each.assistant_passes for each in answers), tokens),
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(markdown_text, cells)) + " |"


def percent(interval: Interval, *, signed: bool = False) -> str:
    """An interval in percent: ``96.7 (94.0 to 98.2)``."""
    form = "+.1f" if signed else ".1f"
    value, low, high = (format(100 * each, form) for each in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def _flat(line: Line) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in asdict(line).items():
        if name in ("accuracy", "gain"):
            limits = value or {"value": "", "low": "", "high": ""}
            flat |= {name: limits["value"], f"{name}_low": limits["low"], f"{name}_high": limits["high"]}
        else:
            flat[name] = "" if value is None else csv_value(value)
    return flat
