"""Counts the calls of a decoder, so that its models are not unloaded under them."""

import os
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from typing import TypeVar

from cosd_core.errors import ModelInUseError, ModelUnloadedError
from cosd_core.utils import Lock

T = TypeVar("T")


class CallCounter:
    """Counts calls from their first step until they end or are closed, and admits none once it is closed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._is_closed = False
        self._under_way = 0
        self._process = os.getpid()

    def counted(self, steps: Generator[T, None, None]) -> Generator[T, None, None]:
        """The same steps, counted as a call.

        Raises:
            ModelUnloadedError: The counter is closed.
        """
        with self._counted(), closing(steps):
            yield from steps

    async def acounted(self, steps: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """:meth:`counted` for asyncio."""
        with self._counted():
            async with aclosing(steps):
                async for step in steps:
                    yield step

    def close(self) -> None:
        """Admit no further call.

        Raises:
            ModelInUseError: Calls are under way; nothing changes.
        """
        with self._lock:
            if count := self._calls_here():
                use = "call uses" if count == 1 else "calls use"
                raise ModelInUseError(
                    f"{count} {use} these models: unload them when all calls have ended, and all streams are "
                    "read or closed"
                )
            self._is_closed = True

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            if self._is_closed:
                raise unloaded()
            process, self._under_way = os.getpid(), self._calls_here() + 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= process == self._process

    def _calls_here(self) -> int:
        """The calls under way in this process: a forked one has none of its parent's."""
        if self._process != os.getpid():
            self._process, self._under_way = os.getpid(), 0
        return self._under_way


def unloaded() -> ModelUnloadedError:
    """The error of a call after the models of its decoder were unloaded."""
    return ModelUnloadedError("the models of this decoder were unloaded: make another decoder")
