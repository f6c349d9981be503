"""Measures chats, in processor time on one thread: turns, streams, short answers, long prompts, many at once.

    python -m benchmarks.chats DRAFT ASSISTANT

The models are folders or names of transformers models, or GGUF files. Every turn is run with the prefix cache
and without; its text should be the same.
"""

import argparse
import asyncio
import time
from collections import Counter
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from benchmarks.real_tasks import make_tasks
from cosd_core import Chat, CoSDDecoder
from cosd_core.models.prefix_cache import free_prefix_caches

SENTENCE = (
    "The harbour office kept a list of every ship, its captain, its cargo and the weather of that day. "
)
TURNS = ("Who wrote it?", "Why did they keep it?", "What was on it last?")
STEPS = [
    f"Step {step}: the tool returned {step * 37} crates of tea and {step * 11} of cloth. Go on."
    for step in range(12)
]
SHORT = """Q: What is the capital of Italy?
A: Rome
Q: What is 10 - 2?
A: 8
Q: {}
A:"""
QUESTIONS = (
    "What is the capital of France?", "What is 12 + 30?", "What is the capital of Japan?", "What is 5 + 8?",
    "Which animal barks?", "What colour is grass?", "What is 90 - 45?", "Which planet do we live on?",
)  # fmt: skip
TOPICS = (
    "Explain in three sentences why the sky is blue.",
    "Write a short letter to a landlord about a broken window.",
    "What should I see in Rome in one day?",
    "Tell me a story about a fox and a raven.",
)

Message = dict[str, str]


def answer(decoder: CoSDDecoder, messages: list[Message], tokens: int) -> tuple[str, float, float]:
    """An answer, and the processor time to its first text and to its end."""
    started, first, text = time.process_time(), 0.0, ""
    for chunk in decoder.stream(Chat(messages), max_new_tokens=tokens):
        first = first or (time.process_time() - started if chunk.text else 0.0)
        text += chunk.text
    return text, first, time.process_time() - started


def conversation(
    decoder: CoSDDecoder, start: str, turns: tuple[str, ...] | list[str], tokens: int
) -> list[tuple[str, float, float]]:
    """The answers to some messages of a user, one after the other."""
    messages, answers = [], []
    for turn in (start, *turns):
        messages.append({"role": "user", "content": turn})
        answers.append(answer(decoder, messages, tokens))
        messages.append({"role": "assistant", "content": answers[-1][0]})
    return answers


def turns(cached: CoSDDecoder, plain: CoSDDecoder) -> None:
    """The next turns of a chat of 1,000 tokens, and an agent that takes twelve steps."""
    length = 1000 // len(cached.draft.encode(SENTENCE))
    start = SENTENCE * length + "What was it?"
    with_cache, without = (conversation(each, start, TURNS, 24) for each in (cached, plain))
    for turn, (one, other) in enumerate(zip(with_cache, without, strict=True), 1):
        print(
            f"turn {turn}: first text after {one[1]:.2f} s, without the cache {other[1]:.2f} s: "
            f"{other[1] / one[1]:.1f} times; the same text: {one[0] == other[0]}",
            flush=True,
        )
    start = SENTENCE * (length // 2) + "Use the tool twelve times."
    agents = [conversation(each, start, STEPS, 24) for each in (cached, plain)]
    sums = [sum(spent for _, _, spent in answers) for answers in agents]
    same = sum(one[0] == other[0] for one, other in zip(*agents, strict=True))
    print(
        f"an agent of 13 turns: {sums[0]:.1f} s, without the cache {sums[1]:.1f} s: "
        f"{sums[1] / sums[0]:.1f} times; {same} of 13 texts are the same",
        flush=True,
    )


def streams(draft: Any, assistant: Any) -> None:
    """How many tokens a chunk holds, and how many draft passes a token takes, also in short answers."""
    for verifier in ("draft", "rule", "assistant"):
        decoder = CoSDDecoder(draft, assistant, verifier=verifier)
        gaps, sizes, written = [], Counter[int](), []
        for question in TOPICS:
            ends = []
            for step in decoder.steps(Chat([{"role": "user", "content": question}]), max_new_tokens=64):
                sizes[len(step.tokens)] += 1
                ends.append(time.process_time())
                written += [step.generation.stats] if step.generation else []
            gaps += [after - before for before, after in pairwise(ends)]
        gaps.sort()
        short = [
            decoder.generate(SHORT.format(each), max_new_tokens=24, stop=["\n"]).stats for each in QUESTIONS
        ]
        tokens = sum(each.tokens for each in short)
        passes = sum(each.draft_passes for each in written) / sum(each.tokens for each in written)
        short_passes = sum(each.draft_passes for each in short) / tokens
        print(
            f"{verifier}: {passes:.2f} draft passes per token; "
            f"{sizes[1] / sizes.total():.0%} of {sizes.total()} chunks hold one token; "
            f"gaps: median {1000 * gaps[len(gaps) // 2]:.0f} ms, longest {1000 * gaps[-1]:.0f} ms; "
            f"answers of a line: {short_passes:.2f} draft passes per token",
            flush=True,
        )


async def arrival(decoder: CoSDDecoder) -> tuple[float, float]:
    """The median and the longest gap of a stream while a prompt of 3,000 tokens arrives."""
    long = Chat([{"role": "user", "content": SENTENCE * (3000 // len(decoder.draft.encode(SENTENCE)))}])
    ends, arrived = [time.process_time()], None
    stream = decoder.astream("Once upon a time", max_new_tokens=400, min_new_tokens=400)
    async with aclosing(stream) as chunks:
        async for _ in chunks:
            ends.append(time.process_time())
            if len(ends) == 20:
                arrived = asyncio.create_task(decoder.agenerate(long, max_new_tokens=8))
            if arrived and arrived.done():
                break
    gaps = sorted(after - before for before, after in pairwise(ends[1:]))
    return gaps[len(gaps) // 2], gaps[-1]


def arrivals(draft: Any, assistants: Any) -> None:
    """How long a stream waits for a long prompt that arrives, read in chunks and at once."""
    for chunk in (None, 10_000):
        decoder = CoSDDecoder(draft, assistants, prefill_chunk_size=chunk)
        median, longest = asyncio.run(arrival(decoder))
        print(
            f"prefill_chunk_size={decoder.prefill_chunk_size}: gaps of a stream while a prompt of 3,000 "
            f"tokens arrives: median {median:.2f} s, longest {longest:.2f} s",
            flush=True,
        )


def together(draft: Any, assistants: Any) -> None:
    """Sixteen chats one after the other, and at once."""
    chats = [Chat([{"role": "user", "content": f"Tell me about the number {n}."}]) for n in range(16)]
    decoder = CoSDDecoder(draft, assistants)
    options: dict[str, Any] = {"max_new_tokens": 48, "min_new_tokens": 48}

    async def all_at_once() -> None:
        await asyncio.gather(*(decoder.agenerate(chat, **options) for chat in chats))

    started = time.process_time()
    for chat in chats:
        decoder.generate(chat, **options)
    alone = time.process_time() - started
    started = time.process_time()
    asyncio.run(all_at_once())
    spent = time.process_time() - started
    print(f"16 chats: one by one {alone:.1f} s, at once {spent:.1f} s: {alone / spent:.1f} times", flush=True)


def questions(models: tuple[Any, ...]) -> None:
    """How many draft passes a token takes in answers of a line, to the first task of `real_tasks.py`."""
    _, task = next(iter(make_tasks(40)))
    prompts = [item.prompt for item in task.items]
    for draft, assistant in (models, models[::-1]):
        for verifier in ("draft", "rule", "assistant"):
            decoder = CoSDDecoder(draft, assistant, verifier=verifier)
            found = decoder.generate(prompts, max_new_tokens=28, stop=["\n"])
            passes = sum(each.stats.draft_passes for each in found) / sum(each.stats.tokens for each in found)
            print(f"{len(prompts)} questions, {draft.name} drafts, {verifier}: {passes:.2f}", flush=True)


def documents(cached: CoSDDecoder, plain: CoSDDecoder) -> None:
    """Eight questions about one document of 1,000 tokens, as a list and as calls at the same time."""
    document = SENTENCE * (1000 // len(cached.draft.encode(SENTENCE)))
    chats = [Chat([{"role": "user", "content": f"{document}\n{question}"}]) for question in QUESTIONS]

    async def at_once(decoder: CoSDDecoder) -> list[str]:
        calls = [decoder.agenerate(chat, max_new_tokens=16) for chat in chats]
        return [each.text for each in await asyncio.gather(*calls)]

    for name in ("a list", "calls at once"):
        spent, texts = [], []
        for decoder in (cached, plain):
            free_prefix_caches()
            started = time.process_time()
            if name == "a list":
                texts.append([each.text for each in decoder.generate(chats, max_new_tokens=16)])
            else:
                texts.append(asyncio.run(at_once(decoder)))
            spent.append(time.process_time() - started)
        print(
            f"8 questions about one document, {name}: {spent[0]:.1f} s, without the prefix cache "
            f"{spent[1]:.1f} s: {spent[1] / spent[0]:.1f} times; the same texts: {texts[0] == texts[1]}",
            flush=True,
        )


def prompts(draft: str, assistant: str, options: dict[str, Any]) -> None:
    """Read 1,000 prompts, and print the memory of the prefix caches, limited to 32 MB, and of the process."""
    limit, process, sizes = 32, psutil.Process(), []
    decoder = CoSDDecoder.from_pretrained(
        draft, assistant, verifier="assistant", prefix_cache_mb=limit, **options
    )
    for number in range(1, 1001):
        decoder.generate(f"{number * 7919} ships. {SENTENCE}", max_new_tokens=1)
        sizes += [prefixes.nbytes for each in decoder.models if (prefixes := getattr(each, "prefixes", None))]
        if number in (100, 1000):
            print(
                f"after {number} prompts: a cache held at most {max(sizes) / 2**20:.1f} of {limit} MB, the "
                f"process {process.memory_info().rss / 2**20:.0f} MB",
                flush=True,
            )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("draft")
    parser.add_argument("assistant")
    parser.add_argument(
        "--parts",
        nargs="*",
        choices=["streams", "arrivals", "together", "turns", "documents", "questions", "prompts"],
        help="all if not given",
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    options: dict[str, Any] = {"n_threads": 1} if given.draft.endswith(".gguf") else {"dtype": "float32"}
    cached, plain = (
        CoSDDecoder.from_pretrained(given.draft, given.assistant, prefix_cache_mb=size, **options)
        for size in (512, 0)
    )
    parts = {
        "streams": lambda: streams(plain.draft, plain.assistants),
        "arrivals": lambda: arrivals(plain.draft, plain.assistants),
        "together": lambda: together(plain.draft, plain.assistants),
        "turns": lambda: turns(cached, plain),
        "documents": lambda: documents(cached, plain),
        "questions": lambda: questions(cached.models),
        "prompts": lambda: prompts(given.draft, given.assistant, options),
    }
    for part in given.parts or parts:
        parts[part]()


if __name__ == "__main__":
    main()
