"""Contexts of one model: made when a session needs one, and kept for the next session if small."""

from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from cosd_core.models.gguf.context import MAX_ROWS, Context
from cosd_core.models.gguf.weights import LoraAdapter, Weights

_SMALLEST = 512
"""The positions of the smallest context."""

_IDLE_CONTEXTS, _IDLE_POSITIONS = 2, 4096
"""At most so many contexts of at most so many positions are kept while no session uses them."""


@dataclass(frozen=True, slots=True)
class ContextPool:
    """Makes the contexts of a model, as large as the texts need.

    Making one takes as long as several passes of a small model.

    Attributes:
        weights: The model.
        adapter: The adapter over it, or None.
        threads: How many threads a pass uses.
        least: The smallest admitted number of positions of a context.
        most: The largest, or None.
    """

    weights: Weights
    adapter: LoraAdapter | None
    threads: int
    least: int = _SMALLEST
    most: int | None = None
    _idle: SimpleQueue[Context] = field(default_factory=SimpleQueue)  # its put may run inside of another

    def take(self, *, positions: int, rows: int) -> Context:
        """A context with no cached positions that holds at least so many.

        Raises:
            OutOfMemoryError: There is no memory for it.
        """
        try:
            context = self._idle.get_nowait()
        except Empty:
            return self._make(positions, rows)
        if context.positions >= positions and context.rows >= rows:
            return context
        context.close()
        return self._make(positions, rows)

    def enlarge(self, context: Context, *, positions: int, rows: int) -> Context:
        """A context with the cached positions of another one, which is closed.

        Raises:
            OutOfMemoryError: There is no memory for both.
        """
        larger = context.larger(positions=self._rounded(positions), rows=_rounded_rows(rows))
        context.close()
        return larger

    def give_back(self, contexts: list[Context]) -> None:
        """Keep contexts that no session uses any more, or free them."""
        for context in contexts:
            if self._idle.qsize() < _IDLE_CONTEXTS and context.positions <= _IDLE_POSITIONS:
                context.clear()
                self._idle.put(context)
            else:
                context.close()

    def close(self) -> None:
        """Free the contexts that no session uses."""
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    def _make(self, positions: int, rows: int) -> Context:
        return Context(
            self.weights,
            self.adapter,
            positions=self._rounded(positions),
            rows=_rounded_rows(rows),
            threads=self.threads,
        )

    def _rounded(self, positions: int) -> int:
        """The next power of two, so that a text that grows is moved rarely."""
        size = max(self.least, 1 << (positions - 1).bit_length())
        return size if self.most is None else max(min(size, self.most), positions)


def _rounded_rows(rows: int) -> int:
    return min(1 << (rows - 1).bit_length(), MAX_ROWS)
