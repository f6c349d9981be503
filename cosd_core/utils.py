"""A lock that a forked child finds open; the common prefix of two sequences; a check for matplotlib."""

import os
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock as ThreadLock
from types import TracebackType
from weakref import WeakSet

from cosd_core.errors import MissingExtraError


class Lock:
    """A :class:`threading.Lock` for ``with``, renewed in every process that is forked off."""

    def __init__(self) -> None:
        self._lock = ThreadLock()
        _every.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RuntimeError):  # whoever forks while it holds the lock leaves it in the child, too
            self._lock.release()

    def renew(self) -> None:
        """Forget who holds it."""
        self._lock = ThreadLock()


_every: WeakSet[Lock] = WeakSet()


def _renew() -> None:
    for lock in _every:
        lock.renew()


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_renew)


def agreed_prefix(ids: Sequence[int], others: Sequence[int]) -> int:
    """The length of the longest common prefix, by bisection over slices that C compares; types alike."""
    low, high = 0, min(len(ids), len(others))
    if ids[:high] == others[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if ids[low:middle] == others[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def require_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('plots need matplotlib: pip install "cosd[plots]"') from error
