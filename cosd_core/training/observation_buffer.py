"""Observations while teacher forcing fills them in."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosd_core.training.tokenization import TokenizedExample
from cosd_core.verifiers.observations import MEASURED, TEMPERATURES, Observations


class ObservationBuffer:
    """The observations of some texts, to be filled in any order.

    All arrays are allocated at once: small arrays between large temporary ones fragment the heap.
    """

    def __init__(self, names: Sequence[str], texts: Sequence[TokenizedExample]) -> None:
        """Allocate the arrays and fill in what follows from the texts alone, at least one, in their order."""
        lengths = [len(text.truth) for text in texts]
        count, models = sum(lengths), len(names)
        self._starts = np.cumsum(lengths) - lengths
        self.observations = Observations(
            names=tuple(names),
            example=np.repeat(np.arange(len(texts), dtype=np.int32), lengths),
            truth=np.concatenate([np.array(text.truth, np.int32) for text in texts]),
            predicted=np.zeros((count, models), np.int32),
            gaps=np.zeros((count, models), np.float32),
            partitions=np.zeros((count, models, len(TEMPERATURES)), np.float32),
            slopes=np.zeros((count, models, len(TEMPERATURES)), np.float32),
            cut=np.repeat([text.cut for text in texts], lengths),
        )

    def write(self, examples: NDArray[Any], targets: NDArray[Any], **measured: NDArray[Any]) -> None:
        """Fill in arrays :data:`MEASURED`, ``[positions, ...]``.

        Positions are given by the numbers of their texts and the indices of the true tokens in these.
        """
        positions = self._starts[examples] + targets
        for name, values in measured.items():
            getattr(self.observations, name)[positions] = values

    def write_part(self, part: Observations) -> None:
        """Fill in stored observations of whole texts."""
        targets = np.arange(len(part)) - np.searchsorted(part.example, part.example)
        self.write(part.example, targets, **{name: getattr(part, name) for name in MEASURED})

    def part(self, texts: Iterable[TokenizedExample]) -> Observations:
        """The observations of some texts."""
        return self.observations.of_examples([text.number for text in texts])
