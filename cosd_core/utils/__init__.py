"""A lock for forked processes, a context manager that unloads, prefixes, lines, checks of packages."""

import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from pathlib import Path
from threading import Lock as ThreadLock
from typing import Self
from weakref import WeakSet

from packaging.version import Version

from cosd_core.errors import MissingExtraError, ModelInUseError


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


_locks: WeakSet[Lock] = WeakSet()


def _renew_locks() -> None:
    for lock in _locks:
        lock._lock = ThreadLock()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_renew_locks)


class Unloadable:
    """A context manager whose end is :meth:`unload`."""

    def unload(self) -> None:
        """Release the models."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.unload()
        except ModelInUseError:
            if kind is None:  # otherwise it would hide the error that ends the block
                raise


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


def text_lines(path: str | PathLike[str]) -> list[str]:
    r"""The lines of a UTF-8 file, without their ends and without a byte order mark.

    Only ``\n`` and ``\r\n`` end a line, as in JSON Lines: U+2028 and others may be part of a text.

    Raises:
        OSError: The file cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    return [line.removesuffix("\r") for line in Path(path).read_bytes().decode("utf-8-sig").split("\n")]


def require_version(package: str, oldest: str, *, extra: str, user: str) -> None:
    """Check that a package of an extra is installed, and new enough.

    Args:
        package: Its name on the index.
        oldest: The oldest release that is supported.
        extra: The extra that brings it.
        user: The word for the things that need it, such as ``"adapters"``, for the message.

    Raises:
        MissingExtraError: It is missing or too old.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "none"
    if found == "none" or Version(found) < Version(oldest):
        raise MissingExtraError(
            f'{user} need {package} {oldest} or newer, and there is {found}: pip install "cosd[{extra}]"'
        )


def require_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('plots need matplotlib: pip install "cosd[plots]"') from error
