"""Progress of long work on standard error: bars on a terminal, else a line every few seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cosd_core.cli.console import err

SECONDS = 5.0
"""Between two lines of progress."""


class Report(Protocol):
    """Says how far one kind of work is; ``total`` is None where it is unknown."""

    def __call__(self, what: str, done: int = 0, total: int | None = None) -> None: ...  # noqa: D102


@contextmanager
def progress(first: str) -> Iterator[Report]:
    """Show progress while the block runs.

    Args:
        first: What is done before the first report. Only lines show it: libraries draw bars of their own
            while they load models, which would mix with ours.
    """
    with _bars() if err.is_terminal else _lines(first) as report:
        yield report


@contextmanager
def _bars() -> Iterator[Report]:
    """A bar for every kind of work, from its first report on."""
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*columns, console=err, transient=True)
    rows: dict[str, TaskID] = {}

    def report(what: str, done: int = 0, total: int | None = None) -> None:
        bars.start()
        if what not in rows:
            rows[what] = bars.add_task(what, total=total)
        bars.update(rows[what], completed=done, total=total)

    try:
        yield report
    finally:
        bars.stop()


@contextmanager
def _lines(first: str) -> Iterator[Report]:
    """A thread prints the last report every few seconds, however seldom the work reports."""
    last: list[tuple[str, int, int | None]] = [(first, 0, None)]
    begin, ended = monotonic(), Event()

    def report(what: str, done: int = 0, total: int | None = None) -> None:
        last[0] = what, done, total

    def write() -> None:
        while not ended.wait(SECONDS):
            what, done, total = last[0]
            share = f": {done:,} of {total:,}" if total else f": {done:,}" if done else ""
            err.print(f"{what}{share}, {monotonic() - begin:.0f} s", soft_wrap=True)

    thread = Thread(target=write, name="cosd-progress", daemon=True)
    thread.start()
    try:
        yield report
    finally:
        ended.set()
        thread.join()
