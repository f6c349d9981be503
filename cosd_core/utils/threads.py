"""Runs a function in another thread: with a large stack, and with a time limit if it has one."""

import ctypes
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Generic, TypeVar

from cosd_core.errors import GenerationError, quoted
from cosd_core.utils import Lock

T = TypeVar("T")

_MAX_THREADS = 64
"""They are kept for the next functions: new threads all the time would fragment the memory."""

_STACK_BYTES = 64 << 20
"""The stack of such a thread; memory is taken only for the part of it that is used."""

_NAME = "cosd-call"
_RETRY_SECONDS = 0.1


class TimeLimitError(Exception):
    """A function was ended because its time was over."""


class TimeLimit:
    """How long a function may run, in seconds from now; the function itself may extend it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def extend(self, seconds: float) -> None:
        """Admit some more seconds."""
        self._end += seconds

    @property
    def left(self) -> float:
        """The seconds that are left, at least 0."""
        return max(self._end - time.monotonic(), 0.0)


class _Stop(BaseException):
    """Raised inside of a function whose time is over; no ``except Exception`` catches it."""


def run_in_thread(function: Callable[[], T], *, limit: TimeLimit | None = None) -> T:
    """The result of a function that runs in another thread, with this thread's context variables.

    Its exceptions are raised here. Inside of such a function another one without a limit runs in its thread.

    Args:
        function: With a limit it may end between any two steps of Python, so it should change nothing that
            others use. A single call into C is not interrupted; its end is awaited.
        limit: After this time the function is ended.

    Raises:
        TimeLimitError: The time is over.
        GenerationError: The system admits no further thread.
    """
    if limit is None and _threads.is_one():
        return function()
    task = _Task(function)
    _threads.run(task.run)
    try:
        while not task.finished.wait(limit.left if limit else None) and limit and limit.left:
            pass  # it was extended
    finally:  # also where this thread is interrupted
        while not task.finished.is_set():
            task.stop()
            task.finished.wait(_RETRY_SECONDS)
    return task.result()


class _Threads:
    """The threads that run functions; a forked process starts its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process = -1

    def is_one(self) -> bool:
        """Whether this code runs in one of the threads."""
        return threading.current_thread().name.startswith(_NAME)

    def run(self, function: Callable[[], None]) -> None:
        """Have a thread run a function, which raises nothing."""
        with self._lock:
            if self._process != os.getpid():
                self._executor = ThreadPoolExecutor(_MAX_THREADS, thread_name_prefix=_NAME)
                self._process = os.getpid()
            before = threading.stack_size(_STACK_BYTES)  # a setting of the whole process
            try:
                self._executor.submit(function)
            except RuntimeError as error:
                raise GenerationError(f"no thread can be started: {quoted(error)}") from error
            finally:
                threading.stack_size(before)


_threads = _Threads()


class _Task(Generic[T]):
    """A function that another thread may stop while it runs, and at no other moment.

    Attributes:
        finished: Set when the result is there.
    """

    def __init__(self, function: Callable[[], T]) -> None:
        self.finished = threading.Event()
        self._function = function
        self._context = copy_context()
        self._outcome: tuple[T | None, BaseException | None] = None, _Stop()
        self._lock = threading.Lock()
        self._thread = 0
        self._may_stop = False
        self._was_stopped = False

    def run(self) -> None:
        """Run the function in this thread."""
        self._thread = threading.get_ident()
        self._may_stop = True
        try:
            try:
                self._outcome = self._call()
            finally:
                self._forbid_stop()
        except _Stop:  # it came when the function had ended
            self._forbid_stop()
        self.finished.set()

    def stop(self) -> None:
        """Raise :class:`_Stop` in the function, if it runs."""
        with self._lock:
            if self._may_stop:
                self._was_stopped = True
                _raise_stop(self._thread)

    def result(self) -> T:
        """The function's result; raises its exception if it raised one."""
        result, error = self._outcome
        self._outcome = None, None
        try:
            if isinstance(error, _Stop):
                raise TimeLimitError
            if error is not None:
                raise error
        finally:
            error = None  # an exception and this frame would keep each other alive
        return result  # type: ignore[return-value]

    def _call(self) -> tuple[T | None, BaseException | None]:
        try:
            return self._context.run(self._function), None
        except BaseException as error:
            return None, error

    def _forbid_stop(self) -> None:
        with self._lock:
            self._may_stop = False
        if not self._was_stopped:
            return
        # A stop that was sent may have been raised or not. A thread has room for one: another one replaces it
        # and is raised here. Taking it back is no way: Python 3.11 then goes on to look for an exception at
        # every step, and with a tracing function (debuggers, coverage) never makes the next.
        with suppress(_Stop):
            _raise_stop(self._thread)
            while True:
                time.sleep(0)


def _raise_stop(thread: int) -> None:
    """Let a thread raise :class:`_Stop` at its next step of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_Stop))
