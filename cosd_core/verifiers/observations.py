"""Compact statistics of teacher forcing: a few numbers per model and target token.

A model's confidence at a temperature T is ``exp(-log Z(T))``, where ``Z(T)`` is the sum of
``exp((logit - highest logit) / T)`` over the vocabulary. ``log Z`` and its slope are stored at a grid of
temperatures; between them a cubic interpolates both, exact to about a thousandth. The same numbers give the
likelihood of the true token at any temperature.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cosd_core.errors import InvalidOptionError, TrainingDataError, quoted
from cosd_core.options import check_calibration

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]

TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (step / 2) for step in range(-4, 7))
"""The grid, half an octave apart, from 1/4 to 8."""


NOT_ASKED = -1
"""Stands for the token of an assistant that predicts nothing at a position."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Positions with a known right decision, the training data of a tree (paper, section 3.3).

    Attributes:
        points: The columns p and q, ``[decisions, 2]``.
        replace: The label: False where x is the true token, True where it is not and y is, ``[decisions]``.
        agrees: Whether x and y are the same token, so that there is nothing to decide, ``[decisions]``.
        example: The number of the position's example, ``[decisions]``.
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
    """The greedy predictions of a draft model and its assistants at every position of true texts.

    Models with different tokens have a position for every assistant wherever a token of its begins; there
    the other assistants are :data:`NOT_ASKED`, and numbers stand for texts: 0 for the true one, 1 for a wrong
    one of the draft, 2 for another of the assistant. ``partitions`` and ``slopes`` are sums over the tokens
    of each text, so that its confidence is their product, and ``gaps`` are NaN.

    Attributes:
        names: The models, the draft first.
        example: The number of the position's example, counted from 0, ascending, ``[positions]``.
        truth: The true token, ``[positions]``.
        predicted: The most probable token of every model: x, then the assistants' y, ``[positions, models]``.
        gaps: The logit of the true token minus the highest logit, ``[positions, models]``, at most 0.
        partitions: ``log Z`` at every temperature of the grid, ``[positions, models, temperatures]``.
        slopes: The derivative of ``log Z`` by 1/T there, which is the mean of the logits minus the highest
            logit, of the same shape.
        cut: Whether the example was cut to fit a context window, ``[positions]``.
        alone: Of models with different tokens, what each predicts in its own tokens; else empty. Temperatures
            are fitted on these.
    """

    names: tuple[str, ...]
    example: Ints
    truth: Ints
    predicted: Ints
    gaps: Floats
    partitions: Floats
    slopes: Floats
    cut: Flags
    alone: tuple[Self, ...] = ()

    def __len__(self) -> int:
        """The number of positions."""
        return len(self.truth)

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(np.unique(self.example))

    @property
    def truncated(self) -> int:
        """How many of the examples were cut to fit a context window."""
        return len(np.unique(self.example[self.cut]))

    @property
    def right(self) -> Flags:
        """Whether every model's token is the true one, ``[positions, models]``."""
        return np.equal(self.predicted, self.truth[:, None])

    @property
    def agreement(self) -> Flags:
        """Whether every assistant's token is the draft's, ``[positions, assistants]``."""
        return np.equal(self.predicted[:, 1:], self.predicted[:, :1])

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

    def decisions(self, calibration: Sequence[float] | None = None, *, agreeing: bool = True) -> Decisions:
        """The right decisions of a verifier, every assistant's positions one after another.

        Args:
            calibration: The temperatures of the confidences.
            agreeing: Whether to include positions where both models predict the same token, as the paper
                does, though there is nothing to decide.

        Raises:
            InvalidOptionError: As :meth:`confidences`.
        """
        confidences, right, agreement = self.confidences(calibration), self.right, self.agreement
        asked = np.not_equal(self.predicted[:, 1:], NOT_ASKED)
        labelled = (right[:, :1] | right[:, 1:]) & asked
        kept = labelled if agreeing else labelled & ~agreement

        def select(values: NDArray[Any]) -> Any:
            return np.broadcast_to(values, kept.shape).T[kept.T]

        return Decisions(
            points=np.stack([select(confidences[:, :1]), select(confidences[:, 1:])], 1),
            replace=select(~right[:, :1]),
            agrees=select(agreement),
            example=select(self.example[:, None]),
            dropped=int(np.count_nonzero(asked & ~labelled)),
        )

    def of_models(self, *models: int) -> Self:
        """The same texts with other roles: in ``of_models(1, 0)`` the first assistant is the draft.

        Of a single model with tokens of its own it is what that model predicts in these.

        Raises:
            InvalidOptionError: Models with different tokens cannot swap roles: they write other texts then.
        """
        order = list(models)
        if self.alone and len(order) == 1:
            return self.alone[order[0]]
        if self.alone and order[0] != 0:
            raise InvalidOptionError(
                f"of_models({', '.join(map(str, order))}): models with different tokenizers are observed in "
                "one role; observe them again in this order"
            )
        found = replace(
            self,
            names=tuple(self.names[index] for index in order),
            alone=tuple(self.alone[index] for index in order) if self.alone else (),
            **{name: getattr(self, name)[:, order] for name in MEASURED},
        )
        asked = np.not_equal(found.predicted, NOT_ASKED)
        return found if len(order) == 1 or asked.all() else found._where(np.any(asked[:, 1:], axis=1))

    def pairs(self) -> list[Self]:
        """The draft with every assistant by itself."""
        return [self.of_models(0, index) for index in range(1, len(self.names))]

    def of_examples(self, examples: Sequence[int] | Ints) -> Self:
        """The positions of some examples, which keep their numbers."""
        found = self._where(np.isin(self.example, np.asarray(examples)))
        return replace(found, alone=tuple(each.of_examples(examples) for each in self.alone))

    def where(self, kept: Flags) -> Self:
        """The positions that a mask selects, ``[positions]``, without :attr:`alone`."""
        return replace(self._where(kept), alone=())

    @classmethod
    def joined(cls, parts: "Sequence[Observations]") -> Self:
        """The observations of the same models on different examples, without :attr:`alone`."""
        order = np.argsort(np.concatenate([part.example for part in parts]), kind="stable")
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts])[order] for name in _ARRAYS
        }
        return cls(parts[0].names, **arrays)

    def save(self, path: str | PathLike[str]) -> None:
        """Write all arrays as numpy's ``.npz``.

        Raises:
            TrainingDataError: The file cannot be written.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        for at, each in enumerate(self.alone):
            arrays |= {f"{name}_{at}": getattr(each, name) for name in _ARRAYS}
        try:
            with Path(path).open("wb") as file:
                np.savez(file, names=np.array(self.names), **arrays)
        except OSError as error:
            raise TrainingDataError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read what :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            TrainingDataError: The file is missing, damaged or holds no observations.
        """
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                names = tuple(arrays["names"].tolist())
                found = cls(names, **{name: arrays[name] for name in _ARRAYS})
                alone = tuple(
                    cls((model,), **{name: arrays[f"{name}_{at}"] for name in _ARRAYS})
                    for at, model in enumerate(names)
                    if f"truth_{at}" in arrays
                )
            for each in chain([found], alone):
                each._check()
        except Exception as error:  # numpy, zipfile and zlib raise errors of nearly every type
            raise TrainingDataError(f"{quoted(str(path))} holds no observations: {quoted(error)}") from error
        return replace(found, alone=alone)

    def _where(self, kept: Flags) -> Self:
        return replace(self, **{name: getattr(self, name)[kept] for name in _ARRAYS})

    def _check(self) -> None:
        """Check that the arrays describe the same positions, models and temperatures."""
        positions, models = len(self.truth), len(self.names)
        for name in _ARRAYS:
            expected = (positions, models, len(TEMPERATURES))[: _DIMENSIONS.get(name, 1)]
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} has the shape {getattr(self, name).shape}, not {expected}")

    def _log_partitions(self, calibration: Sequence[float] | None) -> Floats:
        temperatures = check_calibration(calibration, len(self.names))
        return np.stack([self._log_partition(*each) for each in enumerate(temperatures)], 1)

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
        ends = [self.partitions[:, model, index] for index in (low, low + 1)]
        # d log Z / d log T = -(1/T) * d log Z / d (1/T)
        tangents = [-self.slopes[:, model, index] * (step / TEMPERATURES[index]) for index in (low, low + 1)]
        rising, falling = t**2 * (3 - 2 * t), (1 + 2 * t) * (1 - t) ** 2
        bend = t * (1 - t) * ((1 - t) * tangents[0] - t * tangents[1])
        return np.asarray(falling * ends[0] + rising * ends[1] + bend, np.float32)


_DIMENSIONS = {"predicted": 2, "gaps": 2, "partitions": 3, "slopes": 3}
"""How many dimensions of ``[positions, models, temperatures]`` an array has; 1 where it is not named."""

MEASURED = tuple(_DIMENSIONS)
"""The arrays that models fill, ``[positions, models, ...]``; the others follow from the data."""

_ARRAYS = tuple(field.name for field in fields(Observations) if field.name not in ("names", "alone"))
