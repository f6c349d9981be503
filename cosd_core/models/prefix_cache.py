"""Keeps a model's states of earlier texts for later texts that begin alike: the next turn of a chat."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from operator import attrgetter
from typing import Any, Protocol
from weakref import WeakSet

from cosd_core.utils import Lock, agreed_prefix

LEAST_IDS = 16
"""Shorter prefixes are not worth looking for."""

_MOST_ENTRIES = 1024
_BYTES_PER_ID = 40
"""An id is a Python integer in a list."""

_disabled: list[None] = []  # an entry per use of without_prefix_caches


class States(Protocol):
    """What a backend keeps of some ids: keys and values, or recurrent states."""

    @property
    def nbytes(self) -> int:
        """The memory that they take."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a prefix.

    Attributes:
        ids: Some consecutive ids.
        states: Their states.
        used: How many of these ids, from the first on, belong to the prefix.
    """

    ids: list[int]
    states: Any
    used: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """The longest beginning of a text that is in the cache.

    Attributes:
        length: In ids; 0 if there is none.
        pieces: Its states, in the order of the text.
    """

    length: int = 0
    pieces: tuple[Piece, ...] = ()


@dataclass(eq=False, slots=True)
class _Entry:
    """Some ids of a text, behind the first ``start`` ids of another entry's text.

    Attributes:
        parent: The other entry; None at the beginning of a text.
        start: How many ids come before.
        ids: The ids.
        states: What was computed for them.
        last_use: The number of the last call that used it.
        children: How many entries continue this one.
    """

    parent: "_Entry | None"
    start: int
    ids: list[int]
    states: States
    last_use: int
    children: int = 0
    nbytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.nbytes = self.states.nbytes + _BYTES_PER_ID * len(self.ids)


class PrefixCache:
    """The states of texts that were decoded, found by longest common prefix. Threads may share it.

    Texts that begin alike share the states of their beginning. If they take too much memory, the ends of the
    least recently used texts go first.
    """

    def __init__(self, max_bytes: int, *, divisible: bool = True) -> None:
        """Begin empty.

        Args:
            max_bytes: The most memory for states; 0: nothing is kept.
            divisible: Whether the states of some ids in the middle of a text can be kept alone. Otherwise
                every text keeps all of its states.
        """
        self._max_bytes = max_bytes
        self._divisible = divisible
        self._entries: list[_Entry] = []  # parents before their children
        self._clock = count()
        self._lock = Lock()
        self.nbytes = 0
        _caches.add(self)

    def lacks(self, ids: list[int]) -> bool:
        """Whether the states of many of these ids are not there, and may be added."""
        if not self._max_bytes or _disabled:
            return False
        return len(ids) - self.find(ids).length >= LEAST_IDS

    def find(self, ids: list[int]) -> Prefix:
        """The longest prefix of these ids whose states are there."""
        with self._lock:
            return _prefix(*self._longest(ids))

    def add(self, ids: list[int], save: Callable[[int], States]) -> None:
        """Keep the states of a text.

        Args:
            ids: The text.
            save: Returns a copy of the states of its ids from this index on.
        """
        if len(ids) < LEAST_IDS or not self._max_bytes or _disabled:
            return
        with self._lock:
            parent, start = self._longest(ids)
            if start == len(ids):
                return
            if not self._divisible:
                self._drop([each for each in self._entries if each.ids == ids[: len(each.ids)]])
                parent, start = None, 0
            entry = _Entry(parent, start, ids[start:], save(start), next(self._clock))
            if parent is not None and entry.nbytes + _path_bytes(parent) > self._max_bytes:
                parent = None  # what the other text has of its own would leave no room
                entry = _Entry(None, 0, ids, save(0), next(self._clock))
            if entry.nbytes > self._max_bytes:
                return
            if parent is not None:
                parent.children += 1
            self._entries.append(entry)
            self.nbytes += entry.nbytes
            self._make_room()

    def clear(self) -> bool:
        """Forget everything, and return whether there was anything."""
        with self._lock:
            found = bool(self._entries)
            self._entries, self.nbytes = [], 0
        return found

    def _longest(self, ids: list[int]) -> tuple[_Entry | None, int]:
        """The entry that agrees with a text for longest, and for how long, in all; it is used now."""
        best, length = None, 0
        reached: dict[_Entry | None, int] = {None: 0}  # how many ids agree
        for entry in [] if _disabled else self._entries:
            start = entry.start
            head = entry.ids[:LEAST_IDS]  # most others differ there
            if reached.get(entry.parent, -1) < start or head != ids[start : start + len(head)]:
                continue
            reached[entry] = start + agreed_prefix(entry.ids, ids[start : start + len(entry.ids)])
            if reached[entry] > length:
                best, length = entry, reached[entry]
        now, used = next(self._clock), best
        while used is not None:
            used.last_use, used = now, used.parent
        return best, length

    def _make_room(self) -> None:
        while self._entries and (self.nbytes > self._max_bytes or len(self._entries) > _MOST_ENTRIES):
            oldest = min((each for each in self._entries if not each.children), key=attrgetter("last_use"))
            self._drop([oldest])

    def _drop(self, entries: list[_Entry]) -> None:
        for entry in entries:
            if entry.parent is not None:
                entry.parent.children -= 1
            self.nbytes -= entry.nbytes
        self._entries = [each for each in self._entries if each not in entries]


def _path_bytes(entry: _Entry | None) -> int:
    """The memory of an entry and of those before it."""
    return 0 if entry is None else entry.nbytes + _path_bytes(entry.parent)


def _prefix(entry: _Entry | None, length: int) -> Prefix:
    pieces: list[Piece] = []
    end = length
    while entry is not None:
        pieces.insert(0, Piece(entry.ids, entry.states, end - entry.start))
        end, entry = entry.start, entry.parent
    return Prefix(length, tuple(pieces))


def common_beginnings(texts: Iterable[list[int]]) -> list[list[int]]:
    """The longest common beginning of every group of texts that begin alike."""
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for ids in texts:
        groups.setdefault(tuple(ids[:LEAST_IDS]), []).append(ids)
    lengths = {key: min(agreed_prefix(group[0], ids) for ids in group) for key, group in groups.items()}
    return [group[0][: lengths[key]] for key, group in groups.items() if len(group) > 1]


_caches: WeakSet[PrefixCache] = WeakSet()


def free_prefix_caches() -> bool:
    """Forget everything in all caches, because memory is short; false if there was nothing."""
    return sum(each.clear() for each in list(_caches)) > 0


@contextmanager
def without_prefix_caches() -> Iterator[None]:
    """No cache of this process finds or keeps anything meanwhile: a benchmark runs its prompts repeatedly."""
    _disabled.append(None)
    try:
        yield
    finally:
        _disabled.pop()
