"""Ctrl-C while modules are imported, which takes seconds, ends the process without a traceback."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 130
"""The exit code that shells report for a process that Ctrl-C ended."""


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """End the process at Ctrl-C: some modules turn the KeyboardInterrupt of an import into other errors."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # another program's handler, or SIGINT is ignored, as after nohup
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_CODE))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
