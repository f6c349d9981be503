"""Finds stop strings in a text that comes character by character (Aho and Corasick, 1975)."""

from collections import deque
from collections.abc import Sequence
from functools import lru_cache


class StopAutomaton:
    """An automaton of some stop strings. A character costs the same however many strings there are.

    A state is the longest end of the text that is the beginning of a stop string; 0 is the empty one.

    Attributes:
        depth: Per state, how many characters it has.
        found: Per state, the length of the longest stop string that the text ends with, or 0.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        """Read the stop strings, none of them empty; the time is linear in their length."""
        self.depth = [0]
        self.found = [0]
        self._next: list[dict[str, int]] = [{}]
        self._fallback = [0]  # the state of the longest end of a state that is another state
        for each in stop:
            self.found[self._add(each)] = len(each)
        waiting = deque(self._next[0].values())
        while waiting:
            state = waiting.popleft()
            for character, following in self._next[state].items():
                fallback = self.step(self._fallback[state], character)
                self._fallback[following] = fallback
                self.found[following] = self.found[following] or self.found[fallback]
                waiting.append(following)

    def step(self, state: int, character: str) -> int:
        """The state after another character."""
        while (following := self._next[state].get(character)) is None:
            if not state:
                return 0
            state = self._fallback[state]
        return following

    def _add(self, string: str) -> int:
        """The state of a whole string."""
        state = 0
        for character in string:
            following = self._next[state].get(character)
            if following is None:
                following = self._next[state][character] = len(self._next)
                self._next.append({})
                self._fallback.append(0)
                self.found.append(0)
                self.depth.append(self.depth[state] + 1)
            state = following
        return state


@lru_cache(maxsize=4)
def stop_automaton(stop: tuple[str, ...]) -> StopAutomaton:
    """The automaton of some stop strings, made once for all rows of a call."""
    return StopAutomaton(stop)
