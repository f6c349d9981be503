"""Guesses of what the draft will write, copied from the prompt and the text (prompt lookup decoding).

A guess changes the cost of a text, never the text: the draft predicts at every guessed position in one pass,
and its predictions stand up to the first that is another token.
"""

from collections.abc import Sequence

_LONGEST_MATCH, _SHORTEST_MATCH = 5, 2
"""How many of the last ids must stand elsewhere for what follows there to be a guess."""

_WIDTHS = (0, 2, 4, 8)
"""How many ids a guess may have."""

_MEMORY = 0.9
"""The weight of what was measured before, at every new measurement of a width."""

_FIRST_PAUSE, _LONGEST_PAUSE = 8, 256
"""After so many passes a width that did not pay is tried again; the pause doubles each time."""


class Copied:
    """The ids of one prompt and its text, and where each short sequence of them stood last."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}  # by some ids, the index of the id behind them

    def guess(self, ids: Sequence[int], committed: int, width: int) -> list[int]:
        """At most ``width`` ids that may follow.

        Args:
            ids: Prompt, text and block.
            committed: How many of them are prompt and text, which only grow.
            width: The most ids.
        """
        for at in range(len(self._ids), committed):
            self._ids.append(ids[at])
            for length in range(_SHORTEST_MATCH, min(_LONGEST_MATCH, at) + 1):
                self._next[tuple(ids[at - length : at])] = at
        for length in range(_LONGEST_MATCH, _SHORTEST_MATCH - 1, -1):
            found = self._next.get(tuple(ids[-length:]))
            if found is not None:
                return self._ids[found : found + width]
        return []


class GuessWidth:
    """How wide guesses should be: the width at which the draft writes most tokens per second.

    Attributes:
        value: The width for the next pass.
    """

    def __init__(self, *, measured: bool) -> None:
        """Begin with the widest; without measurements it stays."""
        self.value = _WIDTHS[-1]
        self._measured = measured
        self._rates: dict[int, tuple[float, float]] = {}  # by width: tokens and seconds
        self._pauses = dict.fromkeys(_WIDTHS, _FIRST_PAUSE)
        self._waits = dict.fromkeys(_WIDTHS, 0)

    def add(self, tokens: float, seconds: float) -> None:
        """A pass with this width wrote so many tokens per row in so much time; choose the next width."""
        if not self._measured:
            return
        before = self._rates.get(self.value, (0.0, 0.0))
        self._rates[self.value] = (_MEMORY * before[0] + tokens, _MEMORY * before[1] + seconds)
        best = max(self._rates, key=lambda width: self._rates[width][0] / self._rates[width][1])
        if self.value != best:
            self._pauses[self.value] = min(2 * self._pauses[self.value], _LONGEST_PAUSE)
        self._waits[self.value] = self._pauses[self.value]
        self.value = best
        for width in _WIDTHS:
            self._waits[width] -= 1
            if width != best and self._waits[width] <= 0:
                self.value = width
