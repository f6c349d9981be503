"""List calls of both LangChain classes: they are decoded as batches, and every row keeps what is its own."""

import time
from collections import Counter
from threading import Lock
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import RunnableLambda

from cosd_core import ContextOverflowError, CoSDDecoder, InvalidOptionError, LanguageModel
from langchain_cosd import ChatCoSD, CoSDLLM
from tests.grids import every
from tests.langchain.conftest import Caller
from tests.models import ascii_model, counted_passes

QUESTIONS = [f"question {at}" for at in range(12)]
CHATS = [[HumanMessage(question)] for question in QUESTIONS]
TOO_LONG = "x" * 200


@pytest.fixture(scope="module")
def pair() -> tuple[LanguageModel, LanguageModel]:
    short = {"eos_token_id": None, "max_position_embeddings": 160}
    return ascii_model(seed=0, **short), ascii_model(seed=1, **short)


@pytest.fixture(params=[ChatCoSD, CoSDLLM])
def model(request: pytest.FixtureRequest, pair: Any) -> Any:
    return request.param(draft_model=pair[0], assistant_model=pair[1], max_tokens=32)


@pytest.fixture
def chat(pair: Any) -> ChatCoSD:
    return ChatCoSD(draft_model=pair[0], assistant_model=pair[1], max_tokens=32)


def text(answer: Any) -> str:
    return answer if isinstance(answer, str) else answer.content


class Recorder(BaseCallbackHandler):
    """Counts the runs of models, and keeps the text and name of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.answers: dict[UUID, str] = {}
        self.names: dict[UUID, Any] = {}
        self._lock = Lock()

    def on_chat_model_start(self, *_: Any, run_id: UUID, **fields: Any) -> None:
        with self._lock:
            self.counts["start"] += 1
            self.names[run_id] = (fields.get("name"), tuple(fields["tags"]), fields["metadata"].get("at"))

    on_llm_start = on_chat_model_start

    def on_llm_end(self, response: Any, *, run_id: UUID, **_: Any) -> None:
        with self._lock:
            self.counts["end"] += 1
            self.answers[run_id] = response.generations[0][0].text

    def on_llm_error(self, *_: Any, **__: Any) -> None:
        with self._lock:
            self.counts["error"] += 1


# Batches


@pytest.mark.parametrize("method", ["batch", "batch_as_completed", "generate", "sequence"])
def test_list_calls_of_chats_need_a_third_of_the_passes(method: str, chat: Any, pair: Any) -> None:
    calls = {
        "batch": lambda: chat.batch(QUESTIONS),
        "batch_as_completed": lambda: [each for _, each in sorted(chat.batch_as_completed(QUESTIONS))],
        "generate": lambda: [each[0].message for each in chat.generate(CHATS).generations],
        "sequence": lambda: (RunnableLambda(str) | chat).batch(QUESTIONS),
    }
    with counted_passes(*pair) as alone:
        expected = [chat.invoke(question).content for question in QUESTIONS]
    with counted_passes(*pair) as together:
        answers = [each.content for each in calls[method]()]
    assert answers == expected
    assert len(together) < len(alone) / 3


@pytest.mark.parametrize("options", [{}, {"return_exceptions": True}])
def test_lists_of_prompts_need_a_third_of_the_passes(options: Any, pair: Any) -> None:
    llm = CoSDLLM(draft_model=pair[0], assistant_model=pair[1], max_tokens=32)
    with counted_passes(*pair) as alone:
        expected = [llm.invoke(question) for question in QUESTIONS]
    with counted_passes(*pair) as together:
        assert llm.batch(QUESTIONS, **options) == expected
    assert len(together) < len(alone) / 3


@pytest.mark.parametrize(("options", "most"), [({}, 5), ({"batch_size": 3}, 3)])
def test_a_batch_holds_at_most_batch_size_rows(options: Any, most: int, pair: Any) -> None:
    chat = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], max_tokens=8, batch_size=5)
    rows: list[int] = []
    hook = pair[0].model.register_forward_hook(
        lambda _, args, kwargs, __: rows.append(len(kwargs.get("input_ids", args[0] if args else ()))),
        with_kwargs=True,
    )
    try:
        answers = chat.batch(QUESTIONS, **options)
    finally:
        hook.remove()
    assert len(answers) == len(QUESTIONS)
    assert max(rows) <= most


def test_max_concurrency_bounds_the_rows_under_way(chat: Any) -> None:
    under_way, most, lock = [0], [0], Lock()

    class Gauge(BaseCallbackHandler):
        def on_chat_model_start(self, *_: Any, **__: Any) -> None:
            with lock:
                under_way[0] += 1
                most[0] = max(most[0], under_way[0])

        def on_llm_end(self, *_: Any, **__: Any) -> None:
            with lock:
                under_way[0] -= 1

    chat.batch(QUESTIONS, {"max_concurrency": 2, "callbacks": [Gauge()]})
    assert most == [2]


def test_streaming_rows_share_batches_too(pair: Any) -> None:
    chat = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], max_tokens=32, streaming=True)
    with counted_passes(*pair) as alone:
        expected = [chat.invoke(question).content for question in QUESTIONS]
    with counted_passes(*pair) as together:
        answers = [each.content for each in chat.batch(QUESTIONS)]
    assert answers == expected
    assert len(together) < len(alone) / 3


def test_an_empty_list_gives_an_empty_list(model: Any) -> None:
    assert model.batch([]) == []
    assert list(model.batch_as_completed([])) == []
    assert model.generate([]).generations == []


@pytest.mark.parametrize("method", every(2, ["batch", "generate"]))
async def test_lists_may_be_longer_than_what_the_decoder_lets_wait(
    method: str, model: Any, call: Caller
) -> None:
    small = model.model_copy(update={"batch_size": 2, "max_concurrent": 2, "max_waiting": 1})
    inputs: Any = QUESTIONS if method == "batch" or isinstance(model, CoSDLLM) else CHATS
    answers = await call(small, method, inputs)
    texts = [each[0].text for each in answers.generations] if method == "generate" else [*map(text, answers)]
    assert texts == [text(model.invoke(question)) for question in QUESTIONS]


async def test_asynchronous_lists_complete_one_by_one(model: Any) -> None:
    small = model.model_copy(update={"max_concurrent": 2, "max_waiting": 1})
    answers = {at: text(answer) async for at, answer in small.abatch_as_completed(QUESTIONS)}
    assert answers == {at: text(model.invoke(question)) for at, question in enumerate(QUESTIONS)}


def test_deterministic_rows_share_no_passes(chat: Any, pair: Any) -> None:
    exact = chat.model_copy(update={"deterministic": True})
    with counted_passes(*pair) as alone:
        expected = [exact.invoke(question).content for question in QUESTIONS[:3]]
    with counted_passes(*pair) as together:
        assert [each.content for each in exact.batch(QUESTIONS[:3])] == expected
    assert len(together) == len(alone)


# What is each row's own


async def test_every_row_has_its_own_error(model: Any, call: Caller) -> None:
    questions = [*QUESTIONS[:3], TOO_LONG, *QUESTIONS[3:6]]
    answers = await call(model, "batch", questions, return_exceptions=True)
    assert isinstance(answers.pop(3), ContextOverflowError)
    assert [*map(text, answers)] == [text(model.invoke(each)) for each in QUESTIONS[:6]]
    with pytest.raises(ContextOverflowError):
        await call(model, "batch", questions)


def test_rows_complete_with_their_errors(model: Any) -> None:
    answers = dict(model.batch_as_completed(["a", TOO_LONG, "b"], return_exceptions=True))
    assert isinstance(answers[1], ContextOverflowError)
    assert text(answers[2]) == text(model.invoke("b"))


async def test_every_row_has_its_own_configuration(model: Any, call: Caller) -> None:
    recorder, ids = Recorder(), [uuid4() for _ in range(4)]
    configs = [
        {
            "run_id": ids[at], "run_name": f"name {at}", "tags": [f"tag {at}"], "metadata": {"at": at},
            "callbacks": [recorder],
        }
        for at in range(4)
    ]  # fmt: skip
    answers = await call(model, "batch", QUESTIONS[:4], configs)
    assert [recorder.answers[each] for each in ids] == [*map(text, answers)]
    assert [recorder.names[each] for each in ids] == [(f"name {at}", (f"tag {at}",), at) for at in range(4)]


def test_rows_of_generate_have_runs_of_their_own(chat: Any) -> None:
    recorder, first = Recorder(), uuid4()
    result = chat.generate(CHATS[:4], callbacks=[recorder], run_id=first, run_name="name", tags=["tag"])
    ids = [each.run_id for each in result.run]
    assert ids[0] == first
    assert len(set(ids)) == 4
    assert [recorder.answers[each] for each in ids] == [each[0].text for each in result.generations]
    assert {recorder.names[each] for each in ids} == {("name", ("tag",), None)}
    assert recorder.counts == {"start": 4, "end": 4}


def test_rows_of_generate_end_their_runs_whatever_happens_to_others(chat: Any) -> None:
    recorder = Recorder()
    with pytest.raises(ContextOverflowError):
        chat.generate([CHATS[0], [HumanMessage(TOO_LONG)], CHATS[1]], callbacks=[recorder])
    assert recorder.counts == {"start": 3, "end": 2, "error": 1}


def test_rows_of_a_chain_are_children_of_their_chains(chat: Any) -> None:
    parents: dict[Any, Any] = {}

    class Parents(BaseCallbackHandler):
        def on_chain_start(self, *_: Any, **fields: Any) -> None:
            if fields["parent_run_id"] is None:
                parents[fields["run_id"]] = 0

        def on_chat_model_start(self, *_: Any, parent_run_id: Any, **__: Any) -> None:
            parents[parent_run_id] += 1

    (chat | StrOutputParser()).batch(QUESTIONS[:4], {"callbacks": [Parents()]})
    assert [*parents.values()] == [1] * 4


async def test_rows_are_looked_up_in_the_cache_one_by_one(model: Any, pair: Any, call: Caller) -> None:
    cached = model.model_copy(update={"cache": InMemoryCache()})
    known = text(cached.invoke(QUESTIONS[2]))
    answers = await call(cached, "batch", QUESTIONS[:4], return_exceptions=True)
    assert text(answers[2]) == known
    with counted_passes(*pair) as passes:
        again = await call(cached, "batch", QUESTIONS[:4], return_exceptions=True)
    assert [*map(text, again)] == [*map(text, answers)]
    assert passes == []


def test_the_rate_limiter_admits_row_by_row(chat: Any) -> None:
    class Counting(BaseRateLimiter):
        count = 0

        def acquire(self, *, blocking: bool = True) -> bool:
            assert blocking
            self.count += 1
            return True

        async def aacquire(self, *, blocking: bool = True) -> bool:
            return self.acquire(blocking=blocking)

    limited = chat.model_copy(update={"rate_limiter": Counting()})
    limited.batch(QUESTIONS[:5])
    limited.generate(CHATS[:4])
    assert limited.rate_limiter.count == 9


def test_options_of_a_call_are_those_of_every_row(model: Any) -> None:
    answers = model.batch(QUESTIONS[:3], max_tokens=5, stop=["\n"])
    assert [*map(text, answers)] == [text(model.invoke(each, max_tokens=5)) for each in QUESTIONS[:3]]
    with pytest.raises(InvalidOptionError, match="batch_size"):
        model.batch(QUESTIONS[:3], batch_size=0)


async def test_the_output_of_generate_sums_the_usage(chat: Any, call: Caller) -> None:
    result = await call(chat, "generate", CHATS[:3], max_tokens=7)
    usages = [each[0].message.usage_metadata for each in result.generations]
    assert result.llm_output == {
        "model_name": "random-0+random-1",
        "token_usage": {
            "prompt_tokens": sum(each["input_tokens"] for each in usages),
            "completion_tokens": 21,
            "total_tokens": sum(each["total_tokens"] for each in usages),
        },
    }


# Threads in the core


def test_plain_calls_of_threads_share_batches_on_request(pair: Any) -> None:
    decoder = CoSDDecoder(*pair)
    expected = decoder.generate("Hello", max_new_tokens=9)
    assert decoder.generate("Hello", max_new_tokens=9, share_batches=True).text == expected.text
    chunks = decoder.stream(["Hello", "x"], max_new_tokens=9, share_batches=True)
    assert "".join(each.text for each in chunks if each.index == 0) == expected.text
    with pytest.raises(InvalidOptionError, match="share_batches='yes'"):
        decoder.generate("Hello", share_batches="yes")  # type: ignore[call-overload]


def test_a_shared_call_that_is_closed_or_late_stops_the_work(pair: Any) -> None:
    decoder = CoSDDecoder(*pair)
    with counted_passes(pair[0]) as passes:
        stream = decoder.stream("Hello", max_new_tokens=140, share_batches=True)
        next(stream)
        stream.close()
        with pytest.raises(TimeoutError):
            decoder.generate("Hello", max_new_tokens=140, share_batches=True, timeout=1e-3)
        time.sleep(0.05)
        done = len(passes)
        time.sleep(0.1)
        assert len(passes) == done
