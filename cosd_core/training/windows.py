"""Divides right-aligned rows into windows, which are read one after another from left to right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """One pass over the rows of a batch. Rows are aligned at their right ends, as sessions keep them.

    Later passes read the ``unread`` tokens at the end of every row. The ``last`` positions of the pass need
    logits. ``positions`` are the targets that these predict: (row, column of the logits, index of target).
    """

    unread: int
    last: int
    positions: tuple[tuple[int, int, int], ...]

    def prefixes(self, rows: Sequence[list[int]]) -> list[list[int]]:
        """The rows without their unread tokens."""
        return [ids[: max(len(ids) - self.unread, 1)] for ids in rows]


def windows(targets: Sequence[int], length: int, width: int) -> Iterator[Window]:
    """Divide the last ``length`` positions of some rows; the first pass also reads what is before them.

    Args:
        targets: The number of targets of every row. The logits at its last positions predict them.
        length: How many positions to divide, at least the largest number of targets.
        width: The most positions of a pass.
    """
    most = max(targets)
    for unread in range((length - 1) // width * width, -1, -width):
        last = min(max(most - unread, 1), width)
        first = max(most - unread - last, 0)
        positions = tuple(
            (row, place - first, place - (most - count))
            for row, count in enumerate(targets)
            for place in range(max(first, most - count), most - unread)
        )
        yield Window(unread, last, positions)
