"""Errors of users' own code as errors of cosd."""

import torch

from cosd_core.errors import CoSDError, quoted


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
