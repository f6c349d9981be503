"""The calls of many asyncio tasks on one worker thread, their rows decoded together."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from cosd_core.loop import Batch
from cosd_core.records import Step
from cosd_core.row import Row

Groups = Iterator[Sequence[Row]]
"""The rows of a call, divided into what is decoded together. A group is made when its turn comes."""


class Engine:
    """Batches that calls join and leave while they run.

    The worker does one job after another. Every batch has one job in its queue: a round, at whose end it puts
    the next one at the back. So batches take turns, and calls are let in between two rounds. All state
    belongs to the worker, except that a task may say that its call is over.
    """

    def __init__(self, open_batch: Callable[[Sequence[Row]], Batch], batch_size: int) -> None:
        self._open_batch = open_batch
        self._batch_size = batch_size
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cosd")
        self._shared: list[Batch] = []  # those that others may join
        self._calls: dict[Row, _Call] = {}  # whose rows are under way

    async def steps(self, read: Callable[[], Groups]) -> AsyncGenerator[Step, None]:
        """Decode the groups of a call one after another, together with those of other calls.

        Args:
            read: Makes the groups, on the worker; what it raises is raised here.
        """
        call = _Call()
        self._worker.submit(self._admit, call, read)
        try:
            while news := await call.news.get():
                if not isinstance(news, Step):
                    raise news
                yield news
        finally:
            call.over = True
            news = None  # an exception and this frame would keep each other, and a batch's caches, alive

    def _admit(self, call: "_Call", read: Callable[[], Groups]) -> None:
        if call.over:
            return
        try:
            call.groups = read()
        except BaseException as error:
            call.fail(error)
        self._seat(call)

    def _seat(self, call: "_Call") -> None:
        """Let the next group of a call join a batch that has room for it, or open one."""
        if call.over:
            return
        try:
            rows = next(call.groups, None)
            if rows is None:
                call.tell(None)
                return
            self._calls.update(dict.fromkeys(rows, call))
            for batch in self._shared:
                if 0 < len(batch.rows) <= self._batch_size - len(rows):
                    batch.add(rows)
                    return
            self._shared.append(self._start(rows))
        except BaseException as error:
            call.fail(error)

    def _start(self, rows: Sequence[Row]) -> Batch:
        batch = self._open_batch(rows)
        self._worker.submit(self._round, batch)
        return batch

    def _round(self, batch: Batch) -> None:
        try:
            self._drop(batch, [row for row in batch.rows if self._calls[row].over])
            for row, step in zip(batch.rows, batch.round(), strict=True):
                self._calls[row].tell(step)
            self._drop(batch, [row for row in batch.rows if row.finished])
        except BaseException as error:
            self._part(batch, error)
        else:
            if batch.rows:
                self._worker.submit(self._round, batch)
            elif batch in self._shared:
                self._shared.remove(batch)

    def _drop(self, batch: Batch, rows: Sequence[Row]) -> None:
        batch.remove(rows)
        self._forget(rows)

    def _part(self, batch: Batch, error: BaseException) -> None:
        """After a failure every call goes on alone for good: nobody's fault is to hurt another.

        A call that was alone already has failed.
        """
        if batch in self._shared:
            self._shared.remove(batch)
        self._forget([row for row in batch.rows if row.finished])
        parts: dict[_Call, list[Row]] = {}
        for row in batch.rows:
            if not row.finished:
                parts.setdefault(self._calls[row], []).append(row)
        if len(parts) == 1:
            [(call, rows)] = parts.items()
            call.fail(error)
            self._forget(rows)
            return
        for rows in parts.values():
            for row in rows:
                row.abandon()
            self._start(rows)

    def _forget(self, rows: Sequence[Row]) -> None:
        """Strike off rows that are done with; a call without others under way goes on to its next group."""
        calls = {self._calls.pop(row) for row in rows}
        for call in calls.difference(self._calls.values()):
            self._seat(call)


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
