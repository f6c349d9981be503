"""Requests that join a running batch: at rounds that a seed picks, with nothing left to the clock."""

from collections.abc import Sequence
from random import Random
from typing import Any

from cosd_core import CoSDDecoder, Generation
from cosd_core.generation.loop import Batch
from cosd_core.generation.row import Row


def decode_joining(
    decoder: CoSDDecoder, requests: Sequence[tuple[Any, dict[str, Any]]], *, seed: int
) -> list[Generation]:
    """Decode requests of one prompt each in one batch that they join at random rounds."""
    random = Random(seed)
    waiting = list(enumerate(requests))
    random.shuffle(waiting)
    batch: Batch | None = None
    places: dict[Row, int] = {}
    finished: dict[int, Generation] = {}
    while len(finished) < len(requests):
        while waiting and (not places or random.random() < 0.4):
            at, (prompt, options) = waiting.pop()
            [[row]] = decoder._groups(prompt, options)
            places[row] = at
            if batch is None:
                batch = decoder._open_batch([row])
            else:
                batch.add([row])
        assert batch is not None
        for row, step in zip(batch.rows, batch.round(), strict=True):
            if step.generation:
                finished[places.pop(row)] = step.generation
        batch.remove([row for row in batch.rows if row.is_finished])
    return [finished[at] for at in range(len(requests))]
