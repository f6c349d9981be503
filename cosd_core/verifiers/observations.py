"""What models thought at every position of true texts, in few numbers: enough to learn a verifier from.

A model's confidence at a temperature T is ``exp(-log Z(T))``, where ``Z(T)`` is the sum of
``exp((logit - highest logit) / T)`` over the vocabulary. ``log Z`` and its slope are kept at a grid of
temperatures; in between a cubic through both is exact to about a thousandth. The same numbers give the
likelihood of the true token at any temperature, and the entropy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from cosd_core.errors import InvalidOptionError, TrainingDataError, quoted
from cosd_core.options import check_calibration
from cosd_core.verifiers.features import CONFIDENCES

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]

TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (step / 2) for step in range(-4, 7))
"""The grid, half an octave apart, from 1/4 to 8."""

_ONE = TEMPERATURES.index(1.0)


@dataclass(frozen=True, slots=True)
class Decisions:
    """Positions where exactly one answer is right, as a verifier sees them, and that answer (paper, 3.3).

    Attributes:
        points: The features as columns, ``[decisions, features]``.
        replace: The label: False where x is the true token, True where it is not and y is, ``[decisions]``.
        agrees: Whether x and y are the same token, so that nothing is decided, ``[decisions]``.
        example: Which example a position is of, ``[decisions]``.
        dropped: How many positions had no label because neither token is the true one.
    """

    points: Floats
    replace: Flags
    agrees: Flags
    example: Ints
    dropped: int

    def __len__(self) -> int:
        return len(self.replace)


@dataclass(frozen=True, eq=False)
class Observations:
    """What a draft model and its assistants would have written at every position of true texts.

    Attributes:
        names: The models, the draft first.
        example: Which example a position is of, counted from 0, ascending, ``[positions]``.
        truth: The true token, ``[positions]``.
        picks: The most probable token of every model: x, then y of every assistant, ``[positions, models]``.
        probabilities: ``[position, i, j]`` is model i's probability of model j's pick, at temperature 1; the
            diagonal holds p and q, ``[positions, models, models]``.
        runners_up: The probability of every model's second choice, ``[positions, models]``.
        gaps: The logit of the true token minus that of the pick, ``[positions, models]``, at most 0.
        partitions: ``log Z`` at every temperature of the grid, ``[positions, models, temperatures]``.
        slopes: The derivative of ``log Z`` by 1/T there: the mean logit below the pick's, of the same shape.
        cut: Whether the example was cut to fit a context window, ``[positions]``.
    """

    names: tuple[str, ...]
    example: Ints
    truth: Ints
    picks: Ints
    probabilities: Floats
    runners_up: Floats
    gaps: Floats
    partitions: Floats
    slopes: Floats
    cut: Flags

    def __len__(self) -> int:
        """The number of positions."""
        return len(self.truth)

    @property
    def examples(self) -> int:
        """How many examples the positions are of."""
        return len(np.unique(self.example))

    @property
    def truncated(self) -> int:
        """How many of them were cut to fit a context window."""
        return len(np.unique(self.example[self.cut]))

    @property
    def right(self) -> Flags:
        """Whether every model's pick is the true token, ``[positions, models]``."""
        return np.equal(self.picks, self.truth[:, None])

    @property
    def agreement(self) -> Flags:
        """Whether every assistant's pick is the draft's, ``[positions, assistants]``."""
        return np.equal(self.picks[:, 1:], self.picks[:, :1])

    @property
    def margins(self) -> Floats:
        """By how much every model's pick is more probable than its second choice, ``[positions, models]``."""
        return self.probabilities.diagonal(axis1=1, axis2=2) - self.runners_up

    @property
    def entropies(self) -> Floats:
        """The entropy of every model's distribution in nats, ``[positions, models]``."""
        return self.partitions[..., _ONE] - self.slopes[..., _ONE]

    def confidences(self, calibration: Sequence[float] | None = None) -> Floats:
        """p, then q of every assistant, at a temperature per model, ``[positions, models]``.

        Args:
            calibration: The temperatures, as :class:`CoSDDecoder` takes them, from 1/4 to 8.

        Raises:
            InvalidOptionError: There are more or fewer temperatures than models, or one lies outside.
        """
        return np.exp(-self._log_partitions(calibration))

    def log_likelihoods(self, calibration: Sequence[float] | None = None) -> Floats:
        """Every model's log-probability of the true token in nats, ``[positions, models]``.

        Raises:
            InvalidOptionError: As :meth:`confidences`.
        """
        temperatures = np.array(check_calibration(calibration, len(self.names)), np.float32)
        return self.gaps / temperatures - self._log_partitions(calibration)

    def features(self, calibration: Sequence[float] | None = None) -> dict[str, Floats]:
        """What trees may see, by name, ``[positions, assistants]`` each: all of :data:`FEATURES`.

        Args:
            calibration: The temperatures of p and q; the further features are those at temperature 1.

        Raises:
            InvalidOptionError: As :meth:`confidences`.
        """
        seen, shares = self.confidences(calibration), self.probabilities
        p_of_x, q_of_y = shares[:, :1, 0], shares.diagonal(axis1=1, axis2=2)[:, 1:]
        p_of_y, q_of_x = shares[:, 0, 1:], shares[:, 1:, 0]
        found = {
            "p": seen[:, :1],
            "q": seen[:, 1:],
            "p_of_y": p_of_y,
            "q_of_x": q_of_x,
            "lead": (q_of_y - q_of_x) - (p_of_x - p_of_y),
            "p_margin": self.margins[:, :1],
            "q_margin": self.margins[:, 1:],
            "p_entropy": self.entropies[:, :1],
            "q_entropy": self.entropies[:, 1:],
        }
        return {name: np.broadcast_to(values, q_of_x.shape) for name, values in found.items()}

    def decisions(
        self,
        calibration: Sequence[float] | None = None,
        *,
        agreeing: bool = True,
        features: Sequence[str] = CONFIDENCES,
    ) -> Decisions:
        """What a verifier should have decided, every assistant's positions one after another.

        Args:
            calibration: The temperatures of the confidences.
            agreeing: Whether to keep positions where both write the same, as the paper does, though nothing
                is decided there.
            features: The columns that are wanted, of :data:`FEATURES`.

        Raises:
            InvalidOptionError: As :meth:`confidences`.
        """
        seen, right, agreement = self.features(calibration), self.right, self.agreement
        labelled = right[:, :1] | right[:, 1:]
        kept = labelled if agreeing else labelled & ~agreement

        def of(values: NDArray[Any]) -> Any:
            return np.broadcast_to(values, kept.shape).T[kept.T]

        return Decisions(
            points=np.stack([of(seen[name]) for name in features], 1),
            replace=of(~right[:, :1]),
            agrees=of(agreement),
            example=of(self.example[:, None]),
            dropped=int(np.count_nonzero(~labelled)),
        )

    def of_models(self, *models: int) -> Self:
        """The same texts with other roles: ``of_models(1, 0)`` lets the first assistant draft."""
        at = list(models)
        return replace(
            self,
            names=tuple(self.names[each] for each in at),
            probabilities=self.probabilities[:, at][:, :, at],
            **{name: getattr(self, name)[:, at] for name in _PER_MODEL},
        )

    def pairs(self) -> list[Self]:
        """The draft with every assistant by itself."""
        return [self.of_models(0, at) for at in range(1, len(self.names))]

    def of_examples(self, examples: Sequence[int] | Ints) -> Self:
        """The positions of some examples, which keep their numbers."""
        kept = np.isin(self.example, np.asarray(examples))
        return replace(self, **{name: getattr(self, name)[kept] for name in _ARRAYS})

    def save(self, path: str | PathLike[str]) -> None:
        """Write everything as numpy's ``.npz``.

        Raises:
            TrainingDataError: The file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        try:
            with Path(path).open("wb") as file:
                np.savez(file, names=np.array(self.names), **arrays)
        except OSError as error:
            raise TrainingDataError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            TrainingDataError: The file is missing, damaged or none of these.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(tuple(arrays["names"].tolist()), **{name: arrays[name] for name in _ARRAYS})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, AttributeError, TypeError) as error:
            raise TrainingDataError(f"{quoted(str(path))} holds no observations: {quoted(error)}") from error

    def _log_partitions(self, calibration: Sequence[float] | None) -> Floats:
        temperatures = check_calibration(calibration, len(self.names))
        return np.stack([self._log_partition(at, heat) for at, heat in enumerate(temperatures)], 1)

    def _log_partition(self, model: int, temperature: float) -> Floats:
        """``log Z`` of one model, ``[positions]``: a cubic in log T through the grid's values and slopes."""
        if not TEMPERATURES[0] <= temperature <= TEMPERATURES[-1]:
            raise InvalidOptionError(
                f"calibration={temperature:g} is outside of what was observed: "
                f"{TEMPERATURES[0]:g} to {TEMPERATURES[-1]:g}"
            )
        logs = np.log(TEMPERATURES)
        low = min(int(np.searchsorted(logs, np.log(temperature), side="right")) - 1, len(logs) - 2)
        step = float(logs[low + 1] - logs[low])
        t = (float(np.log(temperature)) - float(logs[low])) / step
        ends = [self.partitions[:, model, at] for at in (low, low + 1)]
        # d log Z / d log T = -(1/T) * d log Z / d (1/T)
        tangents = [-self.slopes[:, model, at] * (step / TEMPERATURES[at]) for at in (low, low + 1)]
        rising, falling = t**2 * (3 - 2 * t), (1 + 2 * t) * (1 - t) ** 2
        bend = t * (1 - t) * ((1 - t) * tangents[0] - t * tangents[1])
        return np.asarray(falling * ends[0] + rising * ends[1] + bend, np.float32)


_PER_MODEL = ("picks", "runners_up", "gaps", "partitions", "slopes")

MEASURED = ("probabilities", *_PER_MODEL)
"""The arrays that models fill; the others are known of the data."""

_ARRAYS = tuple(field.name for field in fields(Observations) if field.name != "names")
