"""Mixed load with faults on one decoder: `python -m benchmarks.soak [--minutes 10]`.

Tasks and threads call the bundled chat pair at once: texts, chats and lists of them, greedy and sampled, with
grammars, stop strings and options of their own, whole or as streams, some cancelled or left half read. Some
calls bring a logits processor that raises, a prompt that does not fit, or a timeout that passes; some passes
of the draft run out of memory. Every answer is compared with that of the same request alone.

The exit status is 1 if an answer was another one, if a call failed that should not, or if the memory grew by
more than 1 MB per minute after the first fifth of the time.
"""

import argparse
import asyncio
import gc
import random
import sys
import threading
import time
from collections import Counter
from contextlib import aclosing, closing
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch
from transformers import LogitsProcessor

from cosd_core import Chat, CoSDDecoder, CoSDError, Grammar, LanguageModel, OutOfMemoryError, RuleVerifier
from examples.bundled_pairs import load_chat_pair

TASKS, THREADS = 24, 4
ALLOWED_GROWTH = 1.0  # MB per minute
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
QUESTIONS = ("How many people live in town {}?", "Call Anna at {} o'clock.", "Who is {} years old?", "{} {}")


class Refuses(LogitsProcessor):
    """Raises after a few tokens."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, or an error."""
        if input_ids.shape[1] % 7 == 0:
            raise ValueError("as planned")
        return scores


class RunsOutOfMemory:
    """A hook that lets one pass in two thousand fail."""

    def __init__(self) -> None:
        """Count passes."""
        self.passes = self.faults = 0

    def __call__(self, *_: Any) -> None:
        """Raise what torch raises."""
        self.passes += 1
        if self.passes % 2000 == 0:
            self.faults += 1
            raise RuntimeError("CUDA out of memory (as planned)")


def make_requests(count: int) -> list[tuple[Any, dict[str, Any]]]:
    """Prompts with their options, the same in every run."""
    numbers = random.Random(0)
    requests = []
    for number in range(count):
        question = numbers.choice(QUESTIONS).replace("{}", str(number)) * numbers.choice((1, 1, 1, 12))
        prompt: Any = question if number % 3 else Chat([{"role": "user", "content": question}])
        if number % 11 == 0:
            prompt = [question, f"{question} Why?", "Hello"]
        options: dict[str, Any] = {"max_new_tokens": numbers.choice((1, 8, 24, 64))}
        if number % 2:
            options |= {"temperature": 0.8, "seed": number, "top_p": numbers.choice((1.0, 0.9))}
        if number % 5 == 0:
            options |= {"stop": [" the", "\n"], "repetition_penalty": 1.1}
        if number % 7 == 0:
            options |= {"grammar": numbers.choice((SCHEMA, Grammar.regex("[a-z]{2,9} [0-9]{1,4}")))}
        requests.append((prompt, options))
    return requests


class Soak:
    """The load, and what came of it."""

    def __init__(self, seconds: float) -> None:
        """Load the pair and write every answer alone."""
        # Prefix caches that are always full, so that the memory does not grow with them.
        draft, assistant = (
            LanguageModel(each.model, each.tokenizer, name=each.name, prefix_cache_mb=4)
            for each in load_chat_pair()
        )
        self.requests = make_requests(150)
        alone = CoSDDecoder(draft, assistant, verifier=RuleVerifier(alpha=0.9))
        self.expected = [_texts(alone.generate(prompt, **options)) for prompt, options in self.requests]
        self.decoder = CoSDDecoder(draft, assistant, verifier=RuleVerifier(alpha=0.9))
        self.faults = RunsOutOfMemory()
        draft.model.register_forward_hook(self.faults)
        self.ends = time.monotonic() + seconds
        self.outcomes: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []

    def run(self) -> None:
        """Run the load to its end."""
        threads = [threading.Thread(target=self._call_from_thread, args=(seed,)) for seed in range(THREADS)]
        threads.append(threading.Thread(target=self._watch_memory))
        for thread in threads:
            thread.start()
        asyncio.run(self._call_from_tasks())
        for thread in threads:
            thread.join()

    async def _call_from_tasks(self) -> None:
        await asyncio.gather(*(self._call_from_task(random.Random(seed)) for seed in range(TASKS)))

    async def _call_from_task(self, numbers: random.Random) -> None:
        while time.monotonic() < self.ends:
            at, how = self._choose(numbers)
            prompt, options = self.requests[at]
            try:
                if how == "cancelled":
                    task = asyncio.ensure_future(self.decoder.agenerate(prompt, **options))
                    await asyncio.sleep(numbers.random() * 0.2)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    self.outcomes["cancelled"] += 1
                elif how == "left":
                    async with aclosing(self.decoder.astream(prompt, **options)) as stream:
                        async for _ in stream:
                            break
                    self.outcomes["left half read"] += 1
                elif how == "stream":
                    async with aclosing(self.decoder.astream(prompt, **options)) as stream:
                        finished = {each.index: each.generation async for each in stream if each.generation}
                    self._compare(at, [finished[number] for number in sorted(finished)])
                elif how == "whole":
                    self._compare(at, await self.decoder.agenerate(prompt, **options))
                else:
                    await self.decoder.agenerate(prompt, **{**options, **_fault(how)})
                    self.outcomes[f"{how}: ended before the fault"] += 1
            except CoSDError as error:
                self._count_error(how, error)

    def _call_from_thread(self, seed: int) -> None:
        numbers = random.Random(1000 + seed)
        while time.monotonic() < self.ends:
            at, how = self._choose(numbers)
            prompt, options = self.requests[at]
            share = seed % 2 == 0
            try:
                if how in ("cancelled", "left"):
                    with closing(self.decoder.stream(prompt, **options, share_batches=share)) as stream:
                        next(stream)
                    self.outcomes["left half read"] += 1
                elif how in ("stream", "whole"):
                    self._compare(at, self.decoder.generate(prompt, **options, share_batches=share))
                else:
                    self.decoder.generate(prompt, **{**options, **_fault(how)}, share_batches=share)
                    self.outcomes[f"{how}: ended before the fault"] += 1
            except CoSDError as error:
                self._count_error(how, error)

    def _choose(self, numbers: random.Random) -> tuple[int, str]:
        ways = ("whole", "stream", "cancelled", "left", "raises", "too long", "times out")
        how = numbers.choices(ways, weights=(6, 4, 4, 2, 1, 1, 1))[0]
        return numbers.randrange(len(self.requests)), how

    def _compare(self, at: int, result: Any) -> None:
        same = _texts(result) == self.expected[at]
        self.outcomes["as alone" if same else "ANOTHER ANSWER"] += 1

    def _count_error(self, how: str, error: CoSDError) -> None:
        # A pass that runs out of memory fails the call whose row is alone in it.
        planned = how in ("raises", "too long", "times out") or isinstance(error, OutOfMemoryError)
        self.outcomes[f"{'' if planned else 'UNPLANNED '}{type(error).__name__}"] += 1

    def _watch_memory(self) -> None:
        process, started = psutil.Process(), time.monotonic()
        while time.monotonic() < self.ends:
            time.sleep(2)
            gc.collect()
            self.memory.append((time.monotonic() - started, process.memory_info().rss / 1e6))


def _fault(how: str) -> dict[str, Any]:
    faults: dict[str, dict[str, Any]] = {
        "raises": {"logits_processor": [Refuses()]},
        "too long": {"max_new_tokens": 10**6},
        "times out": {"timeout": 0.001, "max_new_tokens": 64},
    }
    return faults[how]


def _texts(result: Any) -> list[tuple[int, ...]]:
    return [each.token_ids for each in (result if isinstance(result, list) else [result])]


def main() -> None:
    """Run, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    torch.set_num_threads(1)
    soak = Soak(minutes * 60)
    soak.run()
    for outcome, count in sorted(soak.outcomes.items()):
        print(f"{count:8,} {outcome}")
    print(f"{soak.faults.faults:8,} passes out of memory, of {soak.faults.passes:,}")
    late = np.array([each for each in soak.memory if each[0] > minutes * 12])
    slope = 60 * float(np.polyfit(late[:, 0], late[:, 1], 1)[0])
    peak = max(megabytes for _, megabytes in soak.memory)
    print(f"memory: {late[0, 1]:,.0f} MB, at most {peak:,.0f} MB; {slope:+.2f} MB per minute")
    wrong = any(outcome.startswith(("ANOTHER", "UNPLANNED")) for outcome in soak.outcomes)
    sys.exit(int(wrong or slope > ALLOWED_GROWTH))


if __name__ == "__main__":
    main()
