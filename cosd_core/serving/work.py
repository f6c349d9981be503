"""The work for one request: a task whose results a response reads as they come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")

Emit = Callable[[T], None]


class Work(Generic[T]):
    """Runs in a task of its own, so that it can be stopped by others than its reader.

    Its results are read once, by ``async for``; the error that ended it is raised there.
    """

    def __init__(self, run: Callable[[Emit[T]], Awaitable[None]]) -> None:
        """Begin.

        Args:
            run: The work; it hands every result to its argument.
        """
        self._results: asyncio.Queue[T | BaseException | None] = asyncio.Queue()
        self._reason: BaseException | None = None
        self._task = asyncio.ensure_future(self._run(run))

    def stop(self, reason: BaseException) -> None:
        """Cancel the work if it is not done; its reader receives this error after the results so far."""
        if self._reason is None and not self._task.done():
            self._reason = reason
            self._task.cancel()

    async def close(self) -> None:
        """Cancel the work if it is not done, and wait until it has ended."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def __aiter__(self) -> AsyncIterator[T]:
        while (result := await self._results.get()) is not None:
            if isinstance(result, BaseException):
                raise result
            yield result

    async def _run(self, run: Callable[[Emit[T]], Awaitable[None]]) -> None:
        end: BaseException | None = None
        try:
            await run(self._results.put_nowait)
        except asyncio.CancelledError as error:
            end = self._reason or error
        except BaseExceptionGroup as errors:  # of a task group; the first one has ended the others
            end = self._reason or _first(errors)
        except Exception as error:
            end = error
        finally:
            self._results.put_nowait(end)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
