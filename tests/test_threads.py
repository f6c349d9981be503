"""A function in another thread: its result, its limit, and nothing else is touched by its end."""

import os
import random
import sys
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NoReturn

import pytest

from cosd_core.errors import GenerationError
from cosd_core.utils.threads import TimeLimit, TimeLimitError, _Threads, run_in_thread

name = ContextVar("name", default="nobody")


def forever() -> NoReturn:
    while True:
        pass


def test_results_errors_and_context_variables_pass() -> None:
    token = name.set("caller")
    try:
        assert run_in_thread(lambda: (name.get(), 1), limit=TimeLimit(60)) == ("caller", 1)
    finally:
        name.reset(token)
    with pytest.raises(ZeroDivisionError):
        run_in_thread(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        run_in_thread(lambda: sys.exit(3), limit=TimeLimit(60))


def test_a_function_that_does_not_end_is_ended() -> None:
    with pytest.raises(TimeLimitError):
        run_in_thread(forever, limit=TimeLimit(0.05))


def test_the_stop_is_repeated_where_something_swallows_it() -> None:
    caught = []

    def stubborn() -> None:
        for _ in range(3):
            try:
                forever()
            except BaseException as error:
                caught.append(error)
        forever()

    with pytest.raises(TimeLimitError):
        run_in_thread(stubborn, limit=TimeLimit(0.05))
    assert len(caught) == 3


def test_a_function_may_extend_its_limit() -> None:
    limit = TimeLimit(0.1)

    def patient() -> str:
        limit.extend(60)
        time.sleep(0.3)
        return "done"

    assert run_in_thread(patient, limit=limit) == "done"


def test_an_error_of_the_waiting_thread_ends_the_function_too(monkeypatch: pytest.MonkeyPatch) -> None:
    wait = threading.Event.wait
    interrupted = []

    def interrupt(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout == pytest.approx(60, abs=5) and not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        return wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_in_thread(forever, limit=TimeLimit(60))
    assert interrupted


def test_a_tracing_function_goes_on() -> None:
    """As coverage and debuggers set one."""
    lines = []

    def trace(_frame: Any, event: str, _argument: Any) -> Any:
        lines.append(event)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert run_in_thread(lambda: 1, limit=TimeLimit(60)) == 1
        with suppress(TimeLimitError):
            run_in_thread(forever, limit=TimeLimit(0.01))
        assert (lambda: 2)() == 2
    finally:
        sys.settrace(before)
    assert lines


def test_threads_are_kept_for_the_next_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are two: a result may be there before its thread is free."""
    monkeypatch.setattr("cosd_core.utils.threads._threads", _Threads())
    monkeypatch.setattr("cosd_core.utils.threads._MAX_THREADS", 2)
    with suppress(TimeLimitError):
        run_in_thread(forever, limit=TimeLimit(0.01))
    used = {run_in_thread(lambda: threading.current_thread().name) for _ in range(20)}
    assert len(used) <= 2


def test_a_function_inside_of_another_one_runs_in_its_thread() -> None:
    def outer() -> tuple[int, int]:
        return threading.get_ident(), run_in_thread(threading.get_ident)

    inside, nested = run_in_thread(outer)
    assert inside == nested != threading.get_ident()


def test_a_forked_process_starts_its_own_threads() -> None:
    assert run_in_thread(lambda: 1) == 1
    if not (child := os.fork()):
        os._exit(run_in_thread(lambda: 7))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("cosd_core.utils.threads._threads", _Threads())
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(GenerationError, match="no thread can be started: can't start new thread"):
        run_in_thread(forever, limit=TimeLimit(1))


def test_the_stop_hits_the_function_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions that end about when their time does; pytest reports exceptions that leave a thread."""
    monkeypatch.setattr("cosd_core.utils.threads._RETRY_SECONDS", 1e-4)
    interval = sys.getswitchinterval()
    chosen = random.Random(5)
    outcomes: list[Any] = []
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(400):
            turns = range(chosen.randrange(20_000))
            try:
                outcomes.append(
                    run_in_thread(lambda turns=turns: sum(turns), limit=TimeLimit(2e-3 * chosen.random()))
                )
                assert outcomes[-1] == sum(turns)
            except TimeLimitError:
                outcomes.append(None)
    finally:
        sys.setswitchinterval(interval)
    assert len(outcomes) == 400
