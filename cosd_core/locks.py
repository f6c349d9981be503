"""A lock that a forked child finds open: whoever held it is not there."""

import os
from contextlib import suppress
from threading import Lock as ThreadLock
from types import TracebackType
from weakref import WeakSet


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
