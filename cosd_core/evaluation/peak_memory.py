"""The most memory that a part of a program takes."""

from pathlib import Path
from typing import Self

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Written to that file, it sets the peak of the resident set to its present size (``proc(5)``)."""


class PeakMemory:
    """Measures while it is entered: on CUDA devices what torch allocates, else the resident set of Linux.

    Attributes:
        bytes: The most memory beyond what was used at the beginning, after the end; None where nothing tells.
    """

    def __init__(self) -> None:
        """Measure nothing yet."""
        self.bytes: int | None = None
        self._before: int | None = None

    def __enter__(self) -> Self:
        """Begin."""
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            try:
                _RESET.write_text(_RESET_PEAK)
                self._before = _resident("VmRSS")
            except OSError:  # another system, or not allowed
                self._before = None
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._before is not None:
            cuda = torch.cuda.is_available()
            peak = torch.cuda.max_memory_allocated() if cuda else _resident("VmHWM")
            self.bytes = max(peak - self._before, 0)


def _resident(name: str) -> int:
    """A line of the process's status, in bytes."""
    [line] = [each for each in _STATUS.read_text().splitlines() if each.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024
