"""The time limit of one call."""

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from cosd_core.errors import AnswerTimeoutError

T = TypeVar("T")


class Deadline:
    """The end of a call that may take ``timeout`` seconds from now; None is no limit."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._end = None if timeout is None else time.monotonic() + timeout

    def check(self) -> None:
        """Raise if the time is over.

        Raises:
            AnswerTimeoutError: It is.
        """
        if self._end is not None and time.monotonic() > self._end:
            raise self._error()

    async def wait(self, chunk: Awaitable[T | None]) -> T | None:
        """Await the next chunk, or None after the last one.

        Raises:
            AnswerTimeoutError: The time is over before there is a chunk.
        """
        try:
            async with asyncio.timeout(None if self._end is None else self._end - time.monotonic()):
                found = await chunk
        except TimeoutError:
            raise self._error() from None
        if found is not None:  # a chunk that is ready bypasses asyncio's timeout; the end may come late
            self.check()
        return found

    def _error(self) -> AnswerTimeoutError:
        return AnswerTimeoutError(f"no answer within timeout={self._timeout} seconds")
