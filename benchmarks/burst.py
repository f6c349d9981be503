"""Five hundred chats at once: memory and the time to the first text, by `max_concurrent`.

`python -m benchmarks.burst [LIMIT ...]`. Each chat streams 64 tokens of the bundled chat pair. Every limit is
measured in a process of its own, since memory that was used once stays with a process.
"""

import asyncio
import statistics
import subprocess
import sys
import threading
import time

import psutil  # type: ignore[import-untyped]
import torch

from cosd_core import Chat, CoSDDecoder, RuleVerifier
from examples.bundled_pairs import load_chat_pair

CALLS, TOKENS = 500, 64


class PeakMemory(threading.Thread):
    """The most memory of this process while the thread runs, in bytes."""

    def __init__(self) -> None:
        """Begin with the memory that is used now."""
        super().__init__(daemon=True)
        self._process, self._ends = psutil.Process(), threading.Event()
        self.start_bytes = self.peak_bytes = int(self._process.memory_info().rss)

    def run(self) -> None:
        """Look fifty times a second."""
        while not self._ends.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, int(self._process.memory_info().rss))

    def growth(self) -> float:
        """End, and return by how many megabytes it grew."""
        self._ends.set()
        self.join()
        return (self.peak_bytes - self.start_bytes) / 1e6


async def first_text(decoder: CoSDDecoder, number: int) -> float:
    """Stream a chat to its end; returns the seconds to its first text."""
    started, first = time.monotonic(), 0.0
    chat = Chat([{"role": "user", "content": f"How many people live in town {number}? " * 6}])
    async for chunk in decoder.astream(chat, max_new_tokens=TOKENS, min_new_tokens=TOKENS):
        if chunk.text and not first:
            first = time.monotonic() - started
    return first


def measure(limit: int) -> None:
    """Print a line of the table."""
    torch.set_num_threads(1)
    decoder = CoSDDecoder(*load_chat_pair(), verifier=RuleVerifier(alpha=0.9), max_concurrent=limit)
    decoder.generate("Hello", max_new_tokens=TOKENS)

    async def burst() -> list[float]:
        return await asyncio.gather(*(first_text(decoder, number) for number in range(CALLS)))

    memory, started = PeakMemory(), time.monotonic()
    memory.start()
    waits = asyncio.run(burst())
    seconds = time.monotonic() - started
    median, last = statistics.median(waits), max(waits)
    print(
        f"| {limit} | {memory.growth():.0f} MB | {median:.1f} s | {last:.1f} s | {seconds:.1f} s |",
        flush=True,
    )


def main(limits: list[str]) -> None:
    """Print the table."""
    if limits[:1] == ["--one"]:
        measure(int(limits[1]))
        return
    print(
        "| `max_concurrent` | growth | first text, median | last | all |\n|---|---|---|---|---|", flush=True
    )
    for limit in limits or ["128", "256", "512"]:
        subprocess.run([sys.executable, "-m", "benchmarks.burst", "--one", limit], check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
