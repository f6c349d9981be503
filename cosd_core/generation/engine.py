"""The threads that run the rounds of a decoder: the caller's, or one worker for calls that share batches."""

import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cosd_core.errors import GenerationError, OverloadedError, quoted
from cosd_core.generation.call import AsyncCall, Call, Groups, SyncCall, ThreadCall
from cosd_core.generation.driver import RoundDriver
from cosd_core.generation.interpreter_exit import finished_before_exit
from cosd_core.generation.loop import Batch
from cosd_core.generation.row import Row
from cosd_core.outputs import Step
from cosd_core.utils import Lock

T = TypeVar("T")

_READERS = 4
"""The threads that read prompts for the worker thread."""

_PATIENCE = 0.01
"""A round waits up to so many seconds for a prompt that is being read, so that calls that come together begin
together. It does not wait for long prompts and slow chat templates."""


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A call whose prompts are being read: rendered, encoded, checked, their grammar compiled."""

    call: Call
    groups: Future[Groups]
    started: float = field(default_factory=time.monotonic)


class Engine:
    """Runs calls by :class:`RoundDriver`.

    A plain call has a driver of its own, which runs in the caller's thread as its steps are read. All asyncio
    calls, and the calls of threads that ask for it, share one driver on the worker thread. They wait until
    few enough rows are under way, threads of their own read their prompts, and they begin between two rounds.
    """

    def __init__(
        self,
        open_batch: Callable[[Sequence[Row]], Batch],
        batch_size: int,
        *,
        max_concurrent: int,
        max_waiting: int,
    ) -> None:
        """Begin without calls.

        Args:
            open_batch: As :class:`RoundDriver`.
            batch_size: As :class:`RoundDriver`.
            max_concurrent: Another call begins while fewer rows are under way on the worker thread.
            max_waiting: The most calls that wait to begin there.
        """
        self._open_batch = open_batch
        self._batch_size = batch_size
        self._max_concurrent = max_concurrent
        self._max_waiting = max_waiting
        self._start_lock = Lock()
        self._start()

    def _start(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cosd")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="cosd-prompts")
        self._driver = self._new_driver()
        # Only the worker thread uses these.
        self._waiting: deque[tuple[Call, Callable[[], Groups] | None]] = deque()
        self._reading: list[_Reading] = []
        self._is_running = False  # whether a round is in the worker's queue
        self._process = os.getpid()

    def _new_driver(self) -> RoundDriver:
        return RoundDriver(self._open_batch, self._batch_size)

    def steps(self, call: SyncCall, groups: Groups) -> Generator[Step, None, None]:
        """Decode the rows of a call in this thread, as the steps are read; errors as in :class:`SyncCall`."""
        driver = self._new_driver()
        call.groups = groups
        driver.add(call)
        yield from call.received()
        while not driver.is_idle:
            with finished_before_exit():
                driver.run_round()
            yield from call.received()

    def shared_steps(self, call: ThreadCall, groups: Groups) -> Generator[Step, None, None]:
        """Decode on the worker thread, together with other calls; errors as in :meth:`asteps`.

        The prompts were read in this thread, so that the call waits for no reader.
        """
        call.groups = groups
        self._add_on_worker(call, None)
        yield from call.steps()

    async def asteps(
        self, make_groups: Callable[[], Groups], timeout: float | None
    ) -> AsyncGenerator[Step, None]:
        """Decode on the worker thread, together with other calls; ``make_groups`` runs in another one.

        Raises:
            AnswerTimeoutError: So many seconds have passed.
            OverloadedError: Too many calls wait.
            GenerationError: The interpreter is shutting down.
        """
        call = AsyncCall(timeout)
        self._add_on_worker(call, make_groups)
        async with aclosing(call.steps()) as steps:
            async for step in steps:
                yield step

    def _add_on_worker(self, call: Call, make_groups: Callable[[], Groups] | None) -> None:
        if self._process != os.getpid():  # a forked child has no worker, and the calls are its parent's
            with self._start_lock:
                if self._process != os.getpid():
                    self._start()
        _submit(self._worker, self._add, call, make_groups)

    def close(self) -> None:
        """End the worker thread, after what it does for calls that are over, and refer to no model."""
        self._readers.shutdown()
        self._worker.shutdown()
        vars(self).clear()  # errors that it has sent to these calls may still refer to the engine

    def _add(self, call: Call, make_groups: Callable[[], Groups] | None) -> None:
        self._waiting.append((call, make_groups))
        self._go_on()
        if len(self._waiting) > self._max_waiting:
            self._waiting = deque(each for each in self._waiting if not each[0].is_over)
        if len(self._waiting) > self._max_waiting:
            self._waiting.pop()
            call.fail(
                OverloadedError(
                    f"{self._max_waiting} calls wait for this decoder already (max_waiting); "
                    f"{self._max_concurrent} prompts are decoded at once (max_concurrent)"
                )
            )

    def _go_on(self) -> None:
        """Begin calls, and have rounds run if there are any."""
        self._begin_calls()
        if not self._is_running:
            self._submit_round()

    def _begin_calls(self) -> None:
        """Begin calls whose prompts were read, and have those of others read as far as there is room."""
        for read in [each for each in self._reading if each.groups.done()]:
            self._reading.remove(read)
            try:
                read.call.groups = read.groups.result()
            except BaseException as error:
                read.call.fail(error)
            self._driver.add(read.call)
        while self._waiting and self._driver.has_room(self._max_concurrent - len(self._reading)):
            call, make_groups = self._waiting.popleft()
            if make_groups is None:
                self._driver.add(call)
            elif not call.is_over:
                self._read(call, make_groups)

    def _read(self, call: Call, make_groups: Callable[[], Groups]) -> None:
        try:
            groups = _submit(self._readers, make_groups)
        except GenerationError as error:
            call.fail(error)
            return
        self._reading.append(_Reading(call, groups))
        groups.add_done_callback(partial(self._was_read, call))

    def _was_read(self, call: Call, _: object) -> None:
        try:
            _submit(self._worker, self._go_on)
        except GenerationError as error:
            call.fail(error)

    def _run_round(self) -> None:
        now = time.monotonic()
        if recent := [each for each in self._reading if now - each.started < _PATIENCE]:
            wait([each.groups for each in recent], timeout=_PATIENCE)
            self._begin_calls()
        try:
            self._driver.run_round()
        except BaseException as error:  # the driver itself failed: no call may wait for it
            self._fail_all(error)
        self._begin_calls()
        self._submit_round()

    def _submit_round(self) -> None:
        self._is_running = not self._driver.is_idle
        if self._is_running:
            try:
                _submit(self._worker, self._run_round)
            except GenerationError as error:
                self._is_running = False
                self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        self._driver.fail_all(error)
        for call in [*(each.call for each in self._reading), *(call for call, _ in self._waiting)]:
            call.fail(error)
        self._reading.clear()
        self._waiting.clear()


def _submit(executor: ThreadPoolExecutor, job: Callable[..., T], *arguments: Any) -> "Future[T]":
    try:
        return executor.submit(job, *arguments)
    except RuntimeError as error:
        raise GenerationError(
            f"the text cannot go on, the interpreter is shutting down: {quoted(error)}"
        ) from error
