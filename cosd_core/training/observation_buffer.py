"""Observations while they are being made."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosd_core.training.tokenization import TokenizedExample
from cosd_core.verifiers.observations import MEASURED, TEMPERATURES, Observations


class ObservationBuffer:
    """Room for what models think at every position of some texts, to be filled in any order.

    All room is taken at once: small arrays made one by one between large ones that go again would lie where
    these were, and the allocator could never use that space for large ones again.
    """

    def __init__(self, names: Sequence[str], texts: Sequence[TokenizedExample]) -> None:
        """Begin with what is known before any model has read.

        Args:
            names: The models, the draft first.
            texts: What they will read, at least one, in the order of their numbers.
        """
        lengths = [len(text.truth) for text in texts]
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        count, models = sum(lengths), len(names)
        curves = (count, models, len(TEMPERATURES))
        self._all = Observations(
            names=tuple(names),
            example=np.repeat(np.arange(len(texts), dtype=np.int32), lengths),
            truth=np.concatenate([np.array(text.truth, np.int32) for text in texts]),
            picks=np.zeros((count, models), np.int32),
            probabilities=np.zeros((count, models, models), np.float32),
            runners_up=np.zeros((count, models), np.float32),
            gaps=np.zeros((count, models), np.float32),
            partitions=np.zeros(curves, np.float32),
            slopes=np.zeros(curves, np.float32),
            cut=np.repeat([text.cut for text in texts], lengths),
        )

    def write(self, examples: NDArray[Any], places: NDArray[Any], **measured: NDArray[Any]) -> None:
        """Note what was measured.

        Args:
            examples: Which text each position is of, ``[positions]``.
            places: Which token of its truth, ``[positions]``.
            **measured: Arrays of :class:`Observations`, ``[positions, ...]``.
        """
        at = self._starts[examples] + places
        for name, values in measured.items():
            getattr(self._all, name)[at] = values

    def take(self, part: Observations) -> None:
        """Note what was observed of whole texts before."""
        places = np.arange(len(part)) - np.searchsorted(part.example, part.example)
        self.write(part.example, places, **{name: getattr(part, name) for name in MEASURED})

    def of(self, texts: Iterable[TokenizedExample]) -> Observations:
        """What is noted of some texts."""
        return self._all.of_examples([text.number for text in texts])

    def finished(self) -> Observations:
        """Everything."""
        return self._all
