"""One call of a decoder: the rows it waits for, and the events it receives."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from math import inf
from queue import Empty, SimpleQueue

from cosd_core.errors import AnswerTimeoutError
from cosd_core.generation.row import Row
from cosd_core.outputs import Step

Groups = Iterator[Sequence[Row]]
"""The rows of a call, in groups that are decoded one after another. A group is made when its turn comes."""

Event = Step | BaseException | None
"""A record of a round, the error that ends the call, or None at its end."""


class Call(ABC):
    """One call, as the driver sees it.

    Attributes:
        groups: Those that have not begun.
        is_over: Whether the call has failed, or nobody reads its events any more.
    """

    def __init__(self, timeout: float | None) -> None:
        """Begin without rows; the call fails ``timeout`` seconds from now, or never."""
        self.groups: Groups = iter(())
        self.is_over = False
        self._timeout = timeout
        self._deadline = inf if timeout is None else time.monotonic() + timeout

    @abstractmethod
    def send(self, event: Event) -> None:
        """Hand over an event, from whatever thread runs the rounds."""

    def fail(self, error: BaseException) -> None:
        """End the call by an error."""
        self.is_over = True
        self.send(error)

    def _check_deadline(self) -> None:
        if time.monotonic() > self._deadline:
            raise self._timed_out()

    def _timed_out(self) -> AnswerTimeoutError:
        return AnswerTimeoutError(f"no answer within timeout={self._timeout:g} seconds")


class SyncCall(Call):
    """A call whose rounds run in the caller's thread."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(timeout)
        self._events: deque[Event] = deque()

    def send(self, event: Event) -> None:
        """Append the event."""
        self._events.append(event)

    def received(self) -> Iterator[Step]:
        """The steps received so far; raises the error that ended the call, or AnswerTimeoutError."""
        event: Event
        if not self._events:  # a round has read a chunk of a long prompt
            self._check_deadline()
        try:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, BaseException):
                    raise event
                if event is not None:
                    self._check_deadline()
                    yield event
        finally:
            event = None  # an exception and this frame would keep each other, and a batch's caches, alive


class ThreadCall(Call):
    """A call of a thread, whose rounds run in another thread."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(timeout)
        self._events: SimpleQueue[Event] = SimpleQueue()

    def send(self, event: Event) -> None:
        """Append the event."""
        self._events.put(event)

    def steps(self) -> Generator[Step, None, None]:
        """The steps, to the end of the call; errors as in :meth:`SyncCall.received`."""
        event: Event
        try:
            while (event := self._next_event()) is not None:
                if isinstance(event, BaseException):
                    raise event
                self._check_deadline()
                yield event
        finally:
            self.is_over = True
            event = None  # an exception and this frame would keep each other, and a batch's caches, alive

    def _next_event(self) -> Event:
        if self._deadline == inf:
            return self._events.get()
        try:
            return self._events.get(timeout=max(self._deadline - time.monotonic(), 0))
        except Empty:
            raise self._timed_out() from None


class AsyncCall(Call):
    """A call of an asyncio task, whose rounds run in another thread."""

    def __init__(self, timeout: float | None) -> None:
        super().__init__(timeout)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def send(self, event: Event) -> None:
        """Append the event in the task's event loop."""
        try:
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
        except RuntimeError:  # the loop is closed
            self.is_over = True

    async def steps(self) -> AsyncGenerator[Step, None]:
        """The steps, to the end of the call; errors as in :meth:`SyncCall.received`."""
        event: Event
        try:
            while (event := await self._next_event()) is not None:
                if isinstance(event, BaseException):
                    raise event
                # An event that is ready is returned without a timeout, so check the deadline here.
                self._check_deadline()
                yield event
        finally:
            self.is_over = True
            self.groups = iter(())  # the event loop may hold this call longer, and groups the models
            event = None  # an exception and this frame would keep each other, and a batch's caches, alive

    async def _next_event(self) -> Event:
        if self._deadline == inf:
            return await self._events.get()
        try:
            async with asyncio.timeout(max(self._deadline - time.monotonic(), 0)):
                return await self._events.get()
        except TimeoutError:
            raise self._timed_out() from None
