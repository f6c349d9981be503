"""The calls of many asyncio tasks on one worker thread, their rows decoded together."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cosd_core.errors import GenerationError, quoted
from cosd_core.generation.loop import Batch
from cosd_core.generation.row import Row
from cosd_core.outputs import Step
from cosd_core.utils import Lock

Groups = Iterator[Sequence[Row]]
"""The rows of a call, divided into what is decoded together. A group is made when its turn comes."""

_REGAINED = 1 / 32
"""Rows by which batches may grow again after a good round, if they had become too large."""


class Engine:
    """Batches that calls join and leave while they run.

    The worker does one job after another. Every batch has one job in its queue: a round, at whose end it puts
    the next one at the back. So batches take turns, and calls are let in between two rounds. All state
    belongs to the worker, except that a task may say that its call is over.

    After a failure every call of the batch runs a round alone, so that nobody's fault hurts another. Then
    those that are left share batches again; smaller ones if none failed alone, as size may be what failed.
    """

    def __init__(self, open_batch: Callable[[Sequence[Row]], Batch], batch_size: int) -> None:
        self._open_batch = open_batch
        self._batch_size = batch_size
        self._beginning = Lock()
        self._begin()

    def _begin(self) -> None:
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cosd")
        self._room: float = self._batch_size  # the most rows that calls may share a batch with
        self._shared: list[Batch] = []  # those that others may join
        self._trials: dict[Batch, _Trial] = {}  # those of one call each
        self._calls: dict[Row, _Call] = {}  # whose rows are under way
        self._process = os.getpid()

    async def steps(self, read: Callable[[], Groups]) -> AsyncGenerator[Step, None]:
        """Decode the groups of a call one after another, together with those of other calls.

        Args:
            read: Makes the groups, on the worker; what it raises is raised here.

        Raises:
            GenerationError: The interpreter is shutting down.
        """
        if self._process != os.getpid():  # a fork has no worker, and its parent's calls are not its own
            with self._beginning:
                if self._process != os.getpid():
                    self._begin()
        call = _Call()
        self._submit(self._admit, call, read)
        try:
            while news := await call.news.get():
                if not isinstance(news, Step):
                    raise news
                yield news
        finally:
            call.over = True
            news = None  # an exception and this frame would keep each other, and a batch's caches, alive

    def _submit(self, job: Callable[..., None], *arguments: Any) -> None:
        try:
            self._worker.submit(job, *arguments)
        except RuntimeError as error:
            raise GenerationError(
                f"the text cannot go on, the interpreter is shutting down: {quoted(error)}"
            ) from error

    def _admit(self, call: "_Call", read: Callable[[], Groups]) -> None:
        if call.over:
            return
        try:
            call.groups = read()
        except BaseException as error:
            call.fail(error)
        self._seat(call)

    def _seat(self, call: "_Call") -> None:
        """Begin with the next group of a call."""
        if call.over:
            return
        try:
            rows = next(call.groups, None)
            if rows is None:
                call.tell(None)
                return
            self._place(rows)
            self._calls.update(dict.fromkeys(rows, call))
        except BaseException as error:
            call.fail(error)

    def _place(self, rows: Sequence[Row]) -> None:
        """Let rows join a batch that has room for them and is of like length, or open one."""
        for batch in self._shared:
            if 0 < len(batch.rows) <= self._room - len(rows) and batch.suits(rows):
                batch.add(rows)
                return
        self._shared.append(self._start(rows))

    def _start(self, rows: Sequence[Row]) -> Batch:
        batch = self._open_batch(rows)
        self._submit(self._round, batch)
        return batch

    def _round(self, batch: Batch) -> None:
        try:
            self._drop(batch, [row for row in batch.rows if self._calls[row].over])
            for row, step in zip(batch.rows, batch.round(), strict=True):
                self._calls[row].tell(step)
            self._drop(batch, [row for row in batch.rows if row.finished])
        except BaseException as error:
            self._part(batch, error)
            return
        self._room = min(self._room + _REGAINED, self._batch_size)
        if batch in self._trials:
            self._conclude(self._trials.pop(batch), batch.rows)
        elif batch.rows:
            try:
                self._submit(self._round, batch)
            except GenerationError as error:
                self._shared.remove(batch)
                self._fail(batch.rows, error)
        else:
            self._shared.remove(batch)

    def _drop(self, batch: Batch, rows: Sequence[Row]) -> None:
        batch.remove(rows)
        self._forget(rows)

    def _part(self, batch: Batch, error: BaseException) -> None:
        """After a failure try every call alone for a round. A call that was alone already has failed."""
        if batch in self._shared:
            self._shared.remove(batch)
        self._forget([row for row in batch.rows if row.finished])
        parts: dict[_Call, list[Row]] = {}
        for row in batch.rows:
            if not row.finished:
                row.abandon()
                parts.setdefault(self._calls[row], []).append(row)
        if len(parts) > 1:
            trial = _Trial(len(batch.rows), len(parts))
            for rows in parts.values():
                self._try(rows, trial)
            return
        for rows in parts.values():
            self._fail(rows, error)
        if batch in self._trials:
            self._conclude(self._trials.pop(batch), guilty=True)

    def _try(self, rows: Sequence[Row], trial: "_Trial") -> None:
        try:
            self._trials[self._start(rows)] = trial
        except BaseException as error:
            self._fail(rows, error)
            self._conclude(trial, guilty=True)

    def _conclude(self, trial: "_Trial", rows: Sequence[Row] = (), *, guilty: bool = False) -> None:
        """One call of a trial has had its round, and these rows go on. After the last one all find places."""
        trial.awaited -= 1
        trial.solved |= guilty
        trial.passed.append(rows)
        if trial.awaited:
            return
        if not trial.solved:
            self._room = max(trial.size / 2, 1)
        for passed in filter(None, trial.passed):
            try:
                self._place(passed)
            except BaseException as error:
                self._fail(passed, error)

    def _fail(self, rows: Sequence[Row], error: BaseException) -> None:
        for call in {self._calls[row] for row in rows}:
            call.fail(error)
        self._forget(rows)

    def _forget(self, rows: Sequence[Row]) -> None:
        """Strike off rows that are done with; a call without others under way goes on to its next group."""
        calls = {self._calls.pop(row) for row in rows}
        for call in calls.difference(self._calls.values()):
            self._seat(call)


class _Trial:
    """A batch has failed, and its calls run a round alone, each in a batch of its own.

    Attributes:
        size: The rows of the batch that failed.
        awaited: How many calls have yet to run their round.
        solved: Whether one of them has failed alone.
        passed: The rows of those that have not.
    """

    def __init__(self, size: int, awaited: int) -> None:
        self.size = size
        self.awaited = awaited
        self.solved = False
        self.passed: list[Sequence[Row]] = []


class _Call:
    """One request of a task.

    Attributes:
        groups: Those that wait.
        news: Steps, then None or an exception, for the task to read.
        over: Whether nobody reads any more, or it has failed.
    """

    def __init__(self) -> None:
        self.groups: Groups = iter(())
        self.news: asyncio.Queue[Step | BaseException | None] = asyncio.Queue()
        self.over = False
        self._loop = asyncio.get_running_loop()

    def tell(self, news: Step | BaseException | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self.news.put_nowait, news)
        except RuntimeError:  # the loop is closed
            self.over = True

    def fail(self, error: BaseException) -> None:
        self.over = True
        self.tell(error)
