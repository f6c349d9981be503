"""The result of a tuning: figures, heat maps, a recommendation in words, and a settings file."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosd_core.evaluation.files import save_files
from cosd_core.evaluation.intervals import Interval
from cosd_core.evaluation.plots import new_figure
from cosd_core.utils.escaping import plot_text


@dataclass(frozen=True, slots=True)
class CandidateLine:
    """The result of one candidate.

    Attributes:
        name: Its name.
        verifier: The name of its verifier.
        draft: The number of the model that drafts.
        calibrated: Whether the confidences are calibrated.
        alpha: The threshold of a rule.
        beta: The same.
        right: The number of right answers, with fits without the question's fold.
        accuracy: Their share, with Wilson's interval of 95 percent, between 0 and 1.
        gain: The accuracy minus that of the better single model, with Newcombe's paired interval; None for
            one model alone.
        settings: Its fields of :class:`Settings`, with the fit on all questions.
    """

    name: str
    verifier: str
    draft: int
    calibrated: bool
    alpha: float | None
    beta: float | None
    right: int
    accuracy: Interval
    gain: Interval | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReplacementRate:
    """How often the default rule replaces tokens.

    Attributes:
        drafting: The model that drafts.
        positions: Positions of the texts.
        differing: Those at which the models' tokens differ.
        replaced: Those at which the rule replaced the draft's token.
    """

    drafting: str
    positions: int
    differing: int
    replaced: int


@dataclass(frozen=True, slots=True)
class CalibrationSummary:
    """A model's confidence and accuracy where a verifier has to decide.

    Measured on the true completions where the models differ. Elsewhere nearly every model is right, which
    would hide the difference. Since one of both models is wrong there, even a calibrated model is right a
    little less often than its confidence.

    Attributes:
        model: The model.
        confidence: Its mean confidence.
        right: The share of positions where its token is the true one.
        error: Its expected calibration error.
        temperature: The temperature fitted on all positions: above 1 for an overconfident model.
        calibrated_error: The error at that temperature.
    """

    model: str
    confidence: float
    right: float
    error: float
    temperature: float
    calibrated_error: float


@dataclass(frozen=True, slots=True)
class GroupResult:
    """Whether and how to fuse for one group of questions; the fields are those of :class:`Tuning`."""

    name: str
    questions: int
    better_single: str
    accuracy: Interval
    gain: Interval
    fuse: bool
    recommended: str
    settings: Mapping[str, Any]
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of a tuning: whether and how to fuse.

    Attributes:
        names: The models.
        task: The task's name.
        questions: The number of questions.
        folds: The number of folds.
        lines: All candidates.
        better_single: The name of the line of the better single model.
        chosen: For every fold the candidate that was chosen on the other folds.
        accuracy: The accuracy of these choices on the folds that they were not based on.
        gain: The same minus that of the better single model.
        fuse: Whether fusing is recommended: the whole interval of that gain is above 0.
        recommended: The name of the recommended line.
        settings: Its fields of :class:`Settings`, for ``tuned.json``.
        advice: The recommendation in words, one sentence or two each.
        groups: The same for each of the task's groups, judged on its questions alone.
        warnings: Warnings about the models' confidences, with a remedy.
        notes: What could not be tried.
        replacement_rates: Those of the default rule with every model as the draft.
        calibrations: Every model's calibration; empty without completions, or if the models never differ.
        computed: Predictions that the models made.
        replayed: Tokens of the texts that were replayed from them.
        decoded: Texts that filled the context window of an assistant, so that they were decoded.
        averaged: Tokens that averages wrote, which cannot be replayed.
    """

    names: tuple[str, ...]
    task: str
    questions: int
    folds: int
    lines: tuple[CandidateLine, ...]
    better_single: str
    chosen: tuple[str, ...]
    accuracy: Interval
    gain: Interval
    fuse: bool
    recommended: str
    settings: Mapping[str, Any]
    advice: tuple[str, ...]
    groups: tuple[GroupResult, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    replacement_rates: tuple[ReplacementRate, ...]
    calibrations: tuple[CalibrationSummary, ...]
    computed: int
    replayed: int
    decoded: int
    averaged: int

    @property
    def group_advice(self) -> tuple[str, ...]:
        """The recommendation for every group in words, a sentence or two each."""
        return tuple(f"For {each.name}: {' '.join(each.advice[:2])}" for each in self.groups)

    def line(self, name: str) -> CandidateLine:
        """The line of that name."""
        return next(line for line in self.lines if line.name == name)

    @property
    def highlights(self) -> tuple[CandidateLine, ...]:
        """All lines except rules that are neither the default, nor the best of their role, nor chosen."""
        names = {self.recommended, *self.chosen, *(each.recommended for each in self.groups)}
        for rules in self._rules_by_role().values():
            names |= {rules[0].name, max(rules, key=lambda line: line.right).name}
        return tuple(line for line in self.lines if line.alpha is None or line.name in names)

    def heat_maps(self) -> str:
        """The accuracy of rules over alpha and beta (the paper's Figure 2), in characters."""
        return "\n\n".join(_heat_map(self._title(key), lines) for key, lines in self._rules_by_role().items())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def save(self, folder: str | Path, *, plot: bool = False) -> list[Path]:
        """Write ``report.json``, the settings as ``tuned.json``, and with ``plot`` ``rules.png``.

        Raises:
            EvaluationFileError: They cannot be written.
            MissingExtraError: matplotlib is not installed.
        """
        values = {"report.json": self.to_dict(), "tuned.json": self.settings}
        contents: dict[str, Any] = {
            name: json.dumps(value, indent=1, ensure_ascii=False) + "\n" for name, value in values.items()
        }
        if plot:
            contents["rules.png"] = self.plot()
        return save_files(folder, contents, private=True)  # values of a chat template may be private

    def plot(self) -> Any:
        """The heat maps as a matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        maps = self._rules_by_role()
        shares = [100 * line.accuracy.value for lines in maps.values() for line in lines]
        low, high = min(shares), max(shares)
        width = len(self.names)  # all roles side by side
        figure = new_figure(4.5 * width, 4.5 * len(maps) / width)
        panels = figure.subplots(len(maps) // width, width, squeeze=False).ravel()
        for panel, (key, lines) in zip(panels, maps.items(), strict=True):
            alphas, betas, grid = _grid(lines)
            image = panel.imshow(grid, origin="lower", aspect="auto", vmin=low, vmax=high)
            panel.set_xticks(range(len(betas)), [f"{each:g}" for each in betas])
            panel.set_yticks(range(len(alphas)), [f"{each:g}" for each in alphas])
            panel.set(xlabel="beta", ylabel="alpha", title=plot_text(self._title(key)))
            for (row, column), value in np.ndenumerate(grid):
                colour = "white" if value < (low + high) / 2 else "black"
                text = "" if np.isnan(value) else f"{value:.1f}"
                panel.text(column, row, text, ha="center", va="center", fontsize="small", color=colour)
        figure.colorbar(image, ax=panels.tolist(), label="percent right")
        return figure

    def _rules_by_role(self) -> dict[tuple[bool, int], list[CandidateLine]]:
        """The rules by (calibrated, draft); the default comes first."""
        rules = [line for line in self.lines if line.alpha is not None]
        keys = dict.fromkeys((line.calibrated, line.draft) for line in rules)
        return {key: [line for line in rules if (line.calibrated, line.draft) == key] for key in keys}

    def _title(self, key: tuple[bool, int]) -> str:
        calibrated, draft = key
        return f"{self.names[draft]} drafts{', calibrated' if calibrated else ''}"


def _heat_map(title: str, lines: Sequence[CandidateLine]) -> str:
    alphas, betas, grid = _grid(lines)
    rows = [f"percent right, {title}", f"alpha \\ beta{''.join(f'{beta:>7g}' for beta in betas)}"]
    for alpha, shares in zip(reversed(alphas), reversed(grid), strict=True):
        cells = (" " * 7 if np.isnan(share) else f"{share:>7.1f}" for share in shares)
        rows.append(f"{alpha:>12g}{''.join(cells)}".rstrip())
    return "\n".join(rows)


def _grid(lines: Iterable[CandidateLine]) -> tuple[list[Any], list[Any], NDArray[Any]]:
    """All alphas and betas of rules, and the percent right, NaN for pairs not tried, ``[alphas, betas]``."""
    shares = {(line.alpha, line.beta): 100 * line.accuracy.value for line in lines}
    alphas, betas = (sorted(set(each)) for each in zip(*shares, strict=True))
    return alphas, betas, np.array([[shares.get((a, b), np.nan) for b in betas] for a in alphas])
