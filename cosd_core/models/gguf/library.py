"""The library llama.cpp, through the low-level interface of llama-cpp-python."""

import ctypes
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from typing import Any

from cosd_core.errors import MissingExtraError
from cosd_core.utils import require_version

_MIN_VERSION = "0.3.36"
"""The oldest supported release of llama-cpp-python, as in the package's extra."""

_WARN, _ERROR = 3, 4
"""Levels of llama.cpp's log."""

_log = logging.getLogger("cosd.llama_cpp")
_messages = threading.local()


@cache
def llama_cpp() -> Any:
    """The module of llama.cpp's functions; the first call initialises the library and takes over its log.

    llama.cpp writes hundreds of lines per model to stderr. They become messages of level DEBUG of the logger
    ``cosd.llama_cpp``.

    Raises:
        MissingExtraError: llama-cpp-python is not installed, too old, or cannot be loaded.
    """
    require_version("llama-cpp-python", _MIN_VERSION, extra="gguf", user="GGUF files")
    try:
        import llama_cpp.llama_cpp as library
    except (ImportError, RuntimeError, OSError) as error:  # a build for another processor or CUDA release
        raise MissingExtraError(
            f"llama-cpp-python cannot be loaded: {error}. Build it on this machine: "
            "pip install --no-cache-dir --force-reinstall --no-deps llama-cpp-python"
        ) from error
    global _callback
    _callback = library.llama_log_callback(_on_log)
    library.llama_log_set(_callback, ctypes.c_void_p(0))
    library.llama_backend_init()
    return library


@contextmanager
def logged_problems() -> Iterator[list[tuple[int, str]]]:
    """A list that receives the warnings and errors, with their levels, that llama.cpp logs in this thread."""
    found: list[tuple[int, str]] = []
    _messages.found = found
    try:
        yield found
    finally:
        _messages.found = None


def reason(problems: list[tuple[int, str]]) -> str:
    """The reason of a failure as llama.cpp logged it, in one line, for a message.

    It is the first of the most severe lines: those after it only say what failed because of it.
    """
    _, line = max(problems, key=itemgetter(0), default=(0, "llama.cpp gives no reason"))
    return " ".join(line.removeprefix("llama_model_load: error loading model: ").split())


_callback: Any = None
"""Keeps the callback alive: llama.cpp holds its bare address."""


def _on_log(level: int, text: bytes, _data: Any) -> None:
    line = text.decode("utf-8", errors="replace").rstrip("\n")
    _log.debug("%s", line)
    found = getattr(_messages, "found", None)
    if found is not None and level in (_WARN, _ERROR):
        found.append((level, line))
