"""Daemon threads at the end of the interpreter.

Python ends its daemon threads where they next ask for the interpreter's lock. In a torch operation that
aborts the process, since C++ code there must not be left. So the exit waits for rounds of daemon threads.
"""

import atexit
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread

from cosd_core.errors import GenerationError

_PATIENCE = 60.0
"""The exit waits at most so many seconds for a round."""

_in_round: set[Thread] = set()
_is_exiting = False


@contextmanager
def finished_before_exit() -> Iterator[None]:
    """Keep the interpreter from ending while this thread is inside. Threads that are no daemons always do.

    Raises:
        GenerationError: It is ending already.
    """
    thread = current_thread()
    if not thread.daemon:
        yield
        return
    _in_round.add(thread)  # before the check, so that the exit sees either the thread or the error
    try:
        if _is_exiting:
            raise GenerationError("the text cannot go on, the interpreter is shutting down")
        yield
    finally:
        _in_round.discard(thread)


def _wait_for_rounds() -> None:
    global _is_exiting
    _is_exiting = True
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and any(thread.is_alive() for thread in list(_in_round)):
        time.sleep(0.005)


atexit.register(_wait_for_rounds)
