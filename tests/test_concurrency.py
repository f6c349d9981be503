"""One decoder serves many threads and tasks at once, stops when it is told to, and leaves nothing behind."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from random import Random
from typing import Any

import pytest
import torch

from cosd_core import CoSDDecoder, Generation, LanguageModel
from cosd_core.models.batched_session import BatchedSession
from tests.grids import but_for
from tests.models import counted_passes, random_model

PROMPTS = ["The capital", "é😀", "x = 1\n", "Once upon a time", "a", ["b", "c", "d"], [1, 2, 3], "z" * 30]
REQUESTS: list[tuple[Any, dict[str, Any]]] = [
    (prompt, {"max_new_tokens": 8 + 5 * at, "temperature": at % 3 / 2, "seed": at})
    for at, prompt in enumerate(PROMPTS * 2)
]
LONG = {"max_new_tokens": 200}


@pytest.fixture(scope="module")
def decoder(draft: LanguageModel, assistant: LanguageModel) -> CoSDDecoder:
    return CoSDDecoder(draft, assistant, draft_length=4)


@pytest.fixture(scope="module")
def answers(decoder: CoSDDecoder) -> list[Any]:
    """What every request gives when it runs alone."""
    return [ids(decoder.generate(prompt, **options)) for prompt, options in REQUESTS]


@pytest.fixture
def passes(draft: LanguageModel, assistant: LanguageModel) -> Iterator[list[str]]:
    with counted_passes(draft, assistant) as log:
        yield log


def ids(result: Generation | list[Generation]) -> Any:
    return result.token_ids if isinstance(result, Generation) else [each.token_ids for each in result]


def assert_usable(decoder: CoSDDecoder, answers: list[Any]) -> None:
    prompt, options = REQUESTS[0]
    assert ids(decoder.generate(prompt, **options)) == answers[0]


def live_sessions() -> int:
    gc.collect()
    return sum(type(each) is BatchedSession for each in gc.get_objects())


# Many at once


def test_eight_threads_get_the_answers_of_one(decoder, answers):
    barrier = threading.Barrier(8)

    def work(at: int) -> list[Any]:
        barrier.wait()
        mine = REQUESTS[at::8]
        return [ids(decoder.generate(prompt, **options)) for prompt, options in mine]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(work, range(8)))
    assert results == [answers[at::8] for at in range(8)]


async def test_sixteen_tasks_get_the_answers_of_one(decoder, answers):
    results = await asyncio.gather(*(decoder.agenerate(prompt, **options) for prompt, options in REQUESTS))
    assert list(map(ids, results)) == answers


def test_streams_that_are_read_in_turns_do_not_mix(decoder, answers):
    streams = [decoder.stream(prompt, **options) for prompt, options in REQUESTS]
    finished: dict[int, dict[int, Any]] = {at: {} for at in range(len(streams))}
    going = dict(enumerate(streams))
    while going:
        for at, stream in list(going.items()):
            if (chunk := next(stream, None)) is None:
                del going[at]
            elif chunk.generation:
                finished[at][chunk.index] = chunk.generation.token_ids
    for at, (prompt, _) in enumerate(REQUESTS):
        batch = isinstance(prompt, list) and isinstance(prompt[0], str)
        got = [finished[at][index] for index in range(len(finished[at]))]
        assert (got if batch else got[0]) == answers[at]


def test_no_two_passes_of_one_model_overlap(draft, decoder):
    inside, most = 0, 0

    def enter(*_: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.001)

    def leave(*_: Any) -> None:
        nonlocal inside
        inside -= 1

    handles = [draft.model.register_forward_pre_hook(enter), draft.model.register_forward_hook(leave)]
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: decoder.generate("a", max_new_tokens=10), range(4)))
    finally:
        for handle in handles:
            handle.remove()
    assert most == 1


def test_two_decoders_share_a_model(draft, assistant, second_assistant, decoder):
    swapped = CoSDDecoder(second_assistant, draft)
    alone = [each.generate("ab", max_new_tokens=60).token_ids for each in (decoder, swapped)]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(each.generate, "ab", max_new_tokens=60) for each in (decoder, swapped) * 4]
    assert [future.result().token_ids for future in futures] == alone * 4


@pytest.mark.parametrize("batch_size", [1, 32])
async def test_the_short_is_not_kept_waiting_by_the_long(draft, assistant, batch_size):
    decoder = CoSDDecoder(draft, assistant, draft_length=4, batch_size=batch_size)
    order = []

    async def work(name: str, tokens: int) -> None:
        await decoder.agenerate("a", max_new_tokens=tokens, eos_token_id=[])
        order.append(name)

    await asyncio.gather(work("long", 200), work("short", 5))
    assert order == ["short", "long"]


async def test_the_event_loop_is_never_blocked(decoder):
    longest, last, ticking = 0.0, time.perf_counter(), True

    async def tick() -> None:
        nonlocal longest, last
        last = time.perf_counter()
        while ticking:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    ticker = asyncio.create_task(tick())
    await asyncio.gather(*(decoder.agenerate(["a", "bc"], **LONG) for _ in range(4)))
    ticking = False
    await ticker
    assert longest < 0.25


async def test_a_slow_forward_pass_does_not_hold_up_the_event_loop(draft, decoder):
    entered, release = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        entered.set()
        assert release.wait(30), "the event loop never came back"

    handle = draft.model.register_forward_hook(wait)
    try:
        task = asyncio.create_task(decoder.agenerate("a", max_new_tokens=2))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        release.set()
        await task
    finally:
        release.set()
        handle.remove()


# Stopping


@pytest.mark.parametrize("view", ["steps", "stream"])
def test_no_pass_after_a_stream_is_closed(decoder, passes, answers, view):
    stream = getattr(decoder, view)(["a", "bc"], **LONG)
    next(stream)
    stream.close()
    before = len(passes)
    assert list(stream) == []
    time.sleep(0.02)
    assert len(passes) == before < 50
    assert_usable(decoder, answers)


def test_a_stream_that_is_not_read_does_no_work(decoder, passes):
    with closing(decoder.stream("a", **LONG)) as stream:
        assert passes == []
        next(stream)
        before = len(passes)
        time.sleep(0.02)
        assert len(passes) == before


async def _settle(passes: list[str]) -> int:
    """The number of passes once the worker is idle."""
    while True:
        before = len(passes)
        await asyncio.sleep(0.1)
        if len(passes) == before:
            return before


ONE_ROUND = 4 + 1  # draft_length draft passes and one question


@pytest.mark.parametrize("view", ["agenerate", "astream", "asteps"])
async def test_a_cancelled_task_stops_within_one_round(decoder, passes, answers, view):
    async def work() -> None:
        if view == "agenerate":
            await decoder.agenerate("a", max_new_tokens=200, eos_token_id=[])
        else:
            async for _ in getattr(decoder, view)("a", max_new_tokens=200, eos_token_id=[]):
                pass

    task = asyncio.create_task(work())
    while len(passes) < 10:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = len(passes)
    assert await _settle(passes) - before <= ONE_ROUND
    assert len(passes) < 200, "the whole text would have taken 250"
    assert_usable(decoder, answers)


async def test_cancelling_during_a_pass_lets_that_round_end_and_no_other_begin(draft, decoder, passes):
    entered, release = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        entered.set()
        release.wait(30)

    handle = draft.model.register_forward_pre_hook(wait)
    try:
        task = asyncio.create_task(decoder.agenerate("a", max_new_tokens=200, eos_token_id=[]))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert passes == []
    finally:
        release.set()
        handle.remove()
    assert 1 <= await _settle(passes) <= ONE_ROUND


async def test_a_request_cancelled_while_it_waits_never_runs(draft, decoder, passes):
    release = threading.Event()
    decoder._engine._worker.submit(release.wait, 30)
    task = asyncio.create_task(decoder.agenerate("a", **LONG))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    release.set()
    assert await _settle(passes) == 0


async def test_closing_or_leaving_an_async_stream_stops_the_work(decoder, passes, answers):
    async with aclosing(decoder.astream("a", max_new_tokens=200, eos_token_id=[])) as stream:
        async for _ in stream:
            break
    before = len(passes)
    assert await _settle(passes) - before <= ONE_ROUND
    async for _ in decoder.astream("a", max_new_tokens=200, eos_token_id=[]):
        break
    gc.collect()
    for _ in range(3):  # the event loop closes the stream when it comes round to it
        await asyncio.sleep(0)
    before = len(passes)
    assert await _settle(passes) - before <= ONE_ROUND
    assert len(passes) < 200, "each would have taken 250"
    assert ids(await decoder.agenerate(REQUESTS[0][0], **REQUESTS[0][1])) == answers[0]


def test_a_decoder_outlives_its_event_loops(decoder, answers):
    prompt, options = REQUESTS[0]
    for _ in range(3):
        assert ids(asyncio.run(decoder.agenerate(prompt, **options))) == answers[0]


async def test_a_prompt_that_takes_long_to_read_delays_no_other_call(decoder, answers, monkeypatch):
    release, encode = threading.Event(), LanguageModel.encode

    def slow_encode(self, text, **options):
        if text == "slow":
            assert release.wait(60)
        return encode(self, text, **options)

    monkeypatch.setattr(LanguageModel, "encode", slow_encode)
    slow = asyncio.create_task(decoder.agenerate("slow", max_new_tokens=4))
    given_up = asyncio.create_task(decoder.agenerate("slow", max_new_tokens=4))
    await asyncio.sleep(0.05)
    given_up.cancel()
    others = await asyncio.gather(*(decoder.agenerate(prompt, **options) for prompt, options in REQUESTS))
    assert list(map(ids, others)) == answers
    assert not slow.done()
    release.set()
    assert ids(await slow) == ids(decoder.generate("slow", max_new_tokens=4))


async def test_a_threads_call_needs_no_reader_of_prompts(decoder, answers, monkeypatch):
    """It has read its prompts itself, so it does not wait where all readers are busy."""
    release, encode = threading.Event(), LanguageModel.encode

    def slow_encode(self, text, **options):
        if text == "slow":
            assert release.wait(60)
        return encode(self, text, **options)

    monkeypatch.setattr(LanguageModel, "encode", slow_encode)
    slow = [asyncio.create_task(decoder.agenerate("slow", max_new_tokens=2)) for _ in range(8)]
    await asyncio.sleep(0.05)
    prompt, options = REQUESTS[0]
    shared = await asyncio.to_thread(decoder.generate, prompt, share_batches=True, **options, timeout=30)
    assert ids(shared) == answers[0]
    assert not any(task.done() for task in slow)
    release.set()
    assert len({tuple(ids(each)) for each in await asyncio.gather(*slow)}) == 1


# Processes that end and processes that fork

PAIR = """
import asyncio, os, threading, time
import torch
from cosd_core import CoSDDecoder
from tests.models import random_model
torch.set_num_threads(1)
decoder = CoSDDecoder(*(random_model(seed=seed, max_position_embeddings=8192) for seed in (0, 1)))
"""


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PAIR + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("prompts", but_for([["a", "bc", "d"]], [["a"], ["a", "bc", "d"]]))
def test_calls_of_a_process_that_ends_fail_and_do_not_keep_it(prompts):
    said = run_python(f"""
begun = threading.Event()
async def call(prompt):
    async for _ in decoder.astream(prompt, max_new_tokens=8000, eos_token_id=[]):
        begun.set()
async def calls():
    results = await asyncio.gather(*map(call, {prompts}), return_exceptions=True)
    print(*results, sep="\\n")
    print(*await asyncio.gather(call("late"), return_exceptions=True), flush=True)
threading.Thread(target=asyncio.run, args=(calls(),)).start()
begun.wait()
""")
    assert said.count("the interpreter is shutting down") == len(prompts) + 1, said


def test_daemon_threads_are_outside_of_rounds_when_the_process_ends():
    """Inside of one they would abort it."""
    said = run_python("""
begun = [threading.Event() for _ in range(4)]
def call(event):
    for _ in decoder.stream(["a", "bc", "d"], max_new_tokens=8000, eos_token_id=[]):
        event.set()
for event in begun:
    threading.Thread(target=call, args=(event,), daemon=True).start()
for event in begun:
    event.wait()
""")
    assert "interpreter is shutting down" in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_a_worker_of_its_own():
    said = run_python("""
def answers():
    async def calls():
        return await asyncio.gather(*(decoder.agenerate(each, max_new_tokens=9) for each in ("a", "b")))
    return [each.token_ids for each in asyncio.run(calls())]
expected = answers()
child = os.fork()
if child == 0:
    print("child", answers() == expected, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", answers() == expected)
""")
    assert said.split() == ["child", "True", "parent", "True"], said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_process_that_is_forked_off_during_a_pass_finds_the_models_free():
    said = run_python("""
import signal
from cosd_core.models.language_model import loaded_models
expected = decoder.generate("a", max_new_tokens=9).token_ids
held, over = threading.Event(), threading.Event()
def hold():
    with decoder.draft.lock, decoder.assistants[0].lock, loaded_models.lock, decoder._engine._start_lock:
        held.set()
        over.wait()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    written = asyncio.run(decoder.agenerate("a", max_new_tokens=9)), decoder.generate("a", max_new_tokens=9)
    print("child", all(each.token_ids == expected for each in written), flush=True)
    os._exit(0)
os.waitpid(child, 0)
over.set()
print("parent", decoder.generate("a", max_new_tokens=9).token_ids == expected)
""")
    assert said.split() == ["child", "True", "parent", "True"], said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_who_forks_while_it_holds_a_lock_leaves_it_in_both_processes():
    said = run_python("""
with decoder.draft.lock:
    child = os.fork()
written = decoder.generate("a", max_new_tokens=9).token_ids
if child == 0:
    print("child", len(written), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print("parent", len(written))
""")
    assert said.split() == ["child", "9", "parent", "9"], said


# Leaving nothing behind


def test_dropped_streams_leave_no_caches(decoder, answers):
    before = live_sessions()
    for at in range(20):
        stream = decoder.stream(["a", "bc"], **LONG)
        if at % 2:
            next(stream)
            next(stream)
        del stream
    assert live_sessions() <= before
    assert_usable(decoder, answers)


async def test_cancelled_tasks_leave_no_caches(decoder):
    before = live_sessions()
    tasks = [asyncio.create_task(decoder.agenerate("a", **LONG)) for _ in range(20)]
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    del tasks, task
    for _ in range(2):  # a round that was running then puts another job into the queue, which tidies up
        await asyncio.get_running_loop().run_in_executor(decoder._engine._worker, lambda: None)
    assert live_sessions() <= before


def test_finished_texts_leave_no_caches(decoder):
    before = live_sessions()
    result = decoder.generate("a", max_new_tokens=5)
    chunks = list(decoder.stream("a", max_new_tokens=5))
    assert live_sessions() <= before
    assert result.token_ids == chunks[-1].generation.token_ids


def test_the_threads_of_a_decoder_go_away_with_it(draft, assistant):
    decoder = CoSDDecoder(draft, assistant)
    before = set(threading.enumerate())
    asyncio.run(decoder.agenerate("a", max_new_tokens=2))
    workers = {each for each in set(threading.enumerate()) - before if each.name.startswith("cosd")}
    assert workers
    del decoder
    gc.collect()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()


def _global_state() -> tuple[Any, ...]:
    return (
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.random.get_rng_state().tolist(),
    )


@pytest.mark.parametrize("grad", [True, False])
def test_the_consumer_sees_its_own_global_state_between_chunks(decoder, grad):
    with torch.set_grad_enabled(grad):
        before = _global_state()
        for _ in decoder.stream(["a", "bc"], max_new_tokens=20, temperature=1.0):
            assert _global_state() == before
        assert _global_state() == before
    assert not torch.is_inference_mode_enabled()


def test_passes_run_in_inference_mode(draft, decoder):
    modes = set()
    handle = draft.model.register_forward_hook(lambda *_: modes.add(torch.is_inference_mode_enabled()))
    try:
        decoder.generate("a", max_new_tokens=5)
    finally:
        handle.remove()
    assert modes == {True}


async def test_the_consumer_of_an_async_stream_is_in_no_inference_mode(decoder):
    async for _ in decoder.astream("a", max_new_tokens=20):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


def test_gradients_can_be_computed_between_chunks(draft, decoder):
    for chunk in decoder.stream("a", max_new_tokens=8):
        loss = draft.model(torch.tensor([[1, 2]])).logits.sum()
        loss.backward()
        assert draft.model.lm_head.weight.grad is not None
        draft.model.zero_grad(set_to_none=True)
        assert chunk.text is not None


def test_python_and_torch_random_numbers_are_left_alone(decoder):
    import random

    random.seed(3)
    torch.manual_seed(3)
    expected = Random(3).random(), torch.random.get_rng_state().tolist()
    decoder.generate("a", max_new_tokens=20, temperature=1.0)
    assert (random.random(), torch.random.get_rng_state().tolist()) == expected


def test_a_model_in_training_mode_is_put_into_evaluation_mode_once():
    fresh = random_model(seed=9)
    fresh.model.train()
    again = LanguageModel(fresh.model, fresh.tokenizer)
    assert not again.model.training
