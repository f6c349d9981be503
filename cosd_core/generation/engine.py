"""The threads that run the rounds of a decoder: the caller's, or one worker for calls that share batches."""

import os
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any

from cosd_core.errors import GenerationError, quoted
from cosd_core.generation.call import AsyncCall, Call, Groups, SyncCall, ThreadCall
from cosd_core.generation.driver import RoundDriver
from cosd_core.generation.loop import Batch
from cosd_core.generation.row import Row
from cosd_core.outputs import Step
from cosd_core.utils import Lock


class Engine:
    """Runs calls by :class:`RoundDriver`.

    A plain call has a driver of its own, which runs in the caller's thread as its steps are read. All asyncio
    calls, and the calls of threads that ask for it, share one driver on the worker thread; they are added
    between two rounds.
    """

    def __init__(self, open_batch: Callable[[Sequence[Row]], Batch], batch_size: int) -> None:
        """Begin without calls; the arguments are those of :class:`RoundDriver`."""
        self._open_batch = open_batch
        self._batch_size = batch_size
        self._start_lock = Lock()
        self._start()

    def _start(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cosd")
        self._driver = self._new_driver()
        self._is_running = False  # whether a round is in the worker's queue; the worker's own
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
            driver.run_round()
            yield from call.received()

    def shared_steps(self, call: ThreadCall, groups: Groups) -> Generator[Step, None, None]:
        """Decode on the worker thread, together with other calls; errors as in :meth:`asteps`."""
        self._add_on_worker(call, lambda: groups)
        yield from call.steps()

    async def asteps(
        self, make_groups: Callable[[], Groups], timeout: float | None
    ) -> AsyncGenerator[Step, None]:
        """Decode on the worker thread, together with other calls; ``make_groups`` runs there, too.

        Raises:
            AnswerTimeoutError: So many seconds have passed.
            GenerationError: The interpreter is shutting down.
        """
        call = AsyncCall(timeout)
        self._add_on_worker(call, make_groups)
        async with aclosing(call.steps()) as steps:
            async for step in steps:
                yield step

    def _add_on_worker(self, call: Call, make_groups: Callable[[], Groups]) -> None:
        if self._process != os.getpid():  # a forked child has no worker, and the calls are its parent's
            with self._start_lock:
                if self._process != os.getpid():
                    self._start()
        self._submit(self._add, call, make_groups)

    def _submit(self, job: Callable[..., None], *arguments: Any) -> None:
        try:
            self._worker.submit(job, *arguments)
        except RuntimeError as error:
            raise GenerationError(
                f"the text cannot go on, the interpreter is shutting down: {quoted(error)}"
            ) from error

    def _add(self, call: Call, make_groups: Callable[[], Groups]) -> None:
        if call.is_over:
            return
        try:
            call.groups = make_groups()
        except BaseException as error:
            call.fail(error)
        self._driver.add(call)
        if not self._is_running:
            self._submit_round()

    def _run_round(self) -> None:
        self._driver.run_round()
        self._submit_round()

    def _submit_round(self) -> None:
        self._is_running = not self._driver.is_idle
        if self._is_running:
            try:
                self._submit(self._run_round)
            except GenerationError as error:
                self._is_running = False
                self._driver.fail_all(error)
