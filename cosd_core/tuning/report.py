"""What came of tuning: figures, heat maps, a recommendation in words, and a settings file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cosd_core.errors import EvaluationFileError, quoted
from cosd_core.evaluation.intervals import Interval
from cosd_core.evaluation.plots import check_plotting


@dataclass(frozen=True, slots=True)
class Line:
    """One candidate.

    Attributes:
        name: What it is called.
        verifier: The word for its verifier.
        swapped: Whether the second model drafts.
        calibrated: Whether it sees calibrated confidences.
        alpha: A rule's threshold.
        beta: The same.
        right: How many questions it got right, each by what was learned without its fold.
        accuracy: Their share, with Wilson's interval of 95 percent, between 0 and 1.
        gain: The accuracy minus that of the better single model, with Newcombe's paired interval; None for
            one model alone.
        settings: The fields of :class:`Settings` that come to it, by what was learned from all questions.
    """

    name: str
    verifier: str
    swapped: bool
    calibrated: bool
    alpha: float | None
    beta: float | None
    right: int
    accuracy: Interval
    gain: Interval | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReplacementRate:
    """What the default rule made of the positions where the models differ.

    Attributes:
        drafting: The model that drafts.
        positions: Positions of the texts it wrote.
        differing: Those at which the models' tokens differ.
        replaced: Those at which it replaced the draft's.
    """

    drafting: str
    positions: int
    differing: int
    replaced: int


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """How sure a model is against how often it is right, where a verifier has to decide.

    Measured on the true completions where the models differ. Elsewhere nearly every model is right, which
    would hide what matters. As one of both is wrong there, even an honest model is a little less often right
    than it is sure.

    Attributes:
        model: The model.
        sure: Its mean confidence.
        right: How often its token is the true one.
        error: Its expected calibration error.
        temperature: The temperature fitted on all positions: above 1 for a model that is too sure.
        calibrated_error: The error at that temperature.
    """

    model: str
    sure: float
    right: float
    error: float
    temperature: float
    calibrated_error: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """Whether fusing helps, how, and how sure that is.

    Attributes:
        names: The two models.
        task: The task's name.
        questions: How many there were.
        folds: Into how many folds they were divided.
        lines: Every candidate.
        better_single: The name of the line of the model that is better alone.
        chosen: Per fold the candidate that was chosen by the other folds.
        accuracy: The accuracy of choosing so, on the folds that the choice did not see.
        gain: The same minus that of the better single model.
        fuse: Whether fusing is recommended: that gain is above 0 in the whole interval.
        recommended: The name of the recommended line.
        settings: The fields of :class:`Settings` that come to it, for ``tuned.json``.
        advice: The recommendation in words, one sentence or two each.
        warnings: What is wrong with the models' confidences, and what to try.
        notes: What could not be tried.
        firings: The default rule in both roles.
        honesty: Both models' calibration; empty where there are no completions, or the models never differ.
        computed: Positions at which both models were run.
        replayed: Positions that settings went through without.
        averaged: Tokens that averages wrote, which cannot be replayed.
    """

    names: tuple[str, str]
    task: str
    questions: int
    folds: int
    lines: tuple[Line, ...]
    better_single: str
    chosen: tuple[str, ...]
    accuracy: Interval
    gain: Interval
    fuse: bool
    recommended: str
    settings: Mapping[str, Any]
    advice: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    firings: tuple[ReplacementRate, ...]
    honesty: tuple[CalibrationSummary, ...]
    computed: int
    replayed: int
    averaged: int

    def line(self, name: str) -> Line:
        """The line of that name."""
        return next(line for line in self.lines if line.name == name)

    @property
    def highlights(self) -> tuple[Line, ...]:
        """Every line but for rules that are neither the default, nor the best of their kind, nor chosen."""
        best = {self.recommended, *self.chosen}
        for rules in self._maps().values():
            best |= {rules[0].name, max(rules, key=lambda line: line.right).name}
        return tuple(line for line in self.lines if line.alpha is None or line.name in best)

    def heat_maps(self) -> str:
        """The accuracy of rules over alpha and beta (the paper's Figure 2), in characters."""
        return "\n\n".join(_heat_map(self._title(key), lines) for key, lines in self._maps().items())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def save(self, folder: str | Path, *, plot: bool = False) -> list[Path]:
        """Write ``report.json``, the settings as ``tuned.json``, and if wished ``rules.png``.

        Raises:
            EvaluationFileError: They cannot be written.
            MissingExtraError: matplotlib is missing.
        """
        paths = [Path(folder) / name for name in ("report.json", "tuned.json", *(["rules.png"] * plot))]
        try:
            paths[0].parent.mkdir(parents=True, exist_ok=True)
            for path, content in zip(paths, (self.to_dict(), self.settings), strict=False):
                path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            if plot:
                self.plot().savefig(paths[-1], dpi=150)
        except OSError as error:
            raise EvaluationFileError(f"cannot write to {quoted(str(folder))}: {quoted(error)}") from error
        return paths

    def plot(self) -> Any:
        """The heat maps as a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is missing.
        """
        check_plotting()
        from matplotlib.figure import Figure  # not pyplot: it keeps every figure

        maps = self._maps()
        shares = [100 * line.accuracy.value for lines in maps.values() for line in lines]
        figure = Figure(figsize=(9, 2.25 * len(maps)), layout="constrained")
        axes = figure.subplots(len(maps) // 2, 2, squeeze=False).ravel()  # both roles side by side
        for at, (key, lines) in zip(axes, maps.items(), strict=True):
            alphas, betas, cells = _cells(lines)
            rows = [[_percent(cells.get((alpha, beta))) for beta in betas] for alpha in alphas]
            image = at.imshow(rows, origin="lower", aspect="auto", vmin=min(shares), vmax=max(shares))
            at.set_xticks(range(len(betas)), [f"{each:g}" for each in betas])
            at.set_yticks(range(len(alphas)), [f"{each:g}" for each in alphas])
            at.set(xlabel="beta", ylabel="alpha", title=self._title(key))
            for (row, column), value in np.ndenumerate(rows):
                colour = "white" if value < (min(shares) + max(shares)) / 2 else "black"
                said = "" if np.isnan(value) else f"{value:.1f}"
                at.text(column, row, said, ha="center", va="center", fontsize="small", color=colour)
        figure.colorbar(image, ax=axes.tolist(), label="percent right")
        return figure

    def _maps(self) -> dict[tuple[bool, bool], list[Line]]:
        """The rules by (calibrated, swapped); the default comes first."""
        rules = [line for line in self.lines if line.alpha is not None]
        keys = dict.fromkeys((line.calibrated, line.swapped) for line in rules)
        return {key: [line for line in rules if (line.calibrated, line.swapped) == key] for key in keys}

    def _title(self, key: tuple[bool, bool]) -> str:
        calibrated, swapped = key
        return f"{self.names[swapped]} drafts{', calibrated' if calibrated else ''}"


def _percent(line: Line | None) -> float:
    return float("nan") if line is None else 100 * line.accuracy.value


def _heat_map(title: str, lines: Sequence[Line]) -> str:
    alphas, betas, cells = _cells(lines)
    rows = [f"percent right, {title}", f"alpha \\ beta{''.join(f'{beta:>7g}' for beta in betas)}"]
    for alpha in reversed(alphas):
        shares = (
            f"{100 * cells[alpha, beta].accuracy.value:>7.1f}" if (alpha, beta) in cells else " " * 7
            for beta in betas
        )
        rows.append(f"{alpha:>12g}{''.join(shares)}".rstrip())
    return "\n".join(rows)


def _cells(lines: Iterable[Line]) -> tuple[list[float], list[float], dict[tuple[float, float], Line]]:
    """All alphas and betas, and the line of each pair that was tried."""
    cells = {
        (line.alpha, line.beta): line for line in lines if line.alpha is not None and line.beta is not None
    }
    return sorted({alpha for alpha, _ in cells}), sorted({beta for _, beta in cells}), cells
