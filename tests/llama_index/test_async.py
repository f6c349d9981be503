"""Many calls at once, from any event loop; calls that are closed, left or cancelled stop the work."""

import asyncio
import gc
import itertools
import threading
import time
from typing import Any

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.base.llms.types import ChatMessage

from cosd_core import AnswerTimeoutError, ContextOverflowError
from tests.grids import every
from tests.langchain.conftest import loop_stays_free
from tests.llama_index.conftest import CHATS, METHODS, USER, responses, said, text_of, within
from tests.models import counted_passes, on_pass

PROMPTS = [f"{at} questions" for at in range(12)]
ASYNC = ("acomplete", "astream_complete", "achat", "astream_chat")


def asked(method: str, prompt: str = "Hello") -> Any:
    return [ChatMessage(role=USER, content=prompt)] if method in CHATS else prompt


@pytest.mark.parametrize("method", ASYNC)
async def test_asynchronous_calls_never_block_the_event_loop(llm: Any, method: str) -> None:
    with on_pass(llm.draft_model, lambda *_: time.sleep(0.003)):
        async with loop_stays_free():
            await responses(llm, method, "Hello", max_tokens=48)


@pytest.mark.parametrize("method", every(2, ["acomplete", "astream_chat"]))
async def test_many_asynchronous_calls_at_once_do_not_mix(llm: Any, method: str) -> None:
    expected = [
        await text_of(llm, method[1:].replace("stream_", ""), prompt, max_tokens=64) for prompt in PROMPTS
    ]
    async with loop_stays_free():
        answers = await asyncio.gather(
            *(text_of(llm, method, prompt, max_tokens=64) for prompt in PROMPTS * 2)
        )
    assert answers == expected * 2
    assert len(set(expected)) > 8


@pytest.mark.parametrize("method", ["astream_complete", "astream_chat"])
async def test_two_asynchronous_streams_are_written_in_turns(llm: Any, method: str) -> None:
    order: list[str] = []

    async def read(name: str) -> None:
        async for _ in await getattr(llm, method)(asked(method, name), max_tokens=96):
            order.append(name)

    await within(asyncio.gather(read("one"), read("two")))
    switches = sum(early != late for early, late in itertools.pairwise(order))
    assert switches > min(order.count("one"), order.count("two")) // 3 > 2


async def test_loading_does_not_block_the_event_loop(llm: Any, monkeypatch: Any) -> None:
    """The first call puts the decoder together, which may take minutes."""
    slowly = type(llm.decoder_cache).get

    def get(*arguments: Any) -> Any:
        time.sleep(0.12)
        return slowly(*arguments)

    monkeypatch.setattr(type(llm.decoder_cache), "get", get)
    for method in ("acomplete", "astream_chat"):
        async with loop_stays_free():
            await responses(llm, method, "Hello")


def test_one_model_serves_several_event_loops(llm: Any) -> None:
    expected = {method: asyncio.run(text_of(llm, method, "Hello")) for method in METHODS}
    for _ in range(2):
        for method in METHODS:
            assert asyncio.run(text_of(llm, method, "Hello")) == expected[method]
    found: list[str] = []
    loops = [
        threading.Thread(target=lambda name=name: found.append(asyncio.run(text_of(llm, name, "Hello"))))
        for name in ASYNC * 3
    ]
    for each in loops:
        each.start()
    for each in loops:
        each.join(20)
    assert sorted(found) == sorted([expected[method] for method in ASYNC] * 3)


def test_many_threads_share_one_model(llm: Any) -> None:
    expected = [llm.complete(prompt).text for prompt in PROMPTS]
    found: dict[int, str] = {}

    def work(at: int) -> None:
        found[at] = "".join(each.delta for each in llm.stream_complete(PROMPTS[at]))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(PROMPTS))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(20)
    assert [found[at] for at in range(len(PROMPTS))] == expected


async def test_a_synchronous_query_inside_a_running_loop_works(llm: Any, documents: Any) -> None:
    """LlamaIndex runs its asynchronous calls in another thread then, with a loop of its own."""
    engine = SummaryIndex(nodes=list(documents)).as_query_engine(
        llm=llm, response_mode="accumulate", use_async=True
    )  # fmt: skip
    sync = str(engine.query("How high is it?"))
    assert sync.count("Response ") == 3
    await text_of(llm, "acomplete", "Hello")
    assert str(await engine.aquery("How high is it?")) == sync
    assert str(engine.query("How high is it?")) == sync


async def test_complete_batch_gives_the_answers_in_order(llm: Any) -> None:
    expected = [llm.complete(prompt).text for prompt in PROMPTS]
    for answers in (llm.complete_batch(PROMPTS), await llm.acomplete_batch(PROMPTS)):
        assert [each.text for each in answers] == expected
        assert {each.raw["usage"]["completion_tokens"] for each in answers} == {16}
    assert llm.complete_batch([]) == []
    (formatted,) = llm.complete_batch(["Hello"], formatted=True, max_tokens=3)
    assert formatted.text == llm.complete("Hello", formatted=True, max_tokens=3).text


async def test_prompts_of_a_batch_and_calls_at_once_share_passes(llm: Any) -> None:
    with counted_passes(llm.draft_model) as one:
        llm.complete("Hello", max_tokens=48)
    with counted_passes(llm.draft_model) as batch:
        llm.complete_batch(["Hello"] * 6, max_tokens=48)
    with counted_passes(llm.draft_model) as at_once:
        await asyncio.gather(*(text_of(llm, method, "Hello", max_tokens=48) for method in ASYNC))
    assert len(batch) < 2 * len(one)
    assert len(at_once) < 2.5 * len(one), "two prompts, for a chat may be shown otherwise"


async def test_after_an_error_in_a_batch_the_other_prompts_are_given_up(llm: Any) -> None:
    prompts = ["Hello"] * 4 + ["far too long " * 4000]
    with counted_passes(llm.draft_model) as passes:
        with pytest.raises(ContextOverflowError):
            await llm.acomplete_batch(prompts, max_tokens=400, min_new_tokens=400)
        before = -1
        while len(passes) > before:  # until the decoder rests
            before = len(passes)
            await asyncio.sleep(0.3)
    assert len(passes) < 200, "four texts of 400 tokens take at least 400"


async def test_a_batch_may_be_longer_than_what_the_decoder_lets_wait(llm: Any) -> None:
    small = llm.model_copy(update={"max_concurrent": 2, "max_waiting": 1})
    prompts = [f"{at} prompts" for at in range(9)]
    expected = [llm.complete(prompt).text for prompt in prompts]
    assert [each.text for each in await small.acomplete_batch(prompts)] == expected
    assert [each.text for each in small.complete_batch(prompts)] == expected


def test_complete_batch_needs_no_event_loop(llm: Any) -> None:
    assert [each.text for each in llm.complete_batch(["Hello"])] == [llm.complete("Hello").text]


# Stopping


@pytest.mark.parametrize("way", ["close", "break", "drop"])
@pytest.mark.parametrize("method", ["stream_complete", "stream_chat"])
def test_leaving_a_stream_stops_the_work(llm: Any, method: str, way: str) -> None:
    with counted_passes(llm.draft_model) as passes:
        stream = getattr(llm, method)(asked(method), max_tokens=400)
        for _ in stream:
            break
        if way == "close":
            stream.close()
        if way == "drop":
            del stream
            gc.collect()
        done = len(passes)
        time.sleep(0.03)
    assert 0 < len(passes) == done < 40


@pytest.mark.parametrize("method", ["astream_complete", "astream_chat"])
async def test_leaving_an_asynchronous_stream_stops_the_work(llm: Any, method: str) -> None:
    with counted_passes(llm.draft_model) as passes:
        stream = await getattr(llm, method)(asked(method), max_tokens=400)
        async for _ in stream:
            break
        await stream.aclose()
        await asyncio.sleep(0.1)
        done = len(passes)
        await asyncio.sleep(0.1)
    assert 0 < len(passes) == done < 100


@pytest.mark.parametrize("method", ASYNC)
async def test_a_cancelled_call_leaves_no_work_behind(llm: Any, method: str) -> None:
    with counted_passes(llm.draft_model) as passes:
        task = asyncio.create_task(responses(llm, method, "Hello", max_tokens=400))
        while not passes:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        done = len(passes)
        await asyncio.sleep(0.1)
    assert len(passes) == done < 200
    assert await text_of(llm, method, "Hello"), "the model stays usable"


@pytest.mark.parametrize("method", ["complete", "stream_chat", "acomplete", "astream_chat"])
async def test_a_timeout_ends_the_work(llm: Any, method: str) -> None:
    with (
        on_pass(llm.draft_model, lambda *_: time.sleep(0.02)),
        counted_passes(llm.draft_model) as passes,
    ):
        with pytest.raises(AnswerTimeoutError, match=r"timeout=0\.05"):
            await responses(llm, method, "Hello", timeout=0.05)
        await asyncio.sleep(0.25)  # the round that has begun ends first
        assert len(passes) < 16


@pytest.mark.parametrize("method", every(3, METHODS))
async def test_a_timeout_does_not_wait_for_text(llm: Any, method: str) -> None:
    """All text is held back as the possible beginning of a stop string."""
    text = await text_of(llm, method, "Hello", max_tokens=60)
    with on_pass(llm.draft_model, lambda *_: time.sleep(0.02)):
        started = time.perf_counter()
        with pytest.raises(AnswerTimeoutError):
            await responses(llm, method, "Hello", max_tokens=60, stop=[text[:-2] + "~~~"], timeout=0.1)
        assert time.perf_counter() - started < 0.8


async def test_a_slow_call_does_not_hold_up_a_stream(plain: Any) -> None:
    """Whoever asks for little is done before whoever asked for much earlier."""
    long = asyncio.create_task(responses(plain, "acomplete", "Hello", max_tokens=600))
    await asyncio.sleep(0.02)
    short = await within(responses(plain, "astream_complete", "Hello", max_tokens=4))
    assert not long.done()
    assert len(said(short)) <= 4
    assert (await long)[0].raw["usage"]["completion_tokens"] == 600
