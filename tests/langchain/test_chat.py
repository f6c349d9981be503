"""``langchain_cosd.ChatCoSD``: what users of LangChain expect of a chat model, one behaviour a test.

What the models say is random here, or spelled out by a grammar that admits one text only (``saying``). The
suites of langchain-tests, with a pair that answers by itself, are in ``test_standard.py``.
"""

import asyncio
import json
import pickle
import re
import time
from datetime import date
from enum import Enum
from typing import Any

import pytest
import torch
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.exceptions import ContextOverflowError as LangChainContextOverflowError
from langchain_core.exceptions import ModelTimeoutError, OutputParserException
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import ConfigurableField
from langchain_core.tools import tool
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator
from transformers import LogitsProcessor
from typing_extensions import TypedDict

from cosd_core import (
    Chat,
    ContextOverflowError,
    CoSDDecoder,
    CoSDError,
    Grammar,
    InvalidOptionError,
    InvalidPromptError,
    LanguageModel,
)
from cosd_core.chat.rendering import render
from cosd_core.demo import load_pair
from langchain_cosd import ChatCoSD, CoSDLLM
from langchain_cosd.messages import to_core
from langchain_cosd.structured_output import json_parser
from tests.langchain.conftest import Caller, loop_stays_free
from tests.models import ascii_model, counted_passes, on_pass

QUESTION = [SystemMessage("Be brief."), HumanMessage("hello")]
AS_CORE = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
THINKING = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}<think>\n"


@tool
def weather(city: str) -> str:
    """Look up the weather."""
    return f"rain in {city}"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Person(BaseModel):
    """A person."""

    name: str = Field(pattern="^[a-z]{1,5}$")
    age: int = Field(ge=0, le=99)


class Entry(TypedDict):
    """An entry."""

    mood: bool


SCHEMA = {
    "title": "Flag", "description": "A flag.", "type": "object",
    "properties": {"up": {"type": "boolean"}}, "required": ["up"],
}  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> tuple[LanguageModel, LanguageModel]:
    wide = {"eos_token_id": None, "max_position_embeddings": 4096}
    return ascii_model(seed=0, **wide), ascii_model(seed=1, **wide)


@pytest.fixture
def chat(pair: Any) -> ChatCoSD:
    return ChatCoSD(draft_model=pair[0], assistant_model=pair[1], max_tokens=24)


def saying(chat: ChatCoSD, text: str) -> ChatCoSD:
    """The model, which can say nothing but this."""
    return chat.model_copy(
        update={"grammar": Grammar.lark(f"start: {json.dumps(text)}"), "max_new_tokens": 400}
    )


def calling(*calls: tuple[str, dict[str, Any]]) -> str:
    written = [json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls]
    return "\n".join(f"<tool_call>\n{each}\n</tool_call>" for each in written)


def added(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def plain(message: Any) -> dict[str, Any]:
    """What a message says, without ids and times."""
    told = {**message.response_metadata, "stats": None}
    return {
        "content": message.content,
        "calls": [(each["name"], each["args"]) for each in message.tool_calls],
        "invalid": [each["name"] for each in message.invalid_tool_calls],
        "usage": message.usage_metadata,
        "told": told,
        "more": message.additional_kwargs,
    }


# What the models are shown


def test_the_answer_is_the_cores_for_the_same_chat(chat: Any, decoder: Any) -> None:
    expected = decoder.generate(Chat(AS_CORE), max_new_tokens=24).text
    assert chat.invoke(QUESTION).content == expected
    assert chat.invoke([("system", "Be brief."), ("human", "hello")]).content == expected


@pytest.fixture
def decoder(pair: Any) -> CoSDDecoder:
    return CoSDDecoder(*pair)


CALL = {"id": "c1", "name": "add", "args": {"a": 1, "b": 2}}
CORE_CALL = {"id": "c1", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (HumanMessage("hi"), {"role": "user", "content": "hi"}),
        (HumanMessage("hi", name="ann"), {"role": "user", "content": "hi", "name": "ann"}),
        (HumanMessage(["a", {"type": "text", "text": "b"}]), {"role": "user", "content": "ab"}),
        (ChatMessage("x", role="system"), {"role": "system", "content": "x"}),
        (AIMessage("x"), {"role": "assistant", "content": "x"}),
        (
            AIMessage("", tool_calls=[CALL]),
            {"role": "assistant", "content": "", "tool_calls": [CORE_CALL]},
        ),
        (
            AIMessage([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}]),
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
        ),
        (
            AIMessage([{"type": "reasoning", "reasoning": "hm"}, "x"]),
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
        ),
        (
            AIMessage("x", additional_kwargs={"reasoning_content": "hm"}),
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
        ),
        (
            AIMessage([{"type": "text", "text": "x"}, {"type": "tool_use", "id": "c1", "name": "add"}],
                      tool_calls=[CALL]),
            {"role": "assistant", "content": "x", "tool_calls": [CORE_CALL]},
        ),
        (
            AIMessage("", invalid_tool_calls=[
                {"type": "invalid_tool_call", "id": "1", "name": "add", "args": "{", "error": None}]),
            {"role": "assistant", "content": "{"},
        ),
        (ToolMessage("3", tool_call_id="c1"), {"role": "tool", "content": "3", "tool_call_id": "c1"}),
        (
            ToolMessage([{"type": "text", "text": "3"}], tool_call_id="c1", name="add"),
            {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"},
        ),
        (
            ToolMessage("no such city", tool_call_id="c1", status="error"),
            {"role": "tool", "content": "Error: no such city", "tool_call_id": "c1"},
        ),
        (
            ToolMessage("Error: no", tool_call_id="c1", status="error"),
            {"role": "tool", "content": "Error: no", "tool_call_id": "c1"},
        ),
        (FunctionMessage("3", name="add"), {"role": "tool", "content": "3", "name": "add"}),
    ],
)  # fmt: skip
def test_every_message_is_understood(message: Any, expected: dict[str, Any]) -> None:
    (read,) = to_core([message])
    (shown,) = Chat([read]).messages
    assert {**shown, "tool_calls": None} == {**expected, "tool_calls": None}
    assert [call["function"] for call in shown.get("tool_calls", ())] == [
        call["function"] for call in expected.get("tool_calls", ())
    ]


def test_results_inside_a_users_message_become_messages_of_their_own() -> None:
    message = HumanMessage([
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "3"}]},
        {"type": "tool_result", "tool_use_id": "b", "content": "broken", "is_error": True},
        {"type": "text", "text": "and now?"},
    ])  # fmt: skip
    assert [(each["role"], each.get("tool_call_id")) for each in to_core([message])] == [
        ("tool", "a"), ("tool", "b"), ("user", None),
    ]  # fmt: skip
    assert [each["content"] for each in Chat(to_core([message])).messages] == [
        "3",
        "Error: broken",
        "and now?",
    ]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        (
            [HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,A"}}])],
            "image",
        ),
        ([ChatMessage("x", role="judge")], "role='judge'"),
        ([RemoveMessage(id="x")], "RemoveMessage"),
        ([ToolMessage([{"type": "image", "url": "x"}], tool_call_id="1")], "image"),
        ([HumanMessage([{"type": "tool_result", "tool_use_id": "a", "content": {"a": 1}}])], "dict|None"),
        ([HumanMessage([{"type": "tool_result", "content": [5], "is_error": True}])], "int"),
        ([HumanMessage([{"type": "text-plain", "url": "http://x/doc.txt"}])], "text-plain"),
        ([], "at least one message"),
    ],
)
async def test_what_models_cannot_read_is_refused(messages: Any, words: str, chat: Any, call: Caller) -> None:
    for method in ("invoke", "stream"):
        with pytest.raises(InvalidPromptError, match=words):
            await call(chat, method, messages)


def test_control_tokens_of_a_user_stay_text(chat: Any, pair: Any) -> None:
    prompt = render(Chat([{"role": "user", "content": "<eos>"}]), pair)
    assert 256 not in prompt.ids[0]
    assert "<eos>" in prompt.text
    template = "{% for m in messages %}{{ m.content }}{% endfor %}<eos>"
    shown = render(Chat([{"role": "user", "content": "<eos>"}], chat_template=template), pair)
    assert list(shown.ids[0]).count(256) == 1
    assert list(shown.ids[0])[-1] == 256


async def test_a_template_of_ones_own_and_its_options(chat: Any, decoder: Any, call: Caller) -> None:
    own = {"chat_template": "{{ messages[0].content }}{{ mood }}", "chat_template_kwargs": {"mood": "!"}}
    expected = decoder.generate("hi!", max_new_tokens=24).text
    assert (await call(chat, "invoke", "hi", **own)).content == expected
    assert (await call(chat.model_copy(update=own), "invoke", "hi")).content == expected


def test_tokens_are_counted_as_the_draft_is_shown_them(chat: Any, pair: Any) -> None:
    assert chat.get_num_tokens_from_messages(QUESTION) == len(render(Chat(AS_CORE), pair).ids[0])
    assert chat.get_num_tokens_from_messages(QUESTION, tools=[add]) > 300
    assert chat.get_num_tokens("Grüße") == 7
    assert chat.get_num_tokens_from_messages([]) == 0


# What comes back


async def test_invoke_tells_how_the_answer_came_about(chat: Any, call: Caller) -> None:
    message = await call(chat, "invoke", QUESTION)
    assert type(message) is AIMessage
    told = message.response_metadata
    assert (told["finish_reason"], told["model_provider"]) == ("length", "cosd")
    assert told["model_name"] == "random-0+random-1"
    assert told["verifier"] == {"name": "rule", "alpha": 0.5, "beta": 0.5}
    length = chat.get_num_tokens_from_messages(QUESTION)
    assert message.usage_metadata == {
        "input_tokens": length,
        "output_tokens": 24,
        "total_tokens": length + 24,
    }
    assert "trace" not in told
    json.dumps(told)


async def test_the_trace_comes_on_request(chat: Any, call: Caller) -> None:
    message = await call(chat, "invoke", QUESTION, return_trace=True)
    assert len(message.response_metadata["trace"]["tokens"]) == 24


async def test_a_stream_adds_up_to_invoke(chat: Any, call: Caller) -> None:
    chunks = await call(chat, "stream", QUESTION)
    assert len(chunks) > 2
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    assert [chunk.chunk_position for chunk in chunks[-2:]] == [None, "last"]
    assert sum(chunk.usage_metadata is not None for chunk in chunks) == 1
    assert plain(added(chunks)) == plain(await call(chat, "invoke", QUESTION))


TALK = "Sure.\n" + calling(("add", {"a": 1, "b": 2}), ("weather", {"city": 'Os"lo'})) + "\nThere."


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_text_and_calls_come_as_blocks_in_their_order(version: str, chat: Any, call: Caller) -> None:
    llm = saying(chat.model_copy(update={"output_version": version}), TALK).bind_tools([add, weather])
    for message in (await call(llm, "invoke", "x"), added(await call(llm, "stream", "x"))):
        assert message.text == "Sure.\nThere."
        assert [(each["name"], each["args"]) for each in message.tool_calls] == [
            ("add", {"a": 1, "b": 2}), ("weather", {"city": 'Os"lo'}),
        ]  # fmt: skip
        assert message.response_metadata["finish_reason"] == "tool_calls"
        blocks = [block["type"] for block in message.content_blocks]
        assert blocks.count("tool_call") == 2
        if version == "v1":
            assert blocks == ["text", "tool_call", "tool_call", "text"]
            assert message.response_metadata["output_version"] == "v1"
        else:
            assert isinstance(message.content, str)
        assert len({each["id"] for each in message.tool_calls}) == 2


async def test_a_streamed_call_begins_with_its_name_and_id(chat: Any, call: Caller) -> None:
    llm = saying(chat, calling(("add", {"a": 1, "b": 2}))).bind_tools([add])
    pieces = [piece for chunk in await call(llm, "stream", "x") for piece in chunk.tool_call_chunks]
    first, *others = pieces
    assert (first["name"], first["args"], first["index"], len(first["id"])) == ("add", "", 0, 9)
    assert len(others) > 1
    assert all((each["name"], each["id"], each["index"]) == (None, None, 0) for each in others)
    assert json.loads("".join(each["args"] for each in others)) == {"a": 1, "b": 2}


@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_thoughts_are_kept_apart_from_the_answer(version: str, chat: Any, call: Caller) -> None:
    llm = saying(
        chat.model_copy(update={"output_version": version, "chat_template": THINKING}),
        "two and two\n</think>\n\nfour",
    )
    for message in (await call(llm, "invoke", "x"), added(await call(llm, "stream", "x"))):
        assert message.text == "four"
        thought, said = message.content_blocks
        assert (thought["type"], thought["reasoning"]) == ("reasoning", "two and two")
        assert (said["type"], said["text"]) == ("text", "four")
        (read, *_) = to_core([message])
        assert read["reasoning_content"] == "two and two"


CUT = calling(("add", {"a": 1, "b": 2}))


@pytest.mark.parametrize("length", range(12, CUT.index("}}") + 2))
def test_a_call_that_is_cut_off_is_never_a_call(length: int, chat: Any) -> None:
    llm = saying(chat, CUT).bind_tools([add]).bind(max_tokens=length)
    chunks = list(llm.stream("x"))
    message = llm.invoke("x")
    assert message.response_metadata["finish_reason"] == "length"
    assert message.tool_calls == []
    assert added(chunks).tool_calls == []
    (invalid,) = message.invalid_tool_calls
    assert invalid["error"] == "cut off by the end of the text"
    assert CUT[:length].rstrip().endswith(invalid["args"])
    (streamed,) = added(chunks).invalid_tool_calls
    assert streamed["name"] == invalid["name"]


@pytest.mark.parametrize(
    "broken",
    [
        '{"name": "weather", "arguments": {"city": "Oslo}',
        '{"name": "weather", "arguments": {"city": "a\\',
        '{"name": "weather", "arguments": {"city": ["x"',
        '{"name": "weather", "arguments": "x"}',
        '{"name": "weather", "arguments": {"city": tru}}',
        '{"arguments": {"city": "Oslo"}}',
        "weather in Oslo",
        "",
    ],
)
async def test_a_malformed_call_is_an_invalid_call(broken: str, chat: Any, call: Caller) -> None:
    llm = saying(chat, f"<tool_call>\n{broken}\n</tool_call>").bind_tools([weather])
    for message in (await call(llm, "invoke", "x"), added(await call(llm, "stream", "x"))):
        assert message.tool_calls == []
        assert len(message.invalid_tool_calls) == 1
    message = await call(llm, "invoke", "x")
    assert message.invalid_tool_calls[0]["args"].startswith(broken)
    assert message.invalid_tool_calls[0]["error"]
    assert message.response_metadata["finish_reason"] == "stop"


def test_a_broken_call_is_a_block_too(chat: Any) -> None:
    blocks = saying(chat.model_copy(update={"output_version": "v1"}), "Well.<tool_call>{oops</tool_call>")
    message = blocks.bind_tools([add]).invoke("x")
    text, invalid = message.content
    assert text["text"] == "Well."
    assert (invalid["type"], invalid["args"]) == ("invalid_tool_call", "{oops")
    assert invalid["error"] == message.invalid_tool_calls[0]["error"]


async def test_a_broken_call_leaves_the_others_whole(chat: Any, call: Caller) -> None:
    text = calling(("add", {"a": 1, "b": 2})) + "<tool_call>{oops</tool_call>" + calling(("now", {}))
    message = await call(saying(chat, text).bind_tools([add]), "invoke", "x")
    assert [each["name"] for each in message.tool_calls] == ["add", "now"]
    assert len(message.invalid_tool_calls) == 1


# Tools


ANTHROPIC = {
    "name": "pick", "description": "Pick.", "cache_control": {"type": "ephemeral"},
    "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
}  # fmt: skip


def look(place: str) -> str:
    """Look somewhere."""
    return place


@pytest.mark.parametrize("form", [weather, Person, look, ANTHROPIC, SCHEMA, Entry])
def test_tools_come_in_every_form(form: Any, chat: Any) -> None:
    named = chat.bind_tools([form, add], tool_choice="any").bind(temperature=1.0, seed=1, max_tokens=400)
    bound = named.kwargs["tools"][0]["function"]
    assert bound["name"]
    message = chat.bind_tools([form], tool_choice=bound["name"]).invoke("x", max_tokens=400, seed=1)
    called = [*message.tool_calls, *message.invalid_tool_calls]
    assert [each["name"] for each in called] == [bound["name"]]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("add", {"add"}),
        ({"type": "function", "function": {"name": "add"}}, {"add"}),
        ({"type": "tool", "name": "add"}, {"add"}),
        ({"type": "any"}, {"add", "flag"}),
        ("any", {"add", "flag"}),
        ("required", {"add", "flag"}),
        (True, {"add", "flag"}),
    ],
)
async def test_a_choice_makes_the_models_call(choice: Any, names: set[str], chat: Any, call: Caller) -> None:
    flag = {"title": "flag", "description": "d", "type": "object", "properties": {"up": {"type": "boolean"}}}
    llm = chat.bind_tools([add, {**flag, "required": ["up"]}], tool_choice=choice)
    for seed in range(3):
        message = await call(llm, "invoke", "x", temperature=1.0, seed=seed, max_tokens=120)
        called = [*message.tool_calls, *message.invalid_tool_calls]
        assert len(called) == 1, "a call that must be made is one call, unless several are asked for"
        assert {each["name"] for each in called} <= {*names, None}
        assert message.content == ""


async def test_no_choice_forces_no_call(chat: Any, call: Caller) -> None:
    free = (await call(chat, "invoke", "x")).content
    assert free
    for choice in (None, "auto", "none"):
        message = await call(chat.bind_tools([add], tool_choice=choice), "invoke", "x")
        assert not [*message.tool_calls, *message.invalid_tool_calls]
        assert message.content
    assert (await call(chat.bind_tools([], tool_choice=None), "invoke", "x")).content == free


def test_none_shows_neither_calls_nor_their_markup(chat: Any) -> None:
    for text in (CUT, calling(("add", {"a": 1, "b": 2}))):
        llm = saying(chat, f"No.{text}").bind_tools([add], tool_choice="none")
        for message in (llm.invoke("x"), added(list(llm.stream("x")))):
            assert (message.content, message.tool_calls, message.invalid_tool_calls) == ("No.", [], [])
            assert message.response_metadata["finish_reason"] == "stop"


class Opening(LogitsProcessor):
    """Makes every text begin like this."""

    stateless = True

    def __init__(self, model: LanguageModel, opening: str, prompt: int) -> None:
        self.ids, self.prompt = model.encode(opening), prompt

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        at = input_ids.shape[1] - self.prompt
        if at >= len(self.ids):
            return scores
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.ids[at]] = scores[:, self.ids[at]].clamp(min=-1e4)
        return forced


def test_a_free_call_fits_its_schema_once_it_has_begun(chat: Any, pair: Any) -> None:
    flag = {**SCHEMA, "title": "flag"}
    prompt = chat.get_num_tokens_from_messages([HumanMessage("x")], tools=[flag])
    opened = {"logits_processor": [Opening(pair[0], "<tool_call>", prompt)], "max_tokens": 80}
    for seed in range(3):
        options = {**opened, "temperature": 1.0, "seed": seed}
        message = chat.bind_tools([flag]).invoke("x", **options)
        assert [each["args"].keys() for each in message.tool_calls] == [{"up"}]
        assert message.invalid_tool_calls == []
        assert chat.bind_tools([flag], strict=False).invoke("x", **options).invalid_tool_calls


async def test_parallel_calls_can_be_forbidden(chat: Any, call: Caller) -> None:
    unit = {"title": "go", "description": "d", "type": "object", "properties": {}}
    for seed in range(5):
        options = {"temperature": 1.0, "seed": seed, "max_tokens": 300}
        one = chat.bind_tools([unit], tool_choice="any", parallel_tool_calls=False)
        assert len((await call(one, "invoke", "x", **options)).tool_calls) == 1
        many = chat.bind_tools([unit], tool_choice="any", parallel_tool_calls=True)
        assert len((await call(many, "invoke", "x", **options)).tool_calls) >= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"tool_choice": "subtract"},
            "tool_choice='subtract' should be auto, none, any, or one of the tools",
        ),
        ({"tool_choice": 3}, "tool_choice=3"),
        ({"tool_choice": {"function": {"name": "subtract"}}}, "subtract"),
    ],
)
def test_a_choice_of_no_tool_is_refused_at_once(arguments: Any, words: str, chat: Any) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        chat.bind_tools([add], **arguments)
    with pytest.raises(InvalidOptionError, match="cannot be called 'none'"):
        chat.invoke("x", tools=[{**SCHEMA, "title": "none"}])
    with pytest.raises(InvalidOptionError, match="there are no tools"):
        chat.bind_tools([], tool_choice="any")


ONE = {"type": "integer", "minimum": 1, "maximum": 1}
TWICE = {
    "title": "twice", "description": "Its only answer that the grammar admits has equal items.",
    "type": "object", "required": ["x"], "additionalProperties": False,
    "properties": {"x": {"type": "array", "items": ONE, "minItems": 2, "maxItems": 2, "uniqueItems": True}},
}  # fmt: skip
BROKEN_RULE = r"uniqueItems at \$\.x: \[1, 1\] has non-unique elements"


@pytest.mark.parametrize("options", [{}, {"strict": True}, {"tool_choice": "any"}], ids=str)
async def test_a_call_that_breaks_a_rule_no_grammar_enforces_is_invalid(
    options: Any, chat: Any, call: Caller
) -> None:
    said = calling(("twice", {"x": [1, 1]}), ("add", {"a": 1, "b": 2}))
    chat = chat.model_copy(update={"max_new_tokens": 400})
    if "tool_choice" not in options:
        chat = saying(chat, said)
    llm = chat.bind_tools([TWICE, add] if "tool_choice" not in options else [TWICE], **options)
    message = await call(llm, "invoke", "x")
    (invalid,) = message.invalid_tool_calls
    assert re.search(BROKEN_RULE, invalid["error"])
    assert invalid["name"] == "twice"
    merged = added(await call(llm, "stream", "x"))
    assert [each["name"] for each in merged.invalid_tool_calls] == ["twice"]
    assert re.search(BROKEN_RULE, merged.response_metadata["schema_error"])
    valid = [("add", {"a": 1, "b": 2})] if "tool_choice" not in options else []
    for each in (message, merged):
        assert [(call["name"], call["args"]) for call in each.tool_calls] == valid
    loose = await call(llm.bind(strict=False), "invoke", "x")
    assert bool(loose.invalid_tool_calls) == ("tool_choice" in options), "forced calls are always checked"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_an_answer_that_breaks_a_rule_no_grammar_enforces_is_the_parsers_error(
    method: Any, chat: Any, call: Caller
) -> None:
    chat = chat.model_copy(update={"max_new_tokens": 200})
    llm = chat.with_structured_output(TWICE, method=method)
    for run, given in (("invoke", "x"), ("stream", "x"), ("batch", ["x", "y"])):
        with pytest.raises(OutputParserException, match=BROKEN_RULE):
            await call(llm, run, given)
    raw = chat.with_structured_output(TWICE, method=method, include_raw=True)
    streamed = added(await call(raw, "stream", "x"))
    for result in (await call(raw, "invoke", "x"), streamed, *(await call(raw, "batch", ["x", "y"]))):
        assert result["parsed"] is None
        assert isinstance(result["parsing_error"], OutputParserException)
        assert re.search(BROKEN_RULE, str(result["parsing_error"]))


def test_a_conversation_with_tools_goes_round(chat: Any) -> None:
    llm = saying(chat, calling(("add", {"a": 1, "b": 2}))).bind_tools([add])
    asked = llm.invoke("What is 1 + 2?")
    result = add.invoke(asked.tool_calls[0])
    assert isinstance(result, ToolMessage)
    history = [HumanMessage("What is 1 + 2?"), asked, result]
    assert chat.bind_tools([add]).invoke(history).content
    shown = render(Chat(to_core(history)), [chat.draft_model]).text
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}' in shown
    assert '"content": "3"' in shown


# Structured output


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("schema", [Person, Entry, SCHEMA], ids=["pydantic", "typeddict", "json"])
async def test_structured_output_is_valid(schema: Any, method: Any, chat: Any, call: Caller) -> None:
    llm = chat.with_structured_output(schema, method=method)
    for seed in range(3):
        value = await call(llm.bind(temperature=1.0, seed=seed, max_tokens=120), "invoke", "x")
        if schema is Person:
            assert isinstance(value, Person)
        else:
            (answer,) = value.values()
            assert answer in (True, False)
    *_, last = await call(llm.bind(temperature=1.0, seed=2, max_tokens=120), "stream", "x")
    assert last == value


class Bell(Enum):
    RINGS = "rings"
    IS_STILL = "is still"


class Strict(BaseModel):
    """Takes Python's values alone, but from JSON what JSON has for them."""

    model_config = ConfigDict(strict=True)

    bell: Bell
    day: date = Field(json_schema_extra={"enum": ["2026-11-30"]})


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_a_strict_class_takes_what_json_has_for_its_values(
    method: Any, chat: Any, call: Caller
) -> None:
    llm = chat.with_structured_output(Strict, method=method).bind(max_tokens=120)
    value = await call(llm, "invoke", "x")
    assert isinstance(value.bell, Bell)
    assert value.day == date(2026, 11, 30)


@pytest.mark.parametrize(
    "schema",
    [{"enum": ["up"]}, {"const": "up"}, {"anyOf": [{"const": "up"}]}, {"type": ["string"], "const": "up"}],
)
async def test_any_json_schema_is_taken(schema: Any, chat: Any, call: Caller) -> None:
    assert await call(chat.with_structured_output(schema).bind(max_tokens=20), "invoke", "x") == "up"


async def test_a_stream_of_structured_output_grows(chat: Any, call: Caller) -> None:
    schema = {**SCHEMA, "properties": {"up": {"type": "boolean"}, "down": {"type": "boolean"}},
              "required": ["up", "down"]}  # fmt: skip
    values = await call(chat.with_structured_output(schema).bind(max_tokens=60), "stream", "x")
    assert len(values) > 1
    assert values[-1].keys() == {"up", "down"}


async def test_json_mode_gives_any_object(chat: Any, call: Caller) -> None:
    llm = chat.model_copy(
        update={"temperature": 1.0, "seed": 0, "max_new_tokens": 60}
    ).with_structured_output(None, method="json_mode", include_raw=True)
    whole = []
    for seed in range(12):
        result = await call(llm, "invoke", f"question {seed}")
        if result["raw"].response_metadata["finish_reason"] == "stop":
            whole.append(result["parsed"])
            assert json.loads(result["raw"].content) == result["parsed"]
        else:
            assert result["parsing_error"]
    assert whole
    assert all(isinstance(each, dict) for each in whole)


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
async def test_an_answer_that_is_cut_off_is_never_parsed(
    method: Any, include_raw: bool, chat: Any, call: Caller
) -> None:
    class Story(BaseModel):
        """A story."""

        text: str = Field(min_length=500)
        moral: str = ""

    short = chat.model_copy(update={"max_new_tokens": 60})
    llm = short.with_structured_output(Story, method=method, include_raw=include_raw)
    if include_raw:
        streamed = await call(llm, "stream", "x")
        assert len(streamed) > 2
        for result in (await call(llm, "invoke", "x"), added(streamed), *(await call(llm, "batch", ["x"]))):
            assert result["parsed"] is None
            assert "cut off after max_tokens=60" in str(result["parsing_error"])
            assert result["raw"].response_metadata["finish_reason"] == "length"
        return
    for run in ("invoke", "stream"):
        with pytest.raises(OutputParserException, match="cut off after max_tokens=60"):
            await call(llm, run, "x")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"schema": Person, "method": "magic"}, "method='magic' should be"),
        ({"schema": None}, "needs a schema"),
        ({"schema": None, "method": "function_calling"}, "needs a schema"),
        ({"schema": {"a": 1}}, "schema="),
        ({"schema": 5}, "schema=5"),
        ({"schema": "Person", "method": "function_calling"}, "tools="),
    ],
)
def test_a_wrong_way_to_structure_is_refused_at_once(arguments: Any, words: str, chat: Any) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        chat.with_structured_output(**arguments)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("include_raw", [False, True])
async def test_an_answer_that_a_stop_string_cut_is_never_parsed(
    method: Any, include_raw: bool, chat: Any, call: Caller
) -> None:
    bell = {"title": "Bell", "description": "d", "type": "object", "required": ["name"],
            "properties": {"name": {"enum": ["Anna Bell"]}}}  # fmt: skip
    stopping = chat.model_copy(update={"stop": ("Bell",), "max_new_tokens": 200})
    llm = stopping.with_structured_output(bell, method=method, include_raw=include_raw)
    if include_raw:
        result = await call(llm, "invoke", "x")
        assert result["parsed"] is None
        assert "cut off by stop=" in str(result["parsing_error"])
        return
    for run in ("invoke", "stream"):
        with pytest.raises(OutputParserException, match="cut off by stop="):
            await call(llm, run, "x")


class Tree(BaseModel):
    """A tree."""

    up: bool
    kids: list["Tree"] = Field(default=[], max_length=1)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_class_that_refuses_the_answer_is_the_parsers_error(method: Any, chat: Any) -> None:
    class Never(BaseModel):
        """Never."""

        n: int = Field(ge=0, le=9)

        @field_validator("n")
        @classmethod
        def _refuse(cls, value: int) -> int:
            raise ValueError(f"not {value}")

    llm = chat.model_copy(update={"max_new_tokens": 200}).with_structured_output(Never, method=method)
    with pytest.raises(OutputParserException, match=r"not \d"):
        llm.invoke("x")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_a_schema_that_refers_to_itself_is_held_to(method: Any, chat: Any) -> None:
    sampling = chat.model_copy(update={"temperature": 1.5, "max_new_tokens": 200})
    for seed in range(8):
        seeded = sampling.model_copy(update={"seed": seed})
        llm = seeded.with_structured_output(Tree, method=method, include_raw=True)
        result = llm.invoke("x")
        cut = result["raw"].response_metadata["finish_reason"] == "length"
        assert cut or isinstance(result["parsed"], Tree)


def test_structured_output_can_be_pickled() -> None:
    draft, assistant = load_pair()
    named = ChatCoSD(
        draft_model=draft.source,
        assistant_model=assistant.source,
        dtype="float32",
        device="cpu",
        max_tokens=60,
    )
    for method in ("json_schema", "function_calling"):
        copied = pickle.loads(pickle.dumps(named.with_structured_output(Tree, method=method)))
        assert copied.first.kwargs


def test_json_that_is_nested_too_deeply_is_the_parsers_error() -> None:
    with pytest.raises(OutputParserException):
        json_parser(None).invoke(AIMessage("[" * 100_000 + "]" * 100_000))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
        {"title": "Two", "type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
    ],
)
async def test_an_answer_may_be_a_list(schema: Any, chat: Any, call: Caller) -> None:
    first, second = await call(chat.with_structured_output(schema).bind(max_tokens=40), "invoke", "x")
    assert {first, second} <= {True, False}


async def test_a_schema_needs_no_title(chat: Any, call: Caller) -> None:
    untitled = {name: value for name, value in SCHEMA.items() if name != "title"}
    value = await call(chat.with_structured_output(untitled).bind(max_tokens=40), "invoke", "x")
    assert value.keys() == {"up"}


def test_models_are_told_of_the_schema(chat: Any) -> None:
    told = chat.get_num_tokens_from_messages(
        [SystemMessage(f"Answer with JSON for this schema:\n{json.dumps(SCHEMA)}"), HumanMessage("x")]
    )
    message = chat.invoke("x", response_format={"type": "json_schema", "json_schema": {"schema": SCHEMA}})
    assert message.usage_metadata["input_tokens"] == told


@pytest.mark.parametrize(
    ("form", "is_json"),
    [
        ({"type": "json_schema", "json_schema": {"name": "Flag", "schema": SCHEMA}}, True),
        (Entry, True),
        ({"type": "text"}, False),
        (None, False),
    ],
)
async def test_response_format_as_openai_has_it(form: Any, is_json: bool, chat: Any, call: Caller) -> None:
    content = (await call(chat, "invoke", "x", response_format=form, max_tokens=40)).content
    if is_json:
        assert len(json.loads(content)) == 1
    else:
        assert content == chat.invoke("x", max_tokens=40).content


async def test_tools_and_an_answer_format_together(chat: Any, call: Caller) -> None:
    """What create_agent binds: call a tool, or answer with JSON."""
    unit = {"title": "go", "description": "d", "type": "object", "properties": {}}
    form = {"type": "json_schema", "json_schema": {"name": "Flag", "schema": SCHEMA}}
    both = chat.bind_tools([unit], response_format=form)
    prompt = both.invoke("x").usage_metadata["input_tokens"]

    async def beginning(opening: str) -> Any:
        forced = [Opening(chat.draft_model, opening, prompt)]
        return await call(both, "invoke", "x", logits_processor=forced, max_tokens=120)

    assert json.loads((await beginning("{")).content).keys() == {"up"}
    assert [each["name"] for each in (await beginning("<")).tool_calls] == ["go"]
    with pytest.raises(CoSDError):
        await beginning("Hello")


# Options


OPTIONS: list[dict[str, Any]] = [
    {"max_tokens": 7},
    {"temperature": 1.0, "seed": 3, "top_p": 0.5},
    {"temperature": 1.5, "seed": 3, "top_k": 2},
    {"repetition_penalty": 1.8},
    {"grammar": Grammar.regex("[a-z]{4,9}")},
    {"stop": ["w"]},
    {"verifier": "draft"},
    {"chat_template": "{{ messages[-1].content }}"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options))
async def test_every_option_works_in_the_constructor_and_per_call(
    options: dict[str, Any], chat: Any, pair: Any, call: Caller
) -> None:
    built = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], **{"max_tokens": 24, **options})
    expected = built.invoke(QUESTION).content
    assert expected != chat.invoke(QUESTION).content
    assert (await call(built, "invoke", QUESTION)).content == expected
    assert (await call(chat, "invoke", QUESTION, **options)).content == expected
    assert added(await call(chat, "stream", QUESTION, **options)).content == expected
    assert (await call(chat.bind(**options), "invoke", QUESTION)).content == expected
    assert [each.content for each in await call(chat, "batch", [QUESTION], **options)] == [expected]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alhpa": 0.1}, "did you mean 'alpha'"),
        ({"temprature": 1.0}, "did you mean 'temperature'"),
        ({"top_p": 7.0}, "top_p=7.0"),
        ({"chat_template": 3}, "chat_template=3"),
    ],
)
async def test_wrong_options_are_refused_by_name(
    options: dict[str, Any], words: str, chat: Any, pair: Any, call: Caller
) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        ChatCoSD(draft_model=pair[0], assistant_model=pair[1], **options)
    for method, question in (("invoke", "x"), ("stream", "x"), ("batch", ["x", "y"])):
        with pytest.raises(InvalidOptionError, match=words):
            await call(chat, method, question, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"response_format": {"type": "xml"}}, "response_format="),
        ({"response_format": "json"}, "response_format='json'"),
        ({"response_format": int}, "schema=<class 'int'>"),
        ({"tools": [{"no": "name"}]}, "tool"),
        ({"tool_choice": "any"}, "there are no tools"),
        ({"draft_model": "x"}, "draft_model is read when models are loaded"),
        ({"grammar": Grammar.regex("a"), "response_format": {"type": "json_object"}}, "contradicts"),
    ],
)
async def test_wrong_answer_forms_are_refused(options: Any, words: str, chat: Any, call: Caller) -> None:
    for method in ("invoke", "stream"):
        with pytest.raises(InvalidOptionError, match=words):
            await call(chat, method, "x", **options)


async def test_stop_strings_never_show(chat: Any, call: Caller) -> None:
    text = chat.invoke("Hello").content
    here = text[4:7]
    message = await call(chat, "invoke", "Hello", stop=[here])
    assert message.content == text[: text.index(here)]
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.response_metadata["stop_sequence"] == here
    assert added(await call(chat, "stream", "Hello", stop=[here])).content == text[: text.index(here)]


async def test_streaming_answers_invoke_token_by_token(chat: Any, pair: Any, call: Caller) -> None:
    class Seen(BaseCallbackHandler):
        tokens = 0

        def on_llm_new_token(self, *_: Any, **__: Any) -> None:
            Seen.tokens += 1

    expected = plain(await call(chat, "invoke", "Hello", {"callbacks": [Seen()]}))
    assert Seen.tokens == 0
    streaming = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], max_tokens=24, streaming=True)
    assert plain(await call(streaming, "invoke", "Hello", {"callbacks": [Seen()]})) == expected
    assert Seen.tokens > 2
    assert plain(await call(chat, "invoke", "Hello", stream=True)) == expected


# Errors, time, many at once


async def test_errors_while_decoding_reach_the_caller(chat: Any, pair: Any, call: Caller) -> None:
    def fail(number: int, _output: Any) -> None:
        if number == 3:
            raise RuntimeError("the device is gone")

    for method in ("invoke", "stream"):
        with on_pass(pair[0], fail), pytest.raises(CoSDError, match="the device is gone"):
            await call(chat, method, "Hello")
    assert (await call(chat, "invoke", "Hello")).content, "the model stays usable"


async def test_context_overflow_is_langchains_error_too(chat: Any, call: Caller) -> None:
    for kind in (ContextOverflowError, LangChainContextOverflowError):
        with pytest.raises(kind, match="context window of 4096"):
            await call(chat, "invoke", "x" * 5000)


async def test_a_timeout_ends_the_work(chat: Any, pair: Any, call: Caller) -> None:
    with (
        on_pass(pair[0], lambda *_: time.sleep(0.05)),
        counted_passes(pair[0]) as passes,
        pytest.raises(ModelTimeoutError, match=r"timeout=0\.1"),
    ):
        await call(chat, "invoke", "Hello", timeout=0.1)
    await asyncio.sleep(0.3)
    assert len(passes) < 24


def test_closing_a_stream_stops_the_work(chat: Any, pair: Any) -> None:
    with counted_passes(pair[0]) as passes:
        stream = chat.stream("Hello", max_tokens=200)
        next(stream)
        stream.close()
    assert len(passes) < 20


async def test_leaving_an_asynchronous_stream_stops_the_work(chat: Any, pair: Any) -> None:
    with counted_passes(pair[0]) as passes:
        stream = chat.astream("Hello", max_tokens=200)
        await anext(stream)
        await stream.aclose()
        await asyncio.sleep(0.2)
        assert len(passes) < 30


async def test_a_cancelled_call_leaves_no_work_behind(chat: Any, pair: Any) -> None:
    with counted_passes(pair[0]) as passes:
        task = asyncio.create_task(chat.ainvoke("Hello", max_tokens=200))
        while not passes:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        done = len(passes)
        await asyncio.sleep(0.2)
        assert len(passes) == done < 100


async def test_sixteen_calls_and_four_streams_at_once_do_not_mix_nor_block_the_loop(chat: Any) -> None:
    questions = [f"{at} questions" for at in range(20)]
    expected = [chat.invoke(question).content for question in questions]

    async def asked(question: str) -> str:
        return (await chat.ainvoke(question)).content

    async def streamed(question: str) -> str:
        return "".join([chunk.content async for chunk in chat.astream(question)])

    async with loop_stays_free():
        answers = await asyncio.gather(*map(asked, questions[:16]), *map(streamed, questions[16:]))
    assert answers == expected


async def test_calls_with_tools_at_once_do_not_mix(chat: Any) -> None:
    texts = [calling(("add", {"a": at, "b": 2 * at})) for at in range(8)]
    bound = [saying(chat, text).bind_tools([add]) for text in texts]
    messages = await asyncio.gather(*(each.ainvoke("x") for each in bound))
    assert [message.tool_calls[0]["args"] for message in messages] == [
        {"a": at, "b": 2 * at} for at in range(8)
    ]


# LangChain's own machinery


async def test_batches_come_in_order(chat: Any, call: Caller) -> None:
    questions = ["Hello", "a somewhat longer question", "x = 1"]
    answers = await call(chat, "batch", questions)
    assert [each.content for each in answers] == [chat.invoke(each).content for each in questions]


async def test_the_cache_tells_options_tools_and_pairs_apart(pair: Any, call: Caller) -> None:
    def build(*models: LanguageModel, **settings: Any) -> ChatCoSD:
        return ChatCoSD(
            draft_model=models[0], assistant_model=models[1], max_tokens=9, cache=cache, **settings
        )

    cache = InMemoryCache()
    chat = build(*pair)
    first = (await call(chat, "invoke", "Hello")).content
    with counted_passes(*pair) as passes:
        assert (await call(build(*pair), "invoke", "Hello")).content == first
    assert passes == [], "the same question again is answered by the cache"
    others = [
        chat.bind(max_tokens=3),
        chat.bind(temperature=1.0, seed=1),
        chat.bind(stop=["w"]),
        chat.bind_tools([add]),
        build(*pair, alpha=0.9),
        build(*reversed(pair)),
        build(*pair, chat_template="{{ messages[0].content }}"),
    ]
    for other in others:
        with counted_passes(*pair) as passes:
            await call(other, "invoke", "Hello")
        assert passes, "another question"


async def test_the_cache_looks_into_processors_and_answer_forms(pair: Any, call: Caller) -> None:
    settings = {"draft_model": pair[0], "assistant_model": pair[1], "max_tokens": 40}
    chat = ChatCoSD(**settings, cache=InMemoryCache())

    def flag(key: str) -> type[BaseModel]:
        return create_model("Out", **{key: (bool, ...)})

    for key in ("up", "down"):
        assert key in (await call(chat, "invoke", "x", response_format=flag(key))).content
    for letter in "abcd":
        processor = Opening(pair[0], letter, chat.get_num_tokens_from_messages([HumanMessage("x")]))
        assert (await call(chat, "invoke", "x", logits_processor=[processor])).content[0] == letter


async def test_usage_adds_up_for_the_callback(chat: Any, call: Caller) -> None:
    usage = UsageMetadataCallbackHandler()
    await call(chat, "invoke", "Hello", {"callbacks": [usage]})
    await call(chat, "invoke", "Hello", {"callbacks": [usage]})
    assert usage.usage_metadata["random-0+random-1"]["output_tokens"] == 48


async def test_fields_can_be_configurable_by_either_name(chat: Any, call: Caller) -> None:
    for name in ("max_tokens", "max_new_tokens"):
        configurable = chat.configurable_fields(**{name: ConfigurableField(id="length")})
        message = await call(configurable, "invoke", "x", {"configurable": {"length": 4}})
        assert message.usage_metadata["output_tokens"] == 4


async def test_fallbacks_and_retries_see_its_errors(chat: Any, call: Caller) -> None:
    long = "x" * 4060
    assert await call(chat.with_fallbacks([chat.bind(max_tokens=2)]), "invoke", long)
    with pytest.raises(ContextOverflowError):
        await call(chat.with_retry(stop_after_attempt=1), "invoke", long)


async def test_events_of_both_versions_show_the_answer(chat: Any) -> None:
    expected = chat.invoke("Hello").content
    events = [event async for event in chat.astream_events("Hello", version="v2")]
    shown = [each["data"]["chunk"].content for each in events if each["event"] == "on_chat_model_stream"]
    assert "".join(shown) == expected
    stream = chat.stream_events("Hello", version="v3")
    assert "".join(stream.text) == expected
    assert stream.output.usage_metadata["output_tokens"] == 24


def test_events_show_calls_as_blocks(chat: Any) -> None:
    blocks = chat.model_copy(update={"output_version": "v1"})
    stream = saying(blocks, TALK).bind_tools([add, weather]).stream_events("x", version="v3")
    finished = [each["content"] for each in stream if each["event"] == "content-block-finish"]
    assert [block["type"] for block in finished] == ["text", "tool_call", "tool_call", "text"]
    assert [block["args"] for block in finished[1:3]] == [{"a": 1, "b": 2}, {"city": 'Os"lo'}]


def test_tracing_learns_provider_model_and_options(chat: Any) -> None:
    assert chat._get_ls_params(stop=["x"], temperature=0.5, tools=[]) == {
        "ls_provider": "cosd", "ls_model_type": "chat", "ls_model_name": "random-0+random-1",
        "ls_temperature": 0.5, "ls_max_tokens": 24, "ls_stop": ["x"],
    }  # fmt: skip


def test_the_profile_follows_the_settings_unless_it_was_given(chat: Any, pair: Any) -> None:
    chat.max_tokens = 96
    assert chat.profile["max_input_tokens"] == 4096 - 96
    assert chat.profile["max_output_tokens"] == 96
    own = {"max_input_tokens": 7}
    given = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], profile=own)
    given.max_new_tokens = 5
    assert given.profile == own


def test_no_limit_of_tokens_means_the_default(pair: Any) -> None:
    given = ChatCoSD(draft_model=pair[0], assistant_model=pair[1], max_tokens=None)
    assert given.max_tokens == 128


@pytest.mark.parametrize(
    "part",
    [
        {"type": "server_tool_call", "name": "search", "id": "1", "args": {}},
        {"type": "server_tool_result", "tool_call_id": "1", "status": "success"},
        {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
        {"type": "non_standard", "value": {"a": 1}},
        {"type": "refusal", "refusal": "No."},
    ],
    ids=lambda part: part["type"],
)
def test_histories_that_other_providers_wrote_are_read(chat: Any, part: dict[str, Any]) -> None:
    """What only the provider understands is left out; words, a refusal's too, are not."""
    words = ["Yes."] if part["type"] != "refusal" else ["Yes.", "No."]
    foreign = AIMessage([{"type": "text", "text": "Yes."}, part])
    told = AIMessage([{"type": "text", "text": each} for each in words])
    answers = [chat.invoke([HumanMessage("a"), each, HumanMessage("b")]).content for each in (foreign, told)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("choice", ["any", "none", "auto"])
def test_tools_in_the_flat_form_may_be_chosen(chat: Any, choice: str) -> None:
    answer = chat.invoke("x", tools=[{"type": "function", "name": "f"}], tool_choice=choice, max_tokens=120)
    assert [each["name"] for each in answer.tool_calls] == ["f"] * (choice == "any")


def test_functions_take_objects_only(chat: Any) -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    with pytest.raises(InvalidOptionError, match="functions take objects"):
        chat.with_structured_output(numbers, method="function_calling")


def test_the_profile_says_what_it_can(chat: Any) -> None:
    assert chat.profile["max_input_tokens"] == 4096 - 24
    assert chat.profile["tool_calling"] is chat.profile["structured_output"] is True
    assert chat.profile["image_inputs"] is False
    draft, assistant = (model.source for model in load_pair())
    assert ChatCoSD(draft_model=draft, assistant_model=assistant).profile["max_input_tokens"] > 0
    assert "max_input_tokens" not in ChatCoSD(draft_model="no/such", assistant_model="none/either").profile


def test_weights_show_up_in_no_trace(chat: Any) -> None:
    for told in (repr(chat), dumps(chat), str(chat)):
        assert len(told) < 4000
        assert "Embedding" not in told


def test_both_classes_share_the_weights_of_one_pair(chat: Any) -> None:
    draft, assistant = load_pair()
    named = {
        "draft_model": draft.source, "assistant_model": assistant.source, "dtype": "float32", "device": "cpu",
    }  # fmt: skip
    assert ChatCoSD(**named)._decoder().draft is CoSDLLM(**named)._decoder().draft is draft
