"""Runs programs on a terminal of their own."""

import os
import pty
import select
import signal
import sys
from collections.abc import Sequence
from time import monotonic, sleep

SECONDS = 60.0
"""The longest that a program is waited for."""


def on_terminal(code: str, *arguments: str, dialogue: Sequence[tuple[str, str]] = ()) -> tuple[str, int]:
    """What a Python program writes on a terminal of 80 columns, and its exit code.

    Args:
        code: The program.
        arguments: The command line, after the program's name.
        dialogue: Pairs of a text and what is typed once it has appeared, after the text of the pair before.
    """
    process, terminal = pty.fork()
    if process == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "80"}
        os.execv(sys.executable, [sys.executable, "-c", code, *arguments])
    written, seen, waiting, end = b"", 0, list(dialogue), monotonic() + SECONDS
    try:
        while monotonic() < end:
            if waiting and (found := written.find(waiting[0][0].encode(), seen)) >= 0:
                awaited, typed = waiting.pop(0)
                seen = found + len(awaited.encode())
                sleep(0.3)  # readline misses a signal between its prompt and its wait for a key
                os.write(terminal, typed.encode())
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    piece = os.read(terminal, 65536)
                except OSError:  # Linux, where the program has ended
                    break
                if not piece:
                    break
                written += piece
        else:
            os.kill(process, signal.SIGKILL)
    finally:
        code_of = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        os.close(terminal)
    assert not waiting, f"{waiting[0][0]!r} never appeared in {written[seen:]!r}"
    return written.decode(), code_of
