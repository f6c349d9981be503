"""Claim: calls leave nothing behind."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from cosd_core import CoSDDecoder

pytestmark = pytest.mark.real

MEGABYTES = 48
"""The growth that is accepted: freed memory that the allocators keep differs from call to call."""


def resident() -> int:
    """Megabytes of this process that are in memory."""
    gc.collect()
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kilobytes,) = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(kilobytes) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_does_not_grow_with_the_number_of_calls(decoder: CoSDDecoder) -> None:
    """The keys and values of one call, of 110 tokens and both models, are 10 MB: all of them would be 200."""
    calls: list[Callable[[str], object]] = [
        lambda prompt: decoder.generate(prompt, max_new_tokens=3),
        lambda prompt: next(iter(decoder.stream(prompt, max_new_tokens=3))),  # left early
    ]
    prompts = [f"Number {at}. " + "The quick brown fox jumps over the lazy dog. " * 10 for at in range(26)]
    for at, prompt in enumerate(prompts[:6]):
        calls[at % 2](prompt)
    before = resident()
    for at, prompt in enumerate(prompts[6:]):
        calls[at % 2](prompt)
    assert resident() - before < MEGABYTES
