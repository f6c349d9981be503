"""Calls something, and accepts a result or an error of cosd that comes within a time."""

import faulthandler
import os
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from hypothesis import HealthCheck, settings

from cosd_core import CoSDError

EXAMPLES = int(os.environ.get("COSD_FUZZ_EXAMPLES", "0"))
"""Per test; 0: a few, the same in every run."""

MOST_SECONDS = 5.0
"""Of processor time, so that a busy machine changes nothing."""

_HUNG_SECONDS = 1200
_STACKS = (Path(gettempdir()) / "cosd-fuzz-stacks.txt").open("w", encoding="utf-8")
"""pytest captures standard error, and shows nothing of it if the process ends."""

fuzzed = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def survive(call: Callable[[], Any]) -> Any:
    """The result of a call, or None if it is refused; any other end is a failure.

    A call that hangs ends the process; the stacks of its threads are then in ``cosd-fuzz-stacks.txt`` in the
    folder of temporary files.
    """
    faulthandler.dump_traceback_later(_HUNG_SECONDS, exit=True, file=_STACKS)
    begun = time.process_time()
    try:
        return call()
    except CoSDError as error:
        message = str(error)
        assert message
        assert len(message) < 5000, message
        return None
    finally:
        faulthandler.cancel_dump_traceback_later()
        seconds = time.process_time() - begun
        assert seconds < MOST_SECONDS, f"{seconds:.1f} s"
