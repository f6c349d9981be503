"""How sure models are against how often they are right, and the temperature that brings both together.

A temperature per model is fitted by the likelihood of the true tokens (Guo et al., *On Calibration of Modern
Neural Networks*, ICML 2017, arXiv 1706.04599). It changes the confidence that a verifier sees, and never
which token a model picks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from cosd_core.errors import MissingExtraError, TrainingDataError
from cosd_core.verifiers.observations import TEMPERATURES, Observations

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BINS = 10
_WIDTH = 20
_STEPS = 40
"""Each leaves two thirds of the interval in which the best temperature lies."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Positions at which a model is about equally sure: ``low < confidence <= high``.

    Attributes:
        low: The lower bound.
        high: The upper bound.
        count: How many positions there are.
        confidence: Their mean confidence; 0 if there are none.
        accuracy: The share at which the model's token is the true one; 0 if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """One model's confidences at one temperature, held against the truth.

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
        """The expected calibration error: how far apart confidence and accuracy are, weighed by positions."""
        total = sum(each.count for each in self.bins)
        return sum(each.count * abs(each.accuracy - each.confidence) for each in self.bins) / total

    @classmethod
    def of(cls, observations: Observations, model: int, temperature: float = 1.0) -> Self:
        """Hold one model's confidences at all positions against the truth."""
        temperatures = [1.0] * len(observations.names)
        temperatures[model] = temperature
        sure = observations.confidences(temperatures)[:, model]
        right = observations.right[:, model]
        loss = -float(observations.log_likelihoods(temperatures)[:, model].mean(dtype=np.float64))
        bin_of = np.clip(np.ceil(sure * _BINS).astype(int) - 1, 0, _BINS - 1)
        return cls(
            temperature, loss, tuple(_bin(at, sure[bin_of == at], right[bin_of == at]) for at in range(_BINS))
        )

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
    """A temperature per model, and what it does.

    Attributes:
        names: The models, the draft first.
        before: Every model's confidences at temperature 1.
        after: The same at the fitted temperature. It was fitted on the positions it is measured on, which
            flatters one number per model only a little.
    """

    names: tuple[str, ...]
    before: tuple[Reliability, ...]
    after: tuple[Reliability, ...]

    @property
    def temperatures(self) -> tuple[float, ...]:
        """What :class:`CoSDDecoder` takes as ``calibration``."""
        return tuple(each.temperature for each in self.after)

    @classmethod
    def fit(cls, observations: Observations) -> Self:
        """Fit every model's temperature by the likelihood of the true token, over all positions.

        Raises:
            TrainingDataError: There is no position.
        """
        if not len(observations):
            raise TrainingDataError("there is nothing to calibrate on: the data hold no position")
        models = range(len(observations.names))
        return cls(
            observations.names,
            tuple(Reliability.of(observations, model) for model in models),
            tuple(Reliability.of(observations, model, _best(observations, model)) for model in models),
        )

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
            axes: Where to, one per model; None: a new figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError as error:
            raise MissingExtraError('plots need matplotlib: pip install "cosd[plots]"') from error

        if axes is None:
            count = len(self.names)
            axes = pyplot.subplots(1, count, figsize=(4.5 * count, 4.5), squeeze=False)[1][0]
        for at, name, before, after in zip(axes, self.names, self.before, self.after, strict=True):
            at.plot([0, 1], [0, 1], color="grey", linestyle="dotted")
            for each, style in ((before, "o-"), (after, "s--")):
                label = f"T = {each.temperature:.2f}, error {each.error:.3f}"
                bins = [one for one in each.bins if one.count]
                at.plot([one.confidence for one in bins], [one.accuracy for one in bins], style, label=label)
            at.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="right", title=name)
            at.legend()
        return axes


def _bin(at: int, sure: NDArray[Any], right: NDArray[Any]) -> Bin:
    low, high = at / _BINS, (at + 1) / _BINS
    if not len(sure):
        return Bin(low, high, 0, 0.0, 0.0)
    return Bin(low, high, len(sure), float(sure.mean(dtype=np.float64)), float(right.mean()))


def _best(observations: Observations, model: int) -> float:
    """The most likely temperature: the loss is convex in 1/T, so thirds of the interval can be ruled out."""
    low, high = 1 / TEMPERATURES[-1], 1 / TEMPERATURES[0]

    def loss(inverse: float) -> float:
        temperatures = [1.0] * len(observations.names)
        temperatures[model] = min(max(1 / inverse, TEMPERATURES[0]), TEMPERATURES[-1])
        return -float(observations.log_likelihoods(temperatures)[:, model].mean(dtype=np.float64))

    for _ in range(_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return round(min(max(2 / (low + high), TEMPERATURES[0]), TEMPERATURES[-1]), 3)
