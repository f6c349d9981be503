"""Teacher forcing in batches against reading position by position: `python scripts/teaching_bench.py`.

A thousand texts of 200 tokens, prompt included, by the bundled pair, one thread. Position by position means
that each model is given one more token of one text at a time, once with its cache (as when writing) and once
reading the whole prefix anew. Both are measured on some of the texts, in turns with as many in batches, and
see the same.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from cosd_core import LanguageModel, Observations, observe
from cosd_core.demo import KINDS, load_pair, practice
from cosd_core.models.base import LogitsSession

LENGTH, PROMPT = 200, 40
TURNS = 5

Example = tuple[list[int], list[int]]
Read = Callable[[LanguageModel, list[int]], torch.Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=1000, help="texts read in batches")
    parser.add_argument("--sample", type=int, default=4, help="texts per turn read in every way")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pair = load_pair()
    lessons = texts(pair[0], arguments.examples)
    batched(pair, lessons[:8])

    started = time.perf_counter()
    seen = batched(pair, lessons)
    whole = time.perf_counter() - started
    print(
        f"{len(lessons)} texts, {len(seen):,} positions, {whole:.1f} s, {len(seen) / whole:,.0f} per second"
    )

    ratios: dict[str, list[float]] = {"with a cache": [], "without": []}
    for turn in range(TURNS):
        some = [
            lessons[at % len(lessons)] for at in range(turn * arguments.sample, (turn + 1) * arguments.sample)
        ]
        started = time.perf_counter()
        batched(pair, lessons[: 16 * arguments.sample])
        per_text = (time.perf_counter() - started) / (16 * arguments.sample)
        expected = batched(pair, some).confidences()
        for name, start in (("with a cache", cached), ("without", uncached)):
            started = time.perf_counter()
            found = one_by_one(pair, some, start)
            ratios[name].append((time.perf_counter() - started) / len(some) / per_text)
            np.testing.assert_allclose(found, expected, atol=1e-3)
    for name, each in ratios.items():
        print(f"position by position {name}: {statistics.median(each):.1f} times as long", end=" ")
        print(f"({min(each):.1f} to {max(each):.1f})")


def texts(model: LanguageModel, count: int) -> list[Example]:
    """Questions and answers in a row, cut to equal length."""
    questions = [question for kind in KINDS for question in practice(kind, 600)]
    random.Random(0).shuffle(questions)
    lines = (f"{each.prompt}{each.answer} " for _ in range(count) for each in questions)
    found: list[Example] = []
    ids: list[int] = []
    while len(found) < count:
        ids += model.encode(next(lines))
        if len(ids) >= LENGTH:
            found.append((ids[:PROMPT], ids[PROMPT:LENGTH]))
            ids = []
    return found


def batched(pair: Sequence[LanguageModel], lessons: Sequence[Example]) -> Observations:
    """The library's way."""
    return observe(pair, lessons, end_token=False)


def one_by_one(
    pair: Sequence[LanguageModel], lessons: Sequence[Example], start: Callable[[], Read]
) -> np.ndarray:
    """Confidences, ``[positions, models]``, from one pass per position and model."""
    rows = []
    with torch.inference_mode():
        for prompt, truth in lessons:
            reads = [start() for _ in pair]
            for at in range(len(truth)):
                ids = [*prompt, *truth[:at]]
                logits = [read(model, ids) for read, model in zip(reads, pair, strict=True)]
                rows.append([float(torch.softmax(each, -1).max()) for each in logits])
    return np.array(rows)


def cached() -> Read:
    """One text with a cache: a pass over one more token."""
    sessions: dict[LanguageModel, LogitsSession] = {}

    def read(model: LanguageModel, ids: list[int]) -> torch.Tensor:
        if model not in sessions:
            sessions[model] = model.open_session(vocabulary=model.vocabulary_size)
        return sessions[model].logits([ids], last=1)[0, -1]

    return read


def uncached() -> Read:
    """One text without: a pass over the whole prefix."""
    return lambda model, ids: model.model(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[
        0, -1
    ]


if __name__ == "__main__":
    main()
