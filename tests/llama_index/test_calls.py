"""``llama_index_cosd.CoSDLLM``, called: its eight methods say the same, once, and in full.

What is said of "every method" is tested with ``complete``, ``chat``, their streams and their asynchronous
twins, over a completion pair and a chat pair.
"""

import asyncio
import itertools
import json
import math
from typing import Any

import pytest
from llama_index.core.base.llms.base import BaseLLM
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import LLM, CustomLLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.rate_limiter import TokenBucketRateLimiter

from cosd_core import (
    Chat,
    ContextOverflowError,
    CoSDError,
    Grammar,
    InvalidOptionError,
    LogitsProcessorError,
    RuleVerifier,
)
from llama_index_cosd import CoSDLLM
from tests.llama_index.conftest import (
    CHATS,
    COMPLETIONS,
    METHODS,
    STREAMS,
    USER,
    Breaks,
    Ends,
    decoder_of,
    responses,
    said,
    text_of,
    within,
)
from tests.models import on_pass

every_method = pytest.mark.parametrize("method", METHODS)
every_stream = pytest.mark.parametrize("method", STREAMS)


def expected(llm: Any, method: str, prompt: str, **options: Any) -> Any:
    """What the core generates for the same prompt or chat."""
    asked: Any = prompt
    if method in CHATS or llm.metadata.is_chat_model:
        asked = Chat([{"role": "user", "content": prompt}])
    return decoder_of(llm).generate(asked, **{"max_new_tokens": 16, **options})


def test_it_is_a_custom_llm_that_calls_functions() -> None:
    names = [base.__name__ for base in CoSDLLM.__mro__]
    for base in (CustomLLM, FunctionCallingLLM, LLM, BaseLLM):
        assert base.__name__ in names
    assert CoSDLLM.class_name() == "CoSDLLM"


# One text


@every_method
async def test_every_method_gives_the_cores_text(llm: Any, method: str) -> None:
    text = await text_of(llm, method, "Hello")
    assert text == expected(llm, method, "Hello").text
    assert len(text) > 10


@every_method
async def test_the_kind_of_response_fits_the_method(llm: Any, method: str) -> None:
    kind = ChatResponse if method in CHATS else CompletionResponse
    assert {type(each) for each in await responses(llm, method, "Hello")} == {kind}


OPTIONS: list[dict[str, Any]] = [
    {"max_new_tokens": 7},
    {"max_tokens": 7},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 1.0, "seed": 3, "top_p": 0.5},
    {"temperature": 1.5, "seed": 3, "top_k": 2},
    {"temperature": 1.5, "seed": 3, "min_p": 0.3},
    {"repetition_penalty": 1.8},
    {"grammar": Grammar.regex("[a-z]{4,9}")},
    {"stop": ["e", "t", "a", "o", "n"]},
    {"stop": "e"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options))
async def test_every_option_works_in_the_constructor_and_per_call(llm: Any, options: dict[str, Any]) -> None:
    models = {"draft_model": llm.draft_model, "assistant_model": llm.assistant_model}
    core = {"max_new_tokens" if name == "max_tokens" else name: value for name, value in options.items()}
    core = {"max_new_tokens": 12, **core}
    short = llm.model_copy(update={"max_new_tokens": 12})
    built = CoSDLLM(**models, **core)
    texts = {method: expected(llm, method, "Hello", **core).text for method in ("complete", "chat")}
    for method in METHODS:
        text = texts["chat" if method in CHATS else "complete"]
        assert await text_of(short, method, "Hello", **options) == text
        if method in ("complete", "stream_chat", "achat", "astream_complete"):
            assert await text_of(built, method, "Hello") == text


@pytest.mark.parametrize("settings", [{"alpha": 0.9}, {"verifier": "draft"}, {"verifier": RuleVerifier(0.2)}])
async def test_the_verifier_can_be_changed_per_call(plain: Any, settings: Any) -> None:
    models = {"draft_model": plain.draft_model, "assistant_model": plain.assistant_model}
    built = CoSDLLM(**models, max_tokens=16, **settings)
    for method in METHODS:
        changed = await text_of(built, method, "Hello")
        assert await text_of(plain, method, "Hello", **settings) == changed
        assert changed != await text_of(plain, method, "Hello")


@every_method
async def test_stop_strings_never_show_and_the_calls_win(llm: Any, method: str) -> None:
    text = expected(llm, method, "Hello").text
    here, there = text[4:7], text[10:12]
    stopping = llm.model_copy(update={"stop": (here,)})
    for model, options, stop in ((llm, {"stop": [here]}, here), (stopping, {}, here),
                                 (stopping, {"stop": [there]}, there)):  # fmt: skip
        answer = await responses(model, method, "Hello", **options)
        assert said(answer) == text[: text.index(stop)]
        assert "".join(each.delta for each in answer) == text[: text.index(stop)]
        assert answer[-1].raw["stop_sequence"] == stop
        assert answer[-1].raw["finish_reason"] == "stop"


def test_a_changed_setting_is_checked_and_honoured(plain: Any) -> None:
    plain.complete("Hello")
    plain.max_tokens = 6
    assert plain.max_new_tokens == 6
    assert plain.complete("Hello").text == expected(plain, "complete", "Hello", max_new_tokens=6).text
    with pytest.raises(InvalidOptionError, match=r"top_p=3\.0"):
        plain.top_p = 3.0


# What is told


@every_method
async def test_raw_tells_how_the_answer_came_about_as_plain_json(llm: Any, method: str) -> None:
    core = expected(llm, method, "Hello")
    last = (await responses(llm, method, "Hello"))[-1]
    raw = json.loads(json.dumps(last.raw))
    used = {"prompt_tokens": core.prompt_tokens, "completion_tokens": 16,
            "total_tokens": core.prompt_tokens + 16}  # fmt: skip
    assert raw["usage"] == used
    assert (raw["finish_reason"], raw["stop_sequence"]) == ("length", None)
    assert raw["verifier"] == {"name": "rule", "alpha": 0.5, "beta": 0.5}
    assert raw["stats"]["kept"] + raw["stats"]["replaced"] == 16
    assert raw["model_name"] == llm.metadata.model_name
    assert "trace" not in raw
    assert last.additional_kwargs.items() >= used.items()
    assert json.loads(last.model_dump_json())["raw"] == raw


@every_method
async def test_the_trace_comes_on_request(llm: Any, method: str) -> None:
    core = json.loads(json.dumps(expected(llm, method, "Hello").to_dict()["tokens"]))
    assert (await responses(llm, method, "Hello", return_trace=True))[-1].raw["trace"]["tokens"] == core
    tracing = llm.model_copy(update={"return_trace": True})
    assert (await responses(tracing, method, "Hello"))[-1].raw["trace"]["tokens"] == core


@pytest.mark.parametrize(
    ("prompt_tokens", "method"), [(5, "complete"), (len("### User\nHello\n\n### Assistant\n"), "chat")]
)
def test_prompts_are_counted_as_the_models_are_shown_them(
    plain: Any, prompt_tokens: int, method: str
) -> None:
    asked: Any = "Hello" if method == "complete" else [ChatMessage("Hello")]
    assert getattr(plain, method)(asked).raw["usage"]["prompt_tokens"] == prompt_tokens


@every_method
async def test_logprobs_come_on_request(llm: Any, method: str) -> None:
    assert (await responses(llm, method, "Hello"))[-1].logprobs is None
    core = expected(llm, method, "Hello")
    for answer in (
        await responses(llm, method, "Hello", logprobs=True),
        await responses(llm.model_copy(update={"logprobs": True}), method, "Hello"),
    ):
        told = answer[-1].logprobs
        assert [entry[0].token for entry in told] == [token.text for token in core.tokens]
        assert [entry[1].token for entry in told if len(entry) > 1] == [
            token.other_text for token in core.tokens if token.other_text is not None
        ]
        assert any(len(entry) > 1 for entry in told), "somewhere a token lost"
        assert {token.source for token in core.tokens} == {"draft", "assistant"}
        for entry, token in zip(told, core.tokens, strict=True):
            stands, lost = (token.p, token.q) if token.source == "draft" else (token.q, token.p)
            assert [math.exp(each.logprob) for each in entry] == pytest.approx([stands, lost][: len(entry)])
        assert all(-750 < each.logprob <= 0 for entry in told for each in entry)
        assert told[0][0].bytes == list(told[0][0].token.encode())
        for early, late in itertools.pairwise(answer):
            assert late.logprobs[: len(early.logprobs)] == early.logprobs, "they grow with the text"


# Streams


@every_stream
async def test_a_streams_deltas_add_up_to_its_text(llm: Any, method: str) -> None:
    stream = await responses(llm, method, "Hello")
    assert len(stream) > 2
    text = ""
    for response in stream:
        text += response.delta
        assert said([response]) == text
    assert text == expected(llm, method, "Hello").text


@every_stream
async def test_only_the_last_response_of_a_stream_has_raw(llm: Any, method: str) -> None:
    *others, last = await responses(llm, method, "Hello")
    assert all(each.raw is None and not each.additional_kwargs for each in others)
    whole = (await responses(llm, method.replace("stream_", ""), "Hello"))[0].raw
    assert {**last.raw, "stats": None} == {**whole, "stats": None}


@every_method
async def test_a_text_that_ends_at_once_is_one_response(llm: Any, method: str) -> None:
    (answer,) = await responses(llm, method, "Hello", logits_processor=[Ends()])
    assert (said([answer]), answer.delta) == ("", "")
    assert answer.raw["finish_reason"] == "stop"
    assert answer.raw["usage"]["completion_tokens"] == 1


@every_stream
async def test_nothing_is_written_before_a_stream_is_read(llm: Any, method: str) -> None:
    passes: list[int] = []
    with on_pass(llm.draft_model, lambda number, _: passes.append(number)):
        before = -1
        while before < len(passes):  # a stream that another test has closed may end a round
            before = len(passes)
            await asyncio.sleep(0.1)
        passes.clear()
        asked: Any = [ChatMessage("Hello")] if method in CHATS else "Hello"
        stream = getattr(llm, method)(asked)
        if method.startswith("a"):
            stream = await stream
        assert passes == []
        if method.startswith("a"):
            await anext(stream)
            await stream.aclose()
        else:
            next(stream)
            stream.close()
        assert passes


# Events


@every_method
async def test_one_call_is_one_event_with_exact_usage(llm: Any, method: str) -> None:
    counter = TokenCountingHandler()
    llm.callback_manager = CallbackManager([counter])
    await responses(llm, method, "Hello")
    (event,) = counter.llm_token_counts
    assert (event.prompt_token_count, event.completion_token_count) == (
        expected(llm, method, "Hello").prompt_tokens, 16,
    )  # fmt: skip


@every_method
async def test_one_call_is_one_start_and_one_end(llm: Any, method: str, events: Any) -> None:
    answer = await responses(llm, method, "Hello")
    kind = "LLMChat" if method in CHATS else "LLMCompletion"
    under_way = [f"{kind}InProgressEvent"] * len(answer) if method in STREAMS else []
    assert [name for name in events.names() if name.startswith("LLM")] == [
        f"{kind}StartEvent", *under_way, f"{kind}EndEvent",
    ]  # fmt: skip
    (end,) = [each for each in events.seen if type(each).__name__ == f"{kind}EndEvent"]
    assert end.response.raw["usage"] == answer[-1].raw["usage"]


@every_method
async def test_a_rate_limiter_is_asked_once_a_call(llm: Any, method: str) -> None:
    asked = []

    class Limiter(TokenBucketRateLimiter):
        def acquire(self, *_: Any, **__: Any) -> None:
            asked.append("sync")

        async def async_acquire(self, *_: Any, **__: Any) -> None:
            asked.append("async")

    llm.rate_limiter = Limiter(requests_per_minute=60)
    await responses(llm, method, "Hello")
    assert asked == ["async" if method.startswith("a") else "sync"]


def test_events_tell_of_the_pair_and_its_verifier(llm: Any, events: Any) -> None:
    llm.complete("Hello")
    (start,) = [each for each in events.seen if type(each).__name__ == "LLMCompletionStartEvent"]
    told = json.loads(json.dumps(start.model_dump(mode="json")))["model_dict"]
    assert told["class_name"] == "CoSDLLM"
    assert told["verifier"] == {"name": "rule", "alpha": 0.5, "beta": 0.5}
    assert llm.draft_model.name in told["draft_model"]
    assert len(told["assistant_model"]) == 1


# Errors


def refused(error: Exception) -> None:
    """LlamaIndex takes ValueError and TypeError for an empty answer."""
    assert not isinstance(error, ValueError | TypeError)


WRONG = [
    ({"alhpa": 0.1}, "did you mean 'alpha'"),
    ({"bananas": 1}, "unknown option 'bananas'"),
    ({"top_p": 7.0}, "top_p=7.0"),
    ({"max_tokens": 3, "max_new_tokens": 3}, "are the same option"),
    ({"max_tokens": 0}, "max_new_tokens=0"),
    ({"stop": [""]}, "stop"),
    ({"temperature": "warm"}, "temperature='warm'"),
]


@pytest.mark.parametrize(("options", "words"), WRONG)
def test_wrong_options_are_refused_by_the_constructor(pair: Any, options: Any, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words) as caught:
        CoSDLLM(draft_model=pair[0], assistant_model=pair[1], **options)
    refused(caught.value)


@pytest.mark.parametrize(("options", "words"), WRONG)
async def test_wrong_options_are_refused_by_every_method(llm: Any, options: Any, words: str) -> None:
    for method in METHODS:
        with pytest.raises(InvalidOptionError, match=words) as caught:
            await responses(llm, method, "Hello", **options)
        refused(caught.value)


@pytest.mark.parametrize("option", [{"dtype": "float16"}, {"draft_model": "x"}, {"token": "hf_x"}])
async def test_what_is_read_at_loading_is_no_option_of_a_call(llm: Any, option: Any) -> None:
    for method in METHODS:
        with pytest.raises(InvalidOptionError, match="give it to the constructor") as caught:
            await responses(llm, method, "Hello", **option)
        assert "hf_x" not in str(caught.value)


@pytest.mark.parametrize("option", ["tools", "tool_choice", "parallel_tool_calls", "strict"])
async def test_tools_are_no_option_of_a_completion(llm: Any, option: str) -> None:
    for method in COMPLETIONS:
        with pytest.raises(InvalidOptionError, match=f"{option} is an option of chats"):
            await responses(llm, method, "Hello", **{option: []})


@pytest.mark.parametrize("prompt", [None, 5, ["Hello"], PromptTemplate("Hello")])
async def test_a_prompt_that_is_no_text_is_refused(llm: Any, prompt: Any) -> None:
    for method in COMPLETIONS:
        with pytest.raises(InvalidOptionError, match="should be text"):
            await responses(llm, method, prompt)


@every_method
async def test_errors_while_decoding_reach_the_caller(llm: Any, method: str) -> None:
    def fail(number: int, _output: Any) -> None:
        if number == 4:
            raise RuntimeError("the device is gone")

    with on_pass(llm.draft_model, fail), pytest.raises(CoSDError, match="the device is gone") as caught:
        await within(responses(llm, method, "Hello"))
    refused(caught.value)
    assert await text_of(llm, method, "Hello"), "the model stays usable"


@every_stream
async def test_an_error_inside_a_stream_comes_after_what_was_written(
    llm: Any, method: str, events: Any
) -> None:
    breaks = {"logits_processor": [Breaks(after=12)], "return_trace": True}
    asked: Any = [ChatMessage(role=USER, content="Hello")] if method in CHATS else "Hello"
    result = getattr(llm, method)(asked, **breaks)
    seen = []

    async def read() -> None:
        if method.startswith("a"):
            async for each in await result:
                seen.append(each.delta)
        else:
            for each in result:
                seen.append(each.delta)

    with pytest.raises(LogitsProcessorError, match="a bug in a processor"):
        await within(read())
    assert seen
    assert expected(llm, method, "Hello").text.startswith("".join(seen))
    assert events.names().count("ExceptionEvent") == 1


@every_method
async def test_a_text_that_does_not_fit_is_refused_with_the_numbers(llm: Any, method: str) -> None:
    with pytest.raises(ContextOverflowError, match="context window of 8192") as caught:
        await responses(llm, method, "x" * 8190)
    refused(caught.value)


async def test_a_text_that_does_not_fit_can_be_cut_from_the_left(llm: Any) -> None:
    answer = llm.complete("x" * 8000 + "Hello" * 60, formatted=True, truncation=True)
    assert answer.raw["usage"]["total_tokens"] == 8192
