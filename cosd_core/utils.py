"""A lock for forked processes, errors of users' code, common prefixes, a check for matplotlib."""

import os
from collections.abc import Sequence
from contextlib import suppress
from threading import Lock as ThreadLock
from weakref import WeakSet

import torch

from cosd_core.errors import CoSDError, MissingExtraError, quoted


class Lock:
    """A :class:`threading.Lock` for ``with``, replaced in every forked process.

    The thread that holds a lock does not exist in the forked process, so the lock is never released there.
    """

    def __init__(self) -> None:
        self._lock = ThreadLock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        with suppress(RuntimeError):  # a thread that forked inside of ``with`` leaves it in both processes
            self._lock.release()

    def renew(self) -> None:
        """Replace the lock by an open one."""
        self._lock = ThreadLock()


_locks: WeakSet[Lock] = WeakSet()


def _renew_locks() -> None:
    for lock in _locks:
        lock.renew()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew_locks)


class guarded:  # noqa: N801 - used like a function; a generator would cost more than many calls inside
    """Raises what a user's own object raises as ``kind`` of error, which names the object's class.

    Errors of cosd, and a lack of memory, pass unchanged.
    """

    __slots__ = ("_kind", "_owner")

    def __init__(self, kind: type[CoSDError], owner: object) -> None:
        self._kind, self._owner = kind, owner

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, _UNCHANGED):
            return
        name = getattr(self._owner, "__qualname__", type(self._owner).__qualname__)
        raise self._kind(f"{name} failed: {type(error).__name__}: {quoted(error)}") from error


_UNCHANGED = (CoSDError, MemoryError, torch.OutOfMemoryError)


def agreed_prefix(ids: Sequence[int], others: Sequence[int]) -> int:
    """The length of the longest common prefix of two sequences of one type.

    It is found by bisection, because comparing slices is faster than a loop over elements.
    """
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
