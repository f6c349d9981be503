"""Runs the rounds of several calls: their rows share batches, and the batches take turns."""

import re
from collections import deque
from collections.abc import Callable, Sequence

from cosd_core.errors import OutOfMemoryError, quoted
from cosd_core.generation.call import Call
from cosd_core.generation.loop import Batch
from cosd_core.generation.row import Row
from cosd_core.models.prefix_cache import free_prefix_caches


class RoundDriver:
    """The calls under way and their batches; one thread at a time may use it.

    A call joins a batch that has room for its rows, if they are of like length, and otherwise opens another.
    Long prompts are read in a batch of their own, one chunk of one batch between two rounds of every other
    batch. Batches that have read their prompts are merged where there is room.
    After a failure every call of the batch finishes in a batch of its own, so that only the call that caused
    it fails. A batch that runs out of memory is split in halves, which go on when no other batch is left; a
    row that does not fit alone, without the prefix caches, fails its call.
    """

    def __init__(self, open_batch: Callable[[Sequence[Row]], Batch], batch_size: int) -> None:
        """Begin without calls; at most ``batch_size`` rows of several calls share a batch."""
        self._open_batch = open_batch
        self._batch_size = batch_size
        self._batches: deque[Batch] = deque()  # in the order of their turns
        self._unread: deque[Batch] = deque()  # they have their turns when no other batch reads prompts
        self._isolated: set[Batch] = set()  # no other call may join these
        self._postponed: deque[Sequence[Row]] = deque()  # they wait for memory
        self._calls: dict[Row, Call] = {}  # by their unfinished rows

    @property
    def is_idle(self) -> bool:
        """Whether no rows are under way."""
        return not self._batches and not self._postponed

    def has_room(self, limit: int) -> bool:
        """Whether another call may begin where at most so many rows are under way."""
        return len(self._calls) < limit and not self._postponed

    def add(self, call: Call) -> None:
        """Start the next group of a call, or end the call if there is none."""
        if call.is_over:
            return
        try:
            rows = next(call.groups, None)
            if rows is None:
                call.send(None)
                return
            self._place(rows)
            self._calls.update(dict.fromkeys(rows, call))
        except BaseException as error:
            call.fail(error)

    def run_round(self) -> None:
        """Run a round of the batch whose turn it is, and send each call its steps."""
        if self._batches:
            self._run_round_of(self._batches.popleft())
        else:
            self._isolate(self._postponed.popleft())
        self._admit_unread()

    def _run_round_of(self, batch: Batch) -> None:
        try:
            self._remove(batch, [row for row in batch.rows if self._calls[row].is_over])
            if steps := batch.round():  # none while it reads prompts
                for row, step in zip(batch.rows, steps, strict=True):
                    self._calls[row].send(step)
                self._remove(batch, [row for row in batch.rows if row.is_finished])
        except BaseException as error:
            self._isolate_failure(batch, error)
            return
        if not batch.rows:
            self._isolated.discard(batch)
        elif not self._was_merged(batch):
            self._batches.append(batch)

    def fail_all(self, error: BaseException) -> None:
        """End every call by an error."""
        self._batches.clear()
        self._unread.clear()
        self._isolated.clear()
        self._postponed.clear()
        for call in set(self._calls.values()):
            call.fail(error)
        self._calls.clear()

    def _place(self, rows: Sequence[Row]) -> None:
        """Add rows to a batch that has room for them, or open one."""
        for batch in self._batches:
            if self._has_room(batch, rows) and batch.can_join(rows):
                batch.add(rows)
                return
        batch = self._open_batch(rows)
        (self._unread if batch.is_reading else self._batches).append(batch)
        self._admit_unread()

    def _has_room(self, batch: Batch, rows: Sequence[Row]) -> bool:
        return batch not in self._isolated and len(batch.rows) + len(rows) <= self._batch_size

    def _was_merged(self, batch: Batch) -> bool:
        """Add the rows of a batch to another one that has room for them; false if there is none."""
        if batch in self._isolated:
            return False
        for other in self._batches:
            if self._has_room(other, batch.rows) and other.can_merge(batch):
                other.merge(batch)
                return True
        return False

    def _admit_unread(self) -> None:
        """Let the next batch read its prompts if no other one reads."""
        if self._unread and not any(batch.is_reading for batch in self._batches):
            self._batches.append(self._unread.popleft())

    def _remove(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Remove rows from their batch; calls without other unfinished rows start their next group."""
        batch.remove(rows)
        self._forget(rows)

    def _isolate_failure(self, batch: Batch, error: BaseException) -> None:
        """Give every call of a failed batch a batch of its own; a call that was alone fails."""
        self._isolated.discard(batch)
        self._forget([row for row in batch.rows if row.is_finished])
        rows = [row for row in batch.rows if not row.is_finished]
        if rows and _is_out_of_memory(error):
            if len(rows) > 1 or self._batches:
                middle = (len(rows) + 1) // 2
                self._postponed += [half for half in (rows[:middle], rows[middle:]) if half]
                return
            if free_prefix_caches():
                self._isolate(rows)
                return
            error = _out_of_memory(rows[0], error)
        rows_of: dict[Call, list[Row]] = {}
        for row in rows:
            rows_of.setdefault(self._calls[row], []).append(row)
        for own_rows in rows_of.values():
            if len(rows_of) == 1:
                self._fail(own_rows, error)
            else:
                self._isolate(own_rows)

    def _isolate(self, rows: Sequence[Row]) -> None:
        """Continue with rows in a batch of their own, from the text that stands."""
        try:
            for row in rows:
                row.discard_block()
            batch = self._open_batch(rows)
        except BaseException as error:
            self._fail(rows, error)
            return
        self._isolated.add(batch)
        self._batches.append(batch)

    def _fail(self, rows: Sequence[Row], error: BaseException) -> None:
        for call in {self._calls[row] for row in rows}:
            call.fail(error)
        self._forget(rows)

    def _forget(self, rows: Sequence[Row]) -> None:
        calls = {self._calls.pop(row) for row in rows}
        for call in calls.difference(self._calls.values()):
            self.add(call)


def _is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error or its cause says that there is no memory; not all devices have a class for it."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, RuntimeError) and re.search("out of memory|can't allocate memory", str(error)):
            return True
        error = error.__cause__
    return False


def _out_of_memory(row: Row, error: BaseException) -> OutOfMemoryError:
    made = OutOfMemoryError(
        f"a prompt and its text of {len(row.input_ids)} tokens do not fit into the memory, even alone: "
        f"shorten them, or load the models in a smaller dtype or quantised ({quoted(error)})"
    )
    made.__cause__ = error.__cause__ or error  # the fault itself, not the pass that reports it
    return made
