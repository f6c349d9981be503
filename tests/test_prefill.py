"""Claim: long prompts are read in chunks, between which other texts go on, and no text changes."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import (
    AnswerTimeoutError,
    CoSDDecoder,
    GenerationError,
    InvalidOptionError,
    LanguageModel,
    RuleVerifier,
)
from cosd_core.demo import load_pair
from cosd_core.generation import call
from tests.models import on_pass, random_model
from tests.reference import assert_agrees, write
from tests.test_sampling_invariance import ASSISTANT, DRAFT, SECOND

RULE = RuleVerifier(alpha=0.9, beta=0.3)
PROMPTS = ["x", "The quick brown fox jumps over the lazy dog. " * 2, "1 + 1 =", "Hello" * 12]
LENGTH, CHUNK = 2000, 64


@settings(deadline=None, max_examples=12)
@given(
    chunk=st.integers(1, 200),
    prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=4),
    schedule=st.sampled_from(["adaptive", "fixed"]),
    assistants=st.sampled_from([(ASSISTANT,), (ASSISTANT, SECOND)]),
)
def test_the_text_is_the_references_in_any_chunks(
    chunk: int, prompts: list[str], schedule: str, assistants: tuple[LanguageModel, ...]
) -> None:
    decoder = CoSDDecoder(
        DRAFT, assistants, verifier=RULE, schedule=schedule, prefill_chunk_size=chunk, batch_size=3
    )
    for found, prompt in zip(decoder.generate(prompts, max_new_tokens=10), prompts, strict=True):
        expected = write(DRAFT, assistants, RULE, prompt, max_new_tokens=10)
        assert_agrees(found, expected, asked=schedule == "fixed")


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_with_different_tokenizers_too(chunk: int) -> None:
    draft, _ = load_pair()
    prompts = ["capital of France?", "Name a colour, please, and then another one. " * 3]
    whole, parts = (
        CoSDDecoder(draft, random_model(seed=5), verifier=RULE, prefill_chunk_size=each)
        for each in (10_000, chunk)
    )
    texts = [each.generate(prompts, max_new_tokens=12) for each in (whole, parts)]
    assert [each.token_ids for each in texts[0]] == [each.token_ids for each in texts[1]]


def long_pair(**settings: Any) -> CoSDDecoder:
    models = [random_model(seed=seed, max_position_embeddings=4096) for seed in (1, 2)]
    return CoSDDecoder(*models, **{"verifier": RULE, "prefill_chunk_size": CHUNK, **settings})


@contextmanager
def fed(decoder: CoSDDecoder) -> Iterator[list[tuple[int, int]]]:
    """The shapes of what the models process: rows and ids per row of every pass."""
    shapes: list[tuple[int, int]] = []
    handles = [
        model.model.register_forward_pre_hook(
            lambda _, __, named: shapes.append(tuple(named["input_ids"].shape)), with_kwargs=True
        )
        for model in decoder.models
    ]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


OPTIONS: dict[str, Any] = {"max_new_tokens": 120, "eos_token_id": []}


async def run_beside(decoder: CoSDDecoder, *prompts: str, **options: Any) -> list[Any]:
    """The results of a short prompt, and of those that arrive when it is under way."""
    others: list[asyncio.Task[Any]] = []

    async def run(prompt: str) -> Any:
        return await decoder.agenerate(prompt, **(OPTIONS | options))

    result = None
    async with aclosing(decoder.asteps("x", **OPTIONS)) as steps:
        async for step in steps:
            others = others or [asyncio.create_task(run(prompt)) for prompt in prompts]
            result = step.generation
    return [result, *await asyncio.gather(*others, return_exceptions=True)]


async def test_a_text_goes_on_between_the_chunks_of_long_prompts() -> None:
    decoder = long_pair(draft_length=2, schedule="fixed")
    prompts = ["a" * LENGTH, "b" * LENGTH]
    alone = [decoder.generate(prompt, **OPTIONS) for prompt in ("x", *prompts)]
    with fed(decoder) as shapes:
        found = await run_beside(decoder, *prompts)
    assert [each.token_ids for each in found] == [each.token_ids for each in alone]
    assert max(rows * ids for rows, ids in shapes) <= CHUNK + 3, "a chunk, or one that a block follows"
    chunks = [ids >= CHUNK for _, ids in shapes]
    first, last = chunks.index(True), len(chunks) - chunks[::-1].index(True)
    during = chunks[first:last]
    assert sum(during) == 2 * 2 * (LENGTH // CHUNK), "two models read two prompts"
    together = sum(one and other for one, other in pairwise(during))
    assert together <= 4, "chunks follow one another when a text has ended, or its round took no pass"


async def test_rows_that_have_read_their_prompts_share_passes() -> None:
    decoder = long_pair()
    with fed(decoder) as shapes:
        found = await run_beside(decoder, "x" * 150, "y" * 150, "z" * 150)
    assert max(rows for rows, _ in shapes) == 4
    assert [each.token_ids for each in found[1:]] == [
        each.token_ids for each in long_pair().generate(["x" * 150, "y" * 150, "z" * 150], **OPTIONS)
    ]


async def test_rows_whose_assistants_never_run_share_passes() -> None:
    decoder = long_pair(verifier="draft")
    prompts = ["x" * 150, "y" * 150, "z" * 150]
    with fed(decoder) as shapes:
        await asyncio.gather(*(decoder.agenerate(prompt, **OPTIONS) for prompt in prompts))
    assert max(rows for rows, _ in shapes) == 3


def test_a_call_ends_at_its_timeout_while_its_prompt_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = long_pair()
    seconds = count()
    monkeypatch.setattr(call.time, "monotonic", lambda: float(next(seconds)))
    with fed(decoder) as shapes, pytest.raises(AnswerTimeoutError):
        decoder.generate("a" * LENGTH, timeout=5, **OPTIONS)
    assert len(shapes) < 10 < LENGTH / CHUNK


async def test_a_failure_or_an_end_while_a_prompt_is_read_touches_no_other() -> None:
    decoder = long_pair()
    alone = decoder.generate("x", **OPTIONS)

    def fail(_: int, output: Any) -> None:
        if output.logits.shape[0] == 1 and sizes[-1][1] == CHUNK and len(sizes) > 30:
            raise RuntimeError("lost")

    with fed(decoder) as sizes, on_pass(decoder.draft, fail):
        text, failed, ended = await run_beside(decoder, "a" * LENGTH, "b" * LENGTH, timeout=60)
    assert text.token_ids == alone.token_ids
    assert isinstance(failed, GenerationError)
    assert isinstance(ended, GenerationError)
    with fed(decoder) as shapes:
        task = asyncio.create_task(decoder.agenerate("c" * LENGTH, **OPTIONS))
        while not shapes:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (await decoder.agenerate("x", **OPTIONS)).token_ids == alone.token_ids
    assert sum(ids == CHUNK for _, ids in shapes) < LENGTH // CHUNK


def test_a_chunk_is_a_positive_number() -> None:
    with pytest.raises(InvalidOptionError, match="prefill_chunk_size=0"):
        CoSDDecoder(DRAFT, ASSISTANT, prefill_chunk_size=0)
