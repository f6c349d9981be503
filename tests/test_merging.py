"""Claim: requests that share batches get what each would get alone, whenever they join and whoever fails."""

import asyncio
import gc
import importlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from transformers import LogitsProcessor

from cosd_core import (
    AnswerTimeoutError,
    CoSDDecoder,
    Grammar,
    LanguageModel,
    LogitsProcessorError,
    OutOfMemoryError,
    OverloadedError,
    RuleVerifier,
)
from cosd_core.errors import ScheduleError, VerifierError
from cosd_core.generation.loop import Batch
from cosd_core.generation.row import Row
from cosd_core.generation.scheduling import Schedule, ScheduleState
from cosd_core.models.batched_session import BatchedSession
from cosd_core.outputs import Step
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.verifiers.types import Position, Replacement
from tests.grids import covering, every
from tests.joining import decode_joining
from tests.models import counted_passes, on_pass, random_model
from tests.reference import Written, assert_agrees, write
from tests.test_sampling_invariance import ASSISTANT, DRAFT, SECOND, SETTINGS, VERIFIERS

PATTERN = r"[a-z]{2,9}( [0-9]{1,4}){1,3}"
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("Hello", {"max_new_tokens": 22}),
    ("x", {"max_new_tokens": 9, "temperature": 1.0, "seed": 3}),
    ("The quick brown fox jumps over the lazy dog", {"max_new_tokens": 16, "temperature": 0.4, "seed": 3,
                                                    "repetition_penalty": 1.3}),
    ("1 + 1 =", {"max_new_tokens": 18, "temperature": 1.7, "top_k": 12, "seed": 1}),
    ("Hello", {"max_new_tokens": 14, "eos_token_id": list(range(60, 70)), "min_new_tokens": 4}),
    ("y", {"max_new_tokens": 20, "temperature": 1.0, "seed": 5, "top_p": 0.7, "stop": ("a", "q", "1")}),
    ("Name and numbers: ", {"max_new_tokens": 18, "temperature": 1.0, "seed": 2, "pattern": PATTERN}),
    ("Once upon a time, " * 3, {"max_new_tokens": 1}),
    ("x", {"max_new_tokens": 12, "temperature": 1.0, "seed": 4, "min_p": 0.05, "pattern": r"[a-f]{3,30}"}),
]  # fmt: skip


def asked(options: dict[str, Any]) -> dict[str, Any]:
    """The same for the decoder, to whom a pattern is a grammar."""
    options = dict(options)
    pattern = options.pop("pattern", None)
    return options if pattern is None else options | {"grammar": Grammar.regex(pattern)}


@cache
def written(name: str, assistants: tuple[LanguageModel, ...] = (ASSISTANT,)) -> list[Written]:
    verifier, tree = VERIFIERS[name]
    return [write(DRAFT, assistants, verifier, prompt, tree=tree, **how) for prompt, how in REQUESTS]


@pytest.mark.parametrize(("name", "seed"), covering(product(VERIFIERS, range(2 * len(SETTINGS)))))
def test_requests_that_join_at_any_round_get_the_references_texts(name: str, seed: int) -> None:
    assert_joining_agree(name, seed, (ASSISTANT,))


@pytest.mark.parametrize(
    ("name", "seed"), covering(product(["rule", "tree", "average"], range(len(SETTINGS))))
)
def test_with_two_assistants_too(name: str, seed: int) -> None:
    assert_joining_agree(name, seed, (ASSISTANT, SECOND))


def assert_joining_agree(name: str, seed: int, assistants: tuple[LanguageModel, ...]) -> None:
    setting = SETTINGS[seed % len(SETTINGS)]
    decoder = CoSDDecoder(DRAFT, assistants, verifier=VERIFIERS[name][0], **setting)
    requests = [(prompt, asked(options)) for prompt, options in REQUESTS]
    joining = decode_joining(decoder, requests, seed=seed)
    for generation, each in zip(joining, written(name, assistants), strict=True):
        assert_agrees(generation, each, asked=setting["schedule"] == "fixed")


async def join_one_by_one(decoder: CoSDDecoder, calls: list[tuple[Any, dict[str, Any]]]) -> list[Any]:
    """Start a task at every few steps of those that run; their results or exceptions."""
    tasks: list[asyncio.Task[Any]] = []
    news = asyncio.Semaphore(0)

    async def work(prompts: Any, options: dict[str, Any]) -> Any:
        finished = {}
        try:
            async with aclosing(decoder.asteps(prompts, **options)) as steps:
                async for step in steps:
                    news.release()
                    if step.generation:
                        finished[step.index] = step.generation
        finally:
            news.release()
        return [finished[at] for at in sorted(finished)]

    for prompts, options in calls:
        tasks.append(asyncio.create_task(work(prompts, options)))
        await news.acquire()
    return await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(("name", "batch_size"), covering(product(VERIFIERS, [1, 3, 32])))
async def test_tasks_that_join_get_the_references_texts(name: str, batch_size: int) -> None:
    decoder = CoSDDecoder(DRAFT, ASSISTANT, verifier=VERIFIERS[name][0], batch_size=batch_size)
    results = await join_one_by_one(decoder, [(prompt, asked(options)) for prompt, options in REQUESTS])
    for [generation], each in zip(results, written(name), strict=True):
        assert_agrees(generation, each, asked=False)


# How many passes that takes

PROMPTS = [f"prompt {number:02}" for number in range(12)]
LONG: dict[str, Any] = {"max_new_tokens": 60, "eos_token_id": []}


@pytest.fixture(scope="module")
def decoder() -> CoSDDecoder:
    return CoSDDecoder(DRAFT, ASSISTANT, schedule="fixed", draft_length=4)


@cache
def ids_alone(prompt: str, **sampling: float) -> tuple[int, ...]:
    """The ids that a decoder with the fixture's settings writes, with the options ``LONG`` and these."""
    decoder = CoSDDecoder(DRAFT, ASSISTANT, schedule="fixed", draft_length=4)
    return decoder.generate(prompt, **LONG, **sampling).token_ids


@contextmanager
def most_rows(*models: LanguageModel) -> Iterator[list[int]]:
    """The number of rows of every pass."""
    log: list[int] = []
    handles = [
        model.model.register_forward_hook(lambda _m, _a, output: log.append(output.logits.shape[0]))
        for model in models
    ]
    try:
        yield log
    finally:
        for handle in handles:
            handle.remove()


async def test_twelve_calls_at_once_take_the_passes_of_one_batch(decoder: CoSDDecoder) -> None:
    with counted_passes(*decoder.models) as passes:
        batch = await decoder.agenerate(PROMPTS, **LONG)
        of_one_batch = len(passes)
        passes.clear()
        calls = await asyncio.gather(*(decoder.agenerate(prompt, **LONG) for prompt in PROMPTS))
    assert [each.token_ids for each in calls] == [each.token_ids for each in batch]
    assert len(passes) <= 1.3 * of_one_batch


async def test_a_call_of_more_prompts_than_a_batch_holds_shares_its_rest(draft, assistant) -> None:
    decoder = CoSDDecoder(draft, assistant, batch_size=3)
    calls = [(PROMPTS[:count], LONG) for count in (4, 1, 2, 7, 1)]
    alone = [[each.token_ids for each in decoder.generate(prompts, **LONG)] for prompts, _ in calls]
    with most_rows(*decoder.models) as rows:
        results = await join_one_by_one(decoder, calls)
    assert [[each.token_ids for each in result] for result in results] == alone
    assert max(rows) == 3
    assert sum(rows) / len(rows) > 2, "they should share"


async def test_models_that_cannot_be_batched_take_turns() -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10_000.0}
    decoder = CoSDDecoder(*(random_model(seed=seed, rope_parameters=rope) for seed in (0, 1)), draft_length=4)
    assert decoder.batch_size == 1
    options = {"max_new_tokens": 30, "eos_token_id": []}
    alone = [decoder.generate(prompt, **options).token_ids for prompt in PROMPTS[:4]]
    order: list[str] = []

    async def work(prompt: str) -> tuple[int, ...]:
        async for chunk in decoder.astream(prompt, **options):
            order.append(prompt)
            last = chunk
        return last.generation.token_ids

    with most_rows(*decoder.models) as rows:
        assert await asyncio.gather(*map(work, PROMPTS[:4])) == alone
    assert set(rows) == {1}
    assert order != sorted(order), "they should take turns"


async def test_a_batch_that_never_empties_does_not_grow_wider_than_its_rows(draft, assistant) -> None:
    decoder = CoSDDecoder(draft, assistant, verifier="draft", draft_length=4)
    widths: list[int] = []

    def measure(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        widths.append(named["past_key_values"].get_seq_length())

    handle = draft.model.register_forward_pre_hook(measure, with_kwargs=True)
    try:
        calls = [("a", {"max_new_tokens": 12 + at % 5, "eos_token_id": []}) for at in range(30)]
        await join_one_by_one(decoder, calls)
    finally:
        handle.remove()
    assert max(widths) <= 1 + 16


def test_tasks_of_several_event_loops_share_a_decoder(decoder: CoSDDecoder) -> None:
    alone = [ids_alone(prompt) for prompt in PROMPTS]
    results: dict[int, list[Any]] = {}
    barrier = threading.Barrier(3)

    def work(at: int) -> None:
        async def calls() -> list[Any]:
            barrier.wait(30)
            return await asyncio.gather(*(decoder.agenerate(prompt, **LONG) for prompt in PROMPTS[at::3]))

        results[at] = asyncio.run(calls())

    threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
    with counted_passes(*decoder.models) as passes:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for at in range(3):
        assert [each.token_ids for each in results[at]] == alone[at::3]
    assert len(passes) < 12 * 60 / 2, "they should share"


def test_an_event_loop_that_was_closed_stops_its_calls_and_no_others(decoder: CoSDDecoder) -> None:
    loop = asyncio.new_event_loop()
    left = decoder.astream("a", max_new_tokens=200, eos_token_id=[])
    loop.run_until_complete(anext(left))
    loop.close()
    assert asyncio.run(decoder.agenerate("b", **LONG)).token_ids == ids_alone("b")
    assert not decoder._engine._driver._calls


# Leaving


@pytest.mark.parametrize("gone", every(3, [0, 2, 4]))
async def test_who_leaves_a_shared_batch_does_not_disturb_it(decoder: CoSDDecoder, gone: int) -> None:
    alone = [ids_alone(prompt) for prompt in PROMPTS[:5]]

    async def leave() -> None:
        async for _ in decoder.astream(PROMPTS[gone], **LONG):
            pass

    tasks = [
        asyncio.create_task(leave() if at == gone else decoder.agenerate(PROMPTS[at], **LONG))
        for at in range(5)
    ]
    with most_rows(decoder.draft) as rows:
        async with asyncio.timeout(60):
            while 5 not in rows:
                await asyncio.sleep(0.001)
        tasks[gone].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(gone), asyncio.CancelledError)
    assert [each.token_ids for each in results] == alone[:gone] + alone[gone + 1 :]
    together = rows[rows.index(5) :]
    assert 4 in together, "the others should go on together"
    assert 5 not in together[together.index(4) :]


# Failing


class Fails(LogitsProcessor):
    """Raises once the text has so many tokens."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] >= self.length:
            raise ValueError("mine alone")
        return scores


@pytest.mark.parametrize("temperature", every(2, [0.0, 1.0]))
async def test_a_failing_processor_fails_its_own_call_only(decoder: CoSDDecoder, temperature: float) -> None:
    sampling = {"temperature": temperature, "seed": 3}
    calls = [(prompt, LONG | sampling) for prompt in PROMPTS]
    bad = (2, 7)
    for at in bad:
        calls[at][1]["logits_processor"] = [Fails(len(PROMPTS[at]) + 20 + at)]
    results = await join_one_by_one(decoder, calls)
    for at, result in enumerate(results):
        if at in bad:
            assert isinstance(result, LogitsProcessorError)
            assert "Fails raised ValueError: mine alone" in str(result)
        else:
            [generation] = result
            assert generation.token_ids == ids_alone(PROMPTS[at], **sampling)


async def test_what_a_failing_call_was_told_before_is_the_beginning_of_its_text(decoder: CoSDDecoder) -> None:
    expected = decoder.generate(PROMPTS[0], **LONG).text
    text, others = "", [asyncio.create_task(decoder.agenerate(each, **LONG)) for each in PROMPTS[1:4]]
    with pytest.raises(LogitsProcessorError):  # noqa: PT012
        async for chunk in decoder.astream(PROMPTS[0], logits_processor=[Fails(30)], **LONG):
            text += chunk.text
    assert text
    assert expected.startswith(text)
    await asyncio.gather(*others)


@pytest.mark.parametrize("others", [0, 3])
async def test_a_failed_call_leaves_no_caches_and_needs_no_garbage_collection(
    decoder: CoSDDecoder, others: int
) -> None:
    def live_sessions() -> int:
        return sum(type(each) is BatchedSession for each in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = live_sessions()
        tasks = [asyncio.create_task(decoder.agenerate(prompt, **LONG)) for prompt in PROMPTS[:others]]
        with suppress(LogitsProcessorError):
            await decoder.agenerate("a", logits_processor=[Fails(20)], **LONG)
        await asyncio.gather(*tasks)
        await asyncio.get_running_loop().run_in_executor(decoder._engine._worker, lambda: None)
        assert live_sessions() <= before
        assert decoder._engine._driver._calls == {}
        assert decoder._engine._driver.is_idle
    finally:
        gc.enable()


async def test_a_failing_verifier_fails_only_calls_that_it_fails_alone(decoder: CoSDDecoder) -> None:
    alone = [decoder.generate(prompt, max_new_tokens=12) for prompt in PROMPTS]
    judged = [{token.draft_id for token in each.tokens} for each in alone]
    hated = next(token for token in set().union(*judged) if 2 < sum(token in ids for ids in judged) < 6)

    class Moody(RuleVerifier):
        def judge(self, position: Position) -> Replacement | None:
            if position.draft.id == hated:
                raise ArithmeticError("not that one")
            return super().judge(position)

    moody = CoSDDecoder(DRAFT, ASSISTANT, verifier=Moody(), schedule="fixed", draft_length=4)
    results = await join_one_by_one(moody, [(prompt, {"max_new_tokens": 12}) for prompt in PROMPTS])
    for result, expected, ids in zip(results, alone, judged, strict=True):
        if hated in ids:
            assert type(result) is VerifierError
            assert type(result.__cause__) is ArithmeticError
            assert str(result.__cause__) == "not that one"
        else:
            assert [each.token_ids for each in result] == [expected.token_ids]


@pytest.mark.parametrize("role", every(2, [0, 1]))
async def test_a_batch_that_is_too_large_for_the_memory_goes_on_in_parts(
    decoder: CoSDDecoder, role: int
) -> None:
    decoder = CoSDDecoder(*decoder.models, schedule="fixed", draft_length=4)
    alone = [ids_alone(prompt) for prompt in PROMPTS]
    failures = 0

    def act(_number: int, output: Any) -> None:
        nonlocal failures
        if output.logits.shape[0] > 3:
            failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory")

    with on_pass(decoder.models[role], act):
        results = await join_one_by_one(decoder, [(prompt, LONG) for prompt in PROMPTS])
        assert [each.token_ids for [each] in results] == alone
        assert 1 <= failures <= 12, "batches should stay smaller for a while"
        asynchronous = await decoder.agenerate(PROMPTS[:4], **LONG)
        assert [each.token_ids for each in asynchronous] == alone[:4]
        assert [each.token_ids for each in decoder.generate(PROMPTS[:4], **LONG)] == alone[:4]
    for result in results:
        stats = result[0].stats
        assert stats.drafted == stats.draft_passes == stats.kept + stats.replaced + stats.discarded


async def test_halves_of_a_batch_without_memory_go_on_one_after_another(decoder: CoSDDecoder) -> None:
    """They would need as much memory together as the batch did."""
    decoder = CoSDDecoder(*decoder.models, schedule="fixed", draft_length=4)
    alone = [ids_alone(prompt) for prompt in PROMPTS[:8]]
    driver = decoder._engine._driver
    others: list[int] = []

    def act(_number: int, output: Any) -> None:
        if driver._postponed:
            others.append(len(driver._batches))  # the batch that runs is not among them
        if output.logits.shape[0] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with on_pass(decoder.draft, act):
        results = await asyncio.gather(*(decoder.agenerate(prompt, **LONG) for prompt in PROMPTS[:8]))
    assert [each.token_ids for each in results] == alone
    assert set(others) == {0}


def test_memory_that_is_missing_after_the_last_token_costs_no_text(
    decoder: CoSDDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = decoder.generate(PROMPTS[:2], **LONG)

    def remove(batch: Batch, rows: Sequence[Row]) -> None:
        if rows and len(rows) == len(batch.rows):
            raise MemoryError
        remove_rows(batch, rows)

    remove_rows = Batch.remove
    monkeypatch.setattr(Batch, "remove", remove)
    found = decoder.generate(PROMPTS[:2], **LONG)
    assert [each.token_ids for each in found] == [each.token_ids for each in expected]


@pytest.mark.parametrize(
    "error", every(2, [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
)
async def test_a_prompt_that_does_not_fit_alone_fails_alone(
    decoder: CoSDDecoder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Memory can also run out between the passes, where predictions are made."""
    decoder = CoSDDecoder(*decoder.models, schedule="fixed", draft_length=4)
    prompts = [*PROMPTS[:5], "far too long " * 6, *PROMPTS[5:8]]
    alone = [ids_alone(prompt) for prompt in prompts]

    def predict(logits: torch.Tensor, positions: Sequence[SamplingPosition], *more: Any, **named: Any) -> Any:
        if any(position.prompt_length > 60 for position in positions):
            raise error
        return sampling.predict(logits, positions, *more, **named)

    sampling = importlib.import_module("cosd_core.sampling.predict")
    monkeypatch.setattr("cosd_core.models.logits_session.predict", predict)
    results = await join_one_by_one(decoder, [(prompt, LONG) for prompt in prompts])
    for prompt, result, expected in zip(prompts, results, alone, strict=True):
        if prompt in PROMPTS:
            assert [each.token_ids for each in result] == [expected]
        else:
            assert isinstance(result, OutOfMemoryError)
            assert "tokens do not fit into the memory, even alone" in str(result)
    assert [each.token_ids for each in decoder.generate(PROMPTS[:3], **LONG)] == alone[:3]


async def test_at_most_so_many_prompts_are_decoded_at_once(decoder: CoSDDecoder) -> None:
    decoder = CoSDDecoder(*decoder.models, draft_length=4, max_concurrent=3, max_waiting=100)
    alone = [decoder.generate(prompt, **LONG).token_ids for prompt in PROMPTS]
    under_way: list[int] = []
    run_round = decoder._engine._driver.run_round
    decoder._engine._driver.run_round = lambda: (  # type: ignore[method-assign]
        under_way.append(len(decoder._engine._driver._calls)), run_round()
    )  # fmt: skip
    order: list[int] = []

    async def call(at: int) -> Any:
        generation = await decoder.agenerate(PROMPTS[at], **LONG)
        order.append(at)
        return generation.token_ids

    assert await asyncio.gather(*map(call, range(len(PROMPTS)))) == alone
    assert max(under_way) == 3
    assert all(place - 3 <= at for place, at in enumerate(order)), (
        "they begin in the order in which they came"
    )


async def test_a_call_too_many_fails_at_once_and_a_cancelled_one_makes_room(decoder: CoSDDecoder) -> None:
    decoder = CoSDDecoder(*decoder.models, max_concurrent=1, max_waiting=2)
    release = threading.Event()
    decoder._engine._worker.submit(release.wait, 30)
    tasks = [asyncio.create_task(decoder.agenerate(PROMPTS[0], **LONG)) for _ in range(5)]
    await asyncio.sleep(0.05)
    tasks[1].cancel()  # so the fourth may wait
    with suppress(asyncio.CancelledError):
        await tasks[1]
    release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [isinstance(each, OverloadedError) for each in results]
    assert refused == [False, False, False, False, True]
    assert "2 calls wait for this decoder already (max_waiting)" in str(results[-1])
    assert (await decoder.agenerate(PROMPTS[0], **LONG)).text == results[0].text


async def test_a_call_that_waits_fails_at_its_deadline(decoder: CoSDDecoder) -> None:
    decoder = CoSDDecoder(*decoder.models, max_concurrent=1)
    first = asyncio.create_task(decoder.agenerate(PROMPTS[0], max_new_tokens=60, eos_token_id=[]))
    with pytest.raises(AnswerTimeoutError):
        await decoder.agenerate(PROMPTS[1], timeout=1e-3, **LONG)
    assert (await first).text


@pytest.mark.parametrize("schedule", every(2, ["adaptive", "fixed"]))
async def test_deterministic_calls_take_the_same_passes_alone_and_together(schedule: str) -> None:
    """In bfloat16 the logits depend on the shape of a pass."""
    models = [random_model(seed=seed, dtype=torch.bfloat16) for seed in (0, 1)]
    decoder = CoSDDecoder(*models, schedule=schedule, deterministic=True)
    passes: list[tuple[int, ...]] = []
    for model in models:
        model.model.register_forward_pre_hook(
            lambda _module, _inputs, named: passes.append(tuple(named["input_ids"].shape)), with_kwargs=True
        )
    options = {"max_new_tokens": 20, "temperature": 1.0, "seed": 5}
    alone = [decoder.generate(prompt, **options).token_ids for prompt in PROMPTS]
    shapes = Counter(passes)
    for _ in range(3):
        passes.clear()
        together = await asyncio.gather(*(decoder.agenerate(prompt, **options) for prompt in PROMPTS))
        assert [each.token_ids for each in together] == alone
        assert Counter(passes) == shapes
    passes.clear()
    assert [each.token_ids for each in decoder.generate(PROMPTS, **options)] == alone
    assert Counter(passes) == shapes
    assert {rows for rows, _ in shapes} == {1}


async def test_a_failing_driver_leaves_no_call_waiting(decoder: CoSDDecoder) -> None:
    decoder = CoSDDecoder(*decoder.models, max_concurrent=1)

    def fail() -> None:
        raise SystemError("the driver is broken")

    decoder._engine._driver.run_round = fail  # type: ignore[method-assign]
    calls = (decoder.agenerate(prompt, **LONG) for prompt in PROMPTS[:3])
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in results] == [SystemError] * 3
    del decoder._engine._driver.run_round
    assert (await decoder.agenerate(PROMPTS[0], **LONG)).text


async def test_after_a_failure_calls_finish_alone_and_later_ones_share_again(decoder: CoSDDecoder) -> None:
    async def rows_of_passes(*others: dict[str, Any]) -> list[int]:
        calls = [(f"p{at:02}", LONG) for at in range(8 - len(others))] + [("p99", each) for each in others]
        with most_rows(*decoder.models) as rows:
            tasks = (decoder.agenerate(prompt, **options) for prompt, options in calls)
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, LogitsProcessorError) for each in results) == len(others)
        return rows

    failing = await rows_of_passes(LONG | {"logits_processor": [Fails(12)]})
    assert max(failing) == 8
    assert set(failing[len(failing) // 2 :]) == {1}
    assert max(await rows_of_passes()) == 8
    assert not decoder._engine._driver._isolated


async def test_a_failure_that_was_nobodys_fails_nobody(decoder: CoSDDecoder) -> None:
    decoder = CoSDDecoder(*decoder.models, schedule="fixed", draft_length=4)
    alone = [ids_alone(prompt) for prompt in PROMPTS[:4]]
    failed = False

    def act(_number: int, output: Any) -> None:
        nonlocal failed
        if output.logits.shape[0] == 4 and not failed:
            failed = True
            raise RuntimeError("once")

    with on_pass(decoder.draft, act):
        results = await asyncio.gather(*(decoder.agenerate(prompt, **LONG) for prompt in PROMPTS[:4]))
    assert failed
    assert [each.token_ids for each in results] == alone


def test_plain_calls_of_several_prompts_follow_the_same_rules(draft, assistant) -> None:
    """A list is one call: it shares batches of ``batch_size``, and fails as a whole."""
    decoder = CoSDDecoder(draft, assistant, batch_size=3)
    with most_rows(*decoder.models) as rows:
        results = decoder.generate(PROMPTS[:7], **LONG)
    assert max(rows) == 3
    assert [each.token_ids for each in results] == [
        decoder.generate(prompt, **LONG).token_ids for prompt in PROMPTS[:7]
    ]
    with pytest.raises(LogitsProcessorError):
        decoder.generate(PROMPTS[:2], logits_processor=[Fails(12)], **LONG)


# Lengths


async def test_a_call_much_longer_than_others_is_decoded_beside_them() -> None:
    decoder = CoSDDecoder(*(random_model(seed=seed, max_position_embeddings=4096) for seed in (0, 1)))
    prompts = [f"short {at}" for at in range(8)] + ["x" * 3000] + [f"short {at}" for at in range(8)]
    options = {"max_new_tokens": 12, "eos_token_id": []}
    alone = [decoder.generate(prompt, **options).token_ids for prompt in prompts]
    slots: list[int] = []

    def measure(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        rows, fed = named["input_ids"].shape
        slots.append(rows * (fed + named["past_key_values"].get_seq_length()))

    handles = [each.model.register_forward_pre_hook(measure, with_kwargs=True) for each in decoder.models]
    try:
        with most_rows(*decoder.models) as rows:
            calls = await asyncio.gather(*(decoder.agenerate(prompt, **options) for prompt in prompts))
    finally:
        for handle in handles:
            handle.remove()
    assert [each.token_ids for each in calls] == alone
    assert max(slots) < 2.5 * 3000
    assert max(rows) == 16, "the short ones should share"


def test_newcomers_of_one_round_are_of_like_length() -> None:
    models = (random_model(seed=seed, max_position_embeddings=4096) for seed in (0, 1))
    decoder = CoSDDecoder(*models, prefill_chunk_size=4096)

    def rows(length: int, count: int) -> list[Any]:
        [group] = decoder._groups(["x" * length] * count, {"max_new_tokens": 12, "eos_token_id": []})
        return list(group)

    batch = decoder._open_batch(rows(1000, 3))
    assert not batch.can_join(rows(5, 8))
    batch.round()
    assert batch.can_join(rows(5, 1))
    assert batch.can_join(rows(1000, 1))
    batch.add(rows(5, 2))
    assert not batch.can_join(rows(1000, 1)), "five rows of 1000 would do, but not three to be read"
    batch.round()
    assert batch.can_join(rows(1000, 1))


# Schedules of users


class Faulty(Schedule):
    """Fails at some call of ``start`` or ``begin_round``, or where the ``step``-th record arrives."""

    name = "faulty"
    lazy = False

    def __init__(self, **fails_at: int) -> None:
        self.fails_at = fails_at
        self.counts = Counter[str]()

    def count(self, what: str) -> None:
        self.counts[what] += 1
        if self.counts[what] == self.fails_at.get(what):
            raise ArithmeticError(f"a bug in {what}")

    def start(self, _rows: int, _can_replace: Any) -> ScheduleState:
        self.count("start")
        return _FaultyState(self)


class _FaultyState(ScheduleState):
    def __init__(self, schedule: Faulty) -> None:
        self.schedule = schedule

    def should_draft(self, _doubts: Any) -> bool:
        return True

    def begin_round(self, _rows: int, joined: int, steps: Sequence[Step]) -> None:
        for _ in steps:
            self.schedule.count("step")
        for _ in range(joined):
            self.schedule.count("joined")


@pytest.mark.parametrize(
    ("fails_at", "failures"),
    [
        ({"step": 5}, 0), ({"step": 6}, 0), ({"joined": 2}, 0), ({"start": 1}, 1),
        ({"step": 7, "start": 2}, 1), ({"step": 7, "start": 3}, 1), ({"joined": 2, "start": 3}, 1),
    ],
)  # fmt: skip
async def test_a_schedule_that_raises_loses_no_text_and_leaves_nobody_waiting(
    fails_at: dict[str, int], failures: int
) -> None:
    decoder = CoSDDecoder(DRAFT, ASSISTANT, schedule=Faulty(**fails_at), draft_length=4)

    async def text(prompt: str) -> bool:
        chunks = [chunk async for chunk in decoder.astream(prompt, max_new_tokens=40, eos_token_id=[])]
        return "".join(chunk.text for chunk in chunks) == chunks[-1].generation.text

    async with asyncio.timeout(20):
        results = await asyncio.gather(*map(text, PROMPTS[:3]), return_exceptions=True)
    assert results.count(True) == 3 - failures
    failed = [each.__cause__ for each in results if isinstance(each, ScheduleError)]
    assert [type(each) for each in failed] == [ArithmeticError] * failures
    engine = decoder._engine
    await asyncio.get_running_loop().run_in_executor(engine._worker, lambda: None)
    assert engine._driver._calls == {}
    assert engine._driver.is_idle
    assert not engine._driver._isolated


def test_a_schedule_that_raises_loses_no_step_of_a_plain_stream() -> None:
    decoder = CoSDDecoder(DRAFT, ASSISTANT, schedule=Faulty(step=5), draft_length=4)
    told = []
    with pytest.raises(ScheduleError):  # noqa: PT012
        for step in decoder.steps(PROMPTS[:2], max_new_tokens=40, eos_token_id=[]):
            told.append(step.index)
    assert told == [0, 1] * 3
