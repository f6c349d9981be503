"""Temperature scaling: fits the temperature at which a model's confidence matches its accuracy.

A temperature per model is fitted by the likelihood of the true tokens (Guo et al., *On Calibration of Modern
Neural Networks*, ICML 2017, arXiv 1706.04599). It changes the confidence that a verifier sees, and never
which token a model predicts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cosd_core.errors import TrainingDataError
from cosd_core.utils import require_matplotlib
from cosd_core.verifiers.observations import TEMPERATURES, Observations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 10
_WIDTH = 20
_STEPS = 40
"""Steps of the ternary search. Each reduces the interval to two thirds."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The positions with ``low < confidence <= high``.

    Attributes:
        low: The lower bound.
        high: The upper bound.
        count: How many positions there are.
        confidence: Their mean confidence; 0 if there are none.
        accuracy: The share of positions where the model's token is the true one; 0 if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """The reliability of one model's confidences at one temperature.

    Attributes:
        temperature: The temperature.
        loss: The mean negative log-likelihood of the true token, in nats.
        bins: Confidences from 0 to 1 in bins of equal width.
    """

    temperature: float
    loss: float
    bins: tuple[Bin, ...]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of confidence and accuracy over positions."""
        total = sum(each.count for each in self.bins)
        return sum(each.count * abs(each.accuracy - each.confidence) for each in self.bins) / total

    @classmethod
    def of(cls, observations: Observations, model: int, temperature: float = 1.0) -> Self:
        """Compare one model's confidences at all positions with its accuracy."""
        alone = observations.of_models(model)
        confidences, right = alone.confidences([temperature])[:, 0], alone.right[:, 0]
        bin_of = np.clip(np.ceil(confidences * _BINS).astype(int) - 1, 0, _BINS - 1)
        members = [bin_of == index for index in range(_BINS)]
        bins = tuple(_bin(index, confidences[each], right[each]) for index, each in enumerate(members))
        return cls(temperature, _loss(alone, temperature), bins)

    def diagram(self) -> str:
        """The reliability diagram in characters: bars are accuracy, | marks the mean confidence."""
        lines = ["confidence   positions   right"]
        for each in self.bins:
            if each.count:
                bar = list(("#" * round(each.accuracy * _WIDTH)).ljust(_WIDTH + 1))
                bar[round(each.confidence * _WIDTH)] = "|"
                figures = f"{each.low:.1f} to {each.high:.1f} {each.count:>11,}  {each.accuracy:>6.1%}"
                lines.append(f"{figures}  {''.join(bar).rstrip()}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature per model, and the reliability before and after.

    Attributes:
        names: The models, the draft first.
        before: Every model's reliability at temperature 1.
        after: The same at the fitted temperature, measured on the positions it was fitted on. With one
            parameter per model the bias is small.
    """

    names: tuple[str, ...]
    before: tuple[Reliability, ...]
    after: tuple[Reliability, ...]

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The option ``calibration`` of :class:`CoSDDecoder`."""
        return tuple(each.temperature for each in self.after)

    @classmethod
    def fit(cls, observations: Observations) -> Self:
        """Fit every model's temperature by the likelihood of the true token, over all positions.

        Raises:
            TrainingDataError: There is no position.
        """
        if not len(observations):
            raise TrainingDataError("there is nothing to calibrate on: the data hold no position")
        alone = [observations.of_models(model) for model in range(len(observations.names))]
        before = tuple(Reliability.of(each, 0) for each in alone)
        return cls(observations.names, before, tuple(Reliability.of(each, 0, _fit(each)) for each in alone))

    def report(self) -> str:
        """Temperatures, losses, calibration errors and reliability diagrams as text."""
        return "\n\n".join(
            f"{name}: temperature {after.temperature:.2f}, negative log-likelihood {before.loss:.4f} -> "
            f"{after.loss:.4f}, calibration error {before.error:.4f} -> {after.error:.4f}\n"
            f"at temperature 1\n{before.diagram()}\nat temperature {after.temperature:.2f}\n{after.diagram()}"
            for name, before, after in zip(self.names, self.before, self.after, strict=True)
        )

    def plot(self, axes: "Sequence[Axes] | None" = None) -> "Sequence[Axes]":
        """Draw a reliability diagram per model with matplotlib (``pip install "cosd[plots]"``).

        Args:
            axes: The axes to draw on, one per model; None: those of a new figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        require_matplotlib()
        from matplotlib import pyplot

        if axes is None:
            count = len(self.names)
            axes = pyplot.subplots(1, count, figsize=(4.5 * count, 4.5), squeeze=False)[1][0]
        for panel, name, before, after in zip(axes, self.names, self.before, self.after, strict=True):
            panel.plot([0, 1], [0, 1], color="grey", linestyle="dotted")
            for each, style in ((before, "o-"), (after, "s--")):
                label = f"T = {each.temperature:.2f}, error {each.error:.3f}"
                bins = [bin_ for bin_ in each.bins if bin_.count]
                points = [bin_.confidence for bin_ in bins], [bin_.accuracy for bin_ in bins]
                panel.plot(*points, style, label=label)
            panel.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="right", title=name)
            panel.legend()
        return axes


def _bin(index: int, confidences: NDArray[Any], right: NDArray[Any]) -> Bin:
    low, high = index / _BINS, (index + 1) / _BINS
    if not len(right):
        return Bin(low, high, 0, 0.0, 0.0)
    return Bin(low, high, len(right), float(confidences.mean(dtype=np.float64)), float(right.mean()))


def _loss(alone: Observations, temperature: float) -> float:
    """The mean negative log-likelihood of the true token in nats, of a single model."""
    return -float(alone.log_likelihoods([temperature]).mean(dtype=np.float64))


def _fit(alone: Observations) -> float:
    """A single model's most likely temperature, by ternary search: the loss is convex in 1/T."""
    low, high = TEMPERATURES[0], TEMPERATURES[-1]
    for _ in range(_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _loss(alone, left) <= _loss(alone, right):
            high = right
        else:
            low = left
    return round((low + high) / 2, 3)
