"""Times all methods on the same prompts, relative to the draft alone in its own library's ``generate``."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

from cosd_core.decoder import CoSDDecoder
from cosd_core.evaluation.baseline import Generate, baselines
from cosd_core.evaluation.peak_memory import PeakMemory
from cosd_core.models.prefix_cache import without_prefix_caches
from cosd_core.outputs import Stats


@dataclass(frozen=True, slots=True)
class Measurement:
    """One method over all prompts.

    Attributes:
        method: Its name.
        prompt_tokens: The draft's tokens per prompt, the mean.
        batch_size: The prompts that are decoded together.
        seconds: Per repeat, the time for all prompts.
        tokens: Tokens written per repeat.
        relative: Time per token over the baseline's, the median over repeats of the ratio within a repeat.
        first_token: Seconds from the call to its first token, the median over prompts and repeats.
        between_tokens: Seconds from one piece of text to the next, likewise; 0 where all came at once.
        memory: The most bytes beyond what was used before, over all repeats; None where nothing tells.
        draft_passes: Draft passes per token; None for other libraries.
        assistant_passes: How often the assistants ran, per token; None for other libraries.
    """

    method: str
    prompt_tokens: int
    batch_size: int
    seconds: tuple[float, ...]
    tokens: int
    relative: float
    first_token: float
    between_tokens: float
    memory: int | None
    draft_passes: float | None
    assistant_passes: float | None

    @property
    def tokens_per_second(self) -> float:
        """The median over repeats."""
        return self.tokens / statistics.median(self.seconds)


@dataclass(slots=True)
class _Clock:
    """When the tokens of some prompts were written.

    Attributes:
        started: The time of the call.
        times: Per prompt, when it got new tokens.
        tokens: How many there were in all.
    """

    started: float = field(default_factory=time.perf_counter)
    times: dict[int, list[float]] = field(default_factory=dict)
    tokens: int = 0

    def written(self, prompt: int, count: int) -> None:
        """A prompt got new tokens."""
        if count:
            self.times.setdefault(prompt, []).append(time.perf_counter())
            self.tokens += count


_Run = Callable[[list[str], _Clock], list[Stats]]
"""Decodes prompts together; returns the statistics of every prompt if there are any."""


@dataclass(slots=True)
class _Method:
    """A way to decode, and what was measured of it."""

    name: str
    batch_size: int
    run: _Run
    seconds: list[float] = field(default_factory=list)
    clocks: list[_Clock] = field(default_factory=list)
    stats: list[Stats] = field(default_factory=list)  # of the last repeat
    memory: list[int | None] = field(default_factory=list)

    def measure(self, prompts: Sequence[str]) -> None:
        """Decode the prompts once."""
        self.stats = []
        with PeakMemory() as peak:
            started = time.perf_counter()
            for at in range(0, len(prompts), self.batch_size):
                self.clocks.append(_Clock())
                self.stats += self.run(list(prompts[at : at + self.batch_size]), self.clocks[-1])
            self.seconds.append(time.perf_counter() - started)
        self.memory.append(peak.bytes)

    def forget(self) -> None:
        """Drop what was measured."""
        self.seconds, self.clocks, self.stats, self.memory = [], [], [], []

    def measurement(self, prompt_tokens: int, yardstick: "_Method") -> Measurement:
        """The result, relative to another method's."""
        ratios = [one / other for one, other in zip(self.seconds, yardstick.seconds, strict=True)]
        rows = [(clock, times) for clock in self.clocks for times in clock.times.values()]
        gaps = [after - before for _, times in rows for before, after in pairwise(times)]
        known = [each for each in self.memory if each is not None]
        tokens, stats = self._tokens, self.stats
        return Measurement(
            method=self.name,
            prompt_tokens=prompt_tokens,
            batch_size=self.batch_size,
            seconds=tuple(self.seconds),
            tokens=tokens,
            relative=statistics.median(ratios) * yardstick._tokens / tokens,
            first_token=statistics.median(times[0] - clock.started for clock, times in rows),
            between_tokens=statistics.median(gaps) if gaps else 0.0,
            memory=max(known, default=None),
            draft_passes=sum(each.draft_passes for each in stats) / tokens if stats else None,
            assistant_passes=sum(each.assistant_passes for each in stats) / tokens if stats else None,
        )

    @property
    def _tokens(self) -> int:
        return sum(clock.tokens for clock in self.clocks) // len(self.seconds)


@without_prefix_caches()  # generate has none
def bench(
    decoder: CoSDDecoder,
    prompts: Sequence[str],
    *,
    repeats: int = 5,
    max_new_tokens: int = 64,
    batch_sizes: Sequence[int] = (8,),
    prompt_tokens: Sequence[int] = (),
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
        batch_sizes: For the rows that decode several prompts at once.
        prompt_tokens: Lengths in the draft's tokens: the methods are timed at each of them, on as many
            prompts, which the given ones are repeated for. Empty: the prompts as they are.
        progress: Called with the name of each method before it runs.

    Raises:
        InvalidOptionError: The draft's backend has no ``generate`` to compare with.
        ContextOverflowError: A length does not fit the models.
    """
    methods = list(_methods(decoder, max_new_tokens, batch_sizes))
    found: list[Measurement] = []
    for length in prompt_tokens or (None,):
        texts = prompts if length is None else _of_length(decoder, prompts, length)
        for each in methods:
            each.forget()
        for repeat in range(-1, repeats):
            for each in methods:
                progress(each.name if length is None else f"{each.name}, {length} tokens")
                each.measure(texts)
            if repeat < 0:
                for each in methods:
                    each.forget()
        mean = round(statistics.mean(len(decoder.draft.encode(text)) for text in texts))
        found += [each.measurement(mean, methods[0]) for each in methods]
    return found


def _of_length(decoder: CoSDDecoder, prompts: Sequence[str], length: int) -> list[str]:
    """Texts of about so many of the draft's tokens, each of which begins with another prompt."""
    texts = []
    for at in range(len(prompts)):
        ids: list[int] = []
        while len(ids) < length:
            ids += decoder.draft.encode("\n".join([*prompts[at:], *prompts[:at], ""]))
        texts.append(decoder.draft.decode(ids[:length]))
    return texts


def _methods(decoder: CoSDDecoder, max_new_tokens: int, batch_sizes: Sequence[int]) -> Iterator[_Method]:
    """All methods; the first is the one that the others are compared with."""
    name, length = decoder.verifier.name, decoder.draft_length

    def fused(label: str, *, batch_size: int = 1, **parts: Any) -> _Method:
        unchanged = ("verifier", "schedule", "draft_length", "calibration", "lookup", "prefill_chunk_size")
        settings = {name: getattr(decoder, name) for name in unchanged} | {"batch_size": batch_size}
        other = CoSDDecoder(decoder.draft, decoder.assistants, **{**settings, **parts})

        def run(prompts: list[str], clock: _Clock) -> list[Stats]:
            stats = []
            for step in other.steps(prompts, max_new_tokens=max_new_tokens):
                clock.written(step.index, len(step.tokens))
                if step.generation:
                    stats.append(step.generation.stats)
            return stats

        return _Method(label, batch_size, run)

    for other, generate in baselines(decoder):
        yield _Method(other, 1, _one_by_one(generate, max_new_tokens))
    yield fused(f"{name}, {decoder.schedule.name}")
    for batch_size in batch_sizes:
        label = f"{name}, {decoder.schedule.name}, batches of {batch_size}"
        yield fused(label, batch_size=batch_size)
    yield fused(f"{name}, fixed, K = {length}", schedule="fixed")
    yield fused(
        f"{name}, fixed, K = {max_new_tokens} (the paper's)", schedule="fixed", draft_length=max_new_tokens
    )
    yield fused("draft", verifier="draft")
    yield fused("draft, lookup", verifier="draft", lookup=True)
    yield fused("assistant", verifier="assistant")
    if decoder.shares_vocabulary:
        yield fused("average", verifier="average")
    if decoder.shares_vocabulary and len(decoder.assistants) == 1:
        yield fused("speculative", verifier="speculative")


def _one_by_one(generate: Generate, max_new_tokens: int) -> _Run:
    def run(prompts: list[str], clock: _Clock) -> list[Stats]:
        for at, prompt in enumerate(prompts):
            generate(prompt, max_new_tokens, partial(clock.written, at))
        return []

    return run
