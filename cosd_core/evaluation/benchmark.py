"""Times all methods on the same prompts, relative to the draft alone in its own library's ``generate``."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cosd_core.decoder import CoSDDecoder
from cosd_core.evaluation.baseline import baseline
from cosd_core.models.prefix_cache import without_prefix_caches
from cosd_core.outputs import Generation, Stats


@dataclass(frozen=True, slots=True)
class Measurement:
    """One method over all prompts.

    Attributes:
        method: Its name.
        seconds: Per repeat, the time for all prompts.
        tokens: Tokens written per repeat.
        relative: Time per token over the baseline's, the median over repeats of the ratio within a repeat.
        draft_passes: Draft passes per token; None for the baseline.
        assistant_passes: How often the assistants ran, per token; None for the baseline.
    """

    method: str
    seconds: tuple[float, ...]
    tokens: int
    relative: float
    draft_passes: float | None
    assistant_passes: float | None

    @property
    def tokens_per_second(self) -> float:
        """The median over repeats."""
        return self.tokens / statistics.median(self.seconds)


_Method = Callable[[], tuple[int, list[Stats]]]
"""Runs all prompts; returns the number of tokens, and the statistics of every prompt if there are any."""


@without_prefix_caches()  # generate has none
def bench(
    decoder: CoSDDecoder,
    prompts: Sequence[str],
    *,
    repeats: int = 5,
    max_new_tokens: int = 64,
    batch_size: int = 8,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """Time all methods in turn, ``repeats`` times, after one uncounted round.

    Absolute times depend on other load of the machine; ratios within one repeat hardly do. Every text is
    greedy and ends at its end token or after ``max_new_tokens``.

    Args:
        decoder: The pair, with the verifier to measure.
        prompts: The prompts.
        repeats: Counted rounds.
        max_new_tokens: The longest text.
        batch_size: For the row that decodes several prompts at once.
        progress: Called with the name of each method before it runs.
    """
    first, alone = baseline(decoder.draft)
    methods: dict[str, _Method] = {
        first: lambda: (sum(alone(each, max_new_tokens) for each in prompts), []),
        **dict(_methods(decoder, prompts, max_new_tokens, batch_size)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    runs: dict[str, tuple[int, list[Stats]]] = {}
    for repeat in range(-1, repeats):
        for name, method in methods.items():
            progress(name)
            started = time.perf_counter()
            runs[name] = method()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - started)
    yardstick = [each / runs[first][0] for each in seconds[first]]
    return [_measurement(name, seconds[name], *run, yardstick) for name, run in runs.items()]


def _methods(
    decoder: CoSDDecoder, prompts: Sequence[str], max_new_tokens: int, batch_size: int
) -> Iterator[tuple[str, _Method]]:
    """Names and methods."""
    name, length = decoder.verifier.name, decoder.draft_length

    def fused(**parts: Any) -> _Method:
        unchanged = ("verifier", "schedule", "draft_length", "calibration", "lookup")
        settings = {name: getattr(decoder, name) for name in unchanged} | {"batch_size": 1}
        other = CoSDDecoder(decoder.draft, decoder.assistants, **{**settings, **parts})
        return lambda: _count(other.generate(list(prompts), max_new_tokens=max_new_tokens))

    yield f"{name}, {decoder.schedule.name}", fused()
    yield f"{name}, {decoder.schedule.name}, batches of {batch_size}", fused(batch_size=batch_size)
    yield f"{name}, fixed, K = {length}", fused(schedule="fixed")
    yield (
        f"{name}, fixed, K = {max_new_tokens} (the paper's)",
        fused(schedule="fixed", draft_length=max_new_tokens),
    )
    for verifier in ("draft", "assistant"):
        yield verifier, fused(verifier=verifier)
    if decoder.shares_vocabulary:
        yield "average", fused(verifier="average")
    if decoder.shares_vocabulary and len(decoder.assistants) == 1:
        yield "speculative", fused(verifier="speculative")


def _count(generations: Sequence[Generation]) -> tuple[int, list[Stats]]:
    return sum(len(each.token_ids) for each in generations), [each.stats for each in generations]


def _measurement(
    name: str, seconds: Sequence[float], tokens: int, stats: Sequence[Stats], yardstick: Sequence[float]
) -> Measurement:
    ratios = [each / tokens / base for each, base in zip(seconds, yardstick, strict=True)]
    return Measurement(
        method=name,
        seconds=tuple(seconds),
        tokens=tokens,
        relative=statistics.median(ratios),
        draft_passes=sum(each.draft_passes for each in stats) / tokens if stats else None,
        assistant_passes=sum(each.assistant_passes for each in stats) / tokens if stats else None,
    )
