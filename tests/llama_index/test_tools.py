"""Tools: how they are offered, how calls are read, and what is never taken for a call."""

import json
from collections.abc import Callable
from typing import Any, Literal

import pytest
from llama_index.core.agent.react import ReActChatFormatter, ReActOutputParser
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from cosd_core import ContextOverflowError, GenerationError, InvalidOptionError
from llama_index_cosd import CoSDLLM
from tests.grids import every
from tests.llama_index.conftest import ASSISTANT, SYSTEM, TOOL, USER, Spied, saying, scripted, within

# Workflows look at themselves with inspect, which finds pydantic's old names.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The `__fields(_set)?__` attribute is deprecated"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_(computed_)?fields' attribute on the instance"),
]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def weather(city: Literal["Oslo", "Rome"]) -> str:
    """Look up the weather."""
    return f"rain in {city}"


def now() -> str:
    """Tell the time."""
    return "noon"


def broken(city: str) -> str:
    """Always fail."""
    raise RuntimeError(f"no such city: {city}")


ADD, WEATHER, NOW, BROKEN = map(FunctionTool.from_defaults, (add, weather, now, broken))
METHODS = ("chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools")
every_method = pytest.mark.parametrize("method", METHODS)


def calling(*calls: tuple[str, dict[str, Any]]) -> str:
    written = [json.dumps({"name": name, "arguments": arguments}) for name, arguments in calls]
    return "\n".join(f"<tool_call>\n{each}\n</tool_call>" for each in written)


async def asked(llm: Any, method: str, tools: Any, **options: Any) -> list[ChatResponse]:
    """All responses of one call."""
    options = {"user_msg": "What?", **options}
    result = getattr(llm, method)(tools, **options)
    if method.startswith("a"):
        result = await result
    if "stream" not in method:
        return [result]
    return [each async for each in result] if method.startswith("a") else list(result)


def mark_of(llm: Any) -> str:
    return "<|im_start|>assistant\n" if llm.metadata.is_chat_model else "### Assistant\n"


def telling(llm: Any, text: str, **settings: Any) -> CoSDLLM:
    """The model, which answers this, tags as tokens."""
    return scripted(llm, text, mark_of(llm), **settings)


def selected(llm: Any, response: ChatResponse) -> list[tuple[str, dict[str, Any]]]:
    calls = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    return [(each.tool_name, each.tool_kwargs) for each in calls]


# How they are offered


async def test_tools_are_shown_to_the_models(llm: Any) -> None:
    spied = Spied(llm)
    for method in METHODS:
        await asked(spied.llm, method, [ADD, WEATHER])
        shown = spied.only
        for word in ("add", "Add two numbers.", "weather", "Look up the weather.", "Oslo", "What?"):
            assert word in shown


async def test_history_and_question_are_shown_in_order(llm: Any) -> None:
    spied = Spied(llm)
    history = [
        ChatMessage(role=SYSTEM, content="ONE"),
        ChatMessage("TWO"),
        ChatMessage(role=ASSISTANT, content="THREE"),
    ]
    for question in ("FOUR", ChatMessage(role=USER, content="FOUR"), None):
        for method in METHODS:
            await asked(spied.llm, method, [NOW], user_msg=question, chat_history=history)
            shown = spied.only
            words = ["ONE", "TWO", "THREE", *(["FOUR"] if question else [])]
            places = [shown.index(word) for word in words]
            assert places == sorted(places)


@every_method
async def test_a_call_that_is_required_is_one_call_of_an_offered_tool(llm: Any, method: str) -> None:
    for seed in range(3):
        options = {"temperature": 1.0, "seed": seed, "max_tokens": 300}
        *_, last = await asked(llm, method, [WEATHER, NOW], tool_required=True, **options)
        ((name, arguments),) = selected(llm, last)
        assert (name, arguments) in [
            ("weather", {"city": "Oslo"}),
            ("weather", {"city": "Rome"}),
            ("now", {}),
        ]
        assert last.raw["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "choice",
    ["weather", {"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}],
)
async def test_a_named_tool_must_be_called(llm: Any, choice: Any) -> None:
    for method in METHODS:
        *_, last = await asked(llm, method, [NOW, WEATHER], tool_choice=choice, max_tokens=300)
        assert [name for name, _ in selected(llm, last)] == ["weather"]


async def test_models_are_free_to_call_or_not(llm: Any) -> None:
    for method in METHODS:
        for options in ({}, {"tool_choice": "auto"}, {"tool_choice": "none", "tool_required": True}):
            *_, last = await asked(llm, method, [NOW], **options)
            assert selected(llm, last) == []
            assert last.message.content
            assert not last.message.additional_kwargs


async def test_several_calls_only_where_they_are_allowed(llm: Any) -> None:
    options = {"tool_required": True, "temperature": 1.0, "max_tokens": 400}
    for seed in range(3):
        *_, one = await asked(llm, "chat_with_tools", [NOW], seed=seed, **options)
        assert len(selected(llm, one)) == 1
    two = telling(llm, calling(("now", {}), ("now", {})))
    for method in METHODS:
        *_, last = await asked(two, method, [NOW], allow_parallel_tool_calls=True)
        assert selected(llm, last) == [("now", {}), ("now", {})]


async def test_a_choice_of_no_tool_is_refused(llm: Any) -> None:
    for method in METHODS:
        with pytest.raises(InvalidOptionError, match="tool_choice='subtract'"):
            await asked(llm, method, [ADD], tool_choice="subtract")
        with pytest.raises(InvalidOptionError, match="there are no tools"):
            await asked(llm, method, [], tool_required=True)
        with pytest.raises(InvalidOptionError, match="bananas"):
            await asked(llm, method, [ADD], bananas=1)


async def test_openais_form_is_understood_by_chat_itself(llm: Any) -> None:
    tools = [WEATHER.metadata.to_openai_tool(), NOW.metadata.to_openai_tool()]
    answer = llm.chat([ChatMessage("What?")], tools=tools, tool_choice="required", max_tokens=300)
    assert selected(llm, answer)[0][0] in ("weather", "now")


# How calls are read


TALK = "Sure.\n" + calling(("add", {"a": 1, "b": 2}), ("weather", {"city": "Oslo"}))
TWO = [("add", {"a": 1, "b": 2}), ("weather", {"city": "Oslo"})]


@every_method
async def test_calls_are_blocks_and_openais_dictionaries(llm: Any, method: str) -> None:
    *_, last = await asked(telling(llm, TALK), method, [ADD, WEATHER], allow_parallel_tool_calls=True)
    message = last.message
    assert message.content == "Sure."
    assert [type(block) for block in message.blocks] == [TextBlock, ToolCallBlock, ToolCallBlock]
    assert [(each.tool_name, each.tool_kwargs) for each in message.blocks[1:]] == TWO
    told = message.additional_kwargs["tool_calls"]
    assert [(each["function"]["name"], json.loads(each["function"]["arguments"])) for each in told] == TWO
    assert {each["type"] for each in told} == {"function"}
    ids = [each["id"] for each in told]
    assert ids == [each.tool_call_id for each in message.blocks[1:]]
    assert [each.tool_id for each in llm.get_tool_calls_from_response(last)] == ids
    assert len(set(ids)) == 2
    assert last.raw["finish_reason"] == "tool_calls"
    json.loads(last.model_dump_json())


async def test_a_call_without_words_has_no_text(llm: Any) -> None:
    answer = telling(llm, calling(("now", {}))).chat_with_tools([NOW], user_msg="What?")
    assert answer.message.content is None
    assert [type(block) for block in answer.message.blocks] == [ToolCallBlock]


@pytest.mark.parametrize("method", METHODS[2:])
async def test_a_streamed_call_grows(llm: Any, method: str) -> None:
    stream = await asked(telling(llm, TALK), method, [ADD, WEATHER], allow_parallel_tool_calls=True)
    assert "".join(each.delta or "" for each in stream) == stream[-1].message.content == "Sure."
    grown = [selected(llm, each) for each in stream]
    assert grown[-1] == TWO
    assert grown[0] == []
    assert ("add", {}) in [call for calls in grown for call in calls], "its name comes first"
    assert len([calls for calls in grown if len(calls) == 1]) > 1
    for each in stream:
        whole = [block for block in each.message.blocks if isinstance(block, ToolCallBlock)]
        assert all((block.tool_name, block.tool_kwargs) in TWO for block in whole), "blocks are whole"
    ids = {call["id"] for each in stream for call in each.message.additional_kwargs.get("tool_calls", ())}
    assert len(ids) == 2, "a call keeps its id"


async def test_a_response_of_blocks_alone_is_read_too(llm: Any) -> None:
    block = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 1, "b": 2})
    (found,) = llm.get_tool_calls_from_response(
        ChatResponse(message=ChatMessage(role=ASSISTANT, blocks=[block]))
    )
    assert (found.tool_id, found.tool_name, found.tool_kwargs) == ("c1", "add", {"a": 1, "b": 2})
    text = ToolCallBlock(tool_name="add", tool_kwargs='{"a": 1')
    (found,) = llm.get_tool_calls_from_response(
        ChatResponse(message=ChatMessage(role=ASSISTANT, blocks=[text]))
    )
    assert (found.tool_id, found.tool_kwargs) == ("", {"a": 1})


def test_an_answer_without_calls_is_an_error_on_request(llm: Any) -> None:
    answer = ChatResponse(message=ChatMessage(role=ASSISTANT, content="no"))
    with pytest.raises(GenerationError, match="calls no tool: 'no'"):
        llm.get_tool_calls_from_response(answer)
    assert llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False) == []


async def test_thoughts_are_blocks_and_deltas(chat: Any) -> None:
    thinking = "{% for m in messages %}{{ m.content }}\n{% endfor %}<think>"
    told = scripted(chat, "two and two\n</think>\n\nfour", "<think>", chat_template=thinking)
    for method in ("chat", "stream_chat"):
        result = getattr(told, method)([ChatMessage("x")])
        stream = [result] if method == "chat" else list(result)
        thought, text = stream[-1].message.blocks
        assert isinstance(thought, ThinkingBlock)
        assert (thought.content, text.text) == ("two and two", "four")
        assert stream[-1].message.content == "four" == "".join(each.delta for each in stream)
        deltas = [each.additional_kwargs.get("thinking_delta", "") for each in stream]
        assert "".join(deltas) == "two and two"


# What is never taken for a call


CUT = calling(("add", {"a": 1, "b": 2}))


@pytest.mark.parametrize("length", every(3, range(14, CUT.index("}}") + 2, 6)))
async def test_a_call_that_is_cut_off_is_never_a_call(llm: Any, length: int) -> None:
    tokens = len(llm.get_tokenizer().encode(CUT[:length], add_special_tokens=False))
    cut = telling(llm, CUT, max_new_tokens=tokens)
    for method in METHODS:
        *_, last = await asked(cut, method, [ADD], strict=False)
        assert last.raw["finish_reason"] == "length"
        assert selected(llm, last) == []
        assert not [block for block in last.message.blocks if isinstance(block, ToolCallBlock)]
        assert last.additional_kwargs["invalid_tool_calls"] == ["cut off by the end of the text"]
        assert last.message.content, "nothing is lost"


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "weather", "arguments": {"city": "Oslo}',
        '{"name": "weather", "arguments": {"city": ["x"',
        '{"name": "weather", "arguments": "x"}',
        '{"arguments": {"city": "Oslo"}}',
        "weather in Oslo",
        "",
    ],
)
async def test_a_malformed_call_is_text(llm: Any, text: str) -> None:
    said = telling(llm, f"Well. <tool_call>\n{text}\n</tool_call>")
    for method in ("chat_with_tools", "astream_chat_with_tools"):
        stream = await asked(said, method, [WEATHER], strict=False)
        last = stream[-1]
        assert selected(llm, last) == []
        assert text in last.message.content
        assert "".join(each.delta or "" for each in stream) == last.message.content
        assert len(last.additional_kwargs["invalid_tool_calls"]) == 1
        assert last.raw["finish_reason"] == "stop"


async def test_a_broken_call_leaves_the_others_whole(llm: Any) -> None:
    text = CUT + "<tool_call>{oops</tool_call>" + calling(("now", {}))
    for method in METHODS:
        *_, last = await asked(
            telling(llm, text), method, [ADD, NOW], allow_parallel_tool_calls=True, strict=False
        )
        assert selected(llm, last) == [("add", {"a": 1, "b": 2}), ("now", {})]


def test_text_that_looks_like_a_call_is_text_where_there_are_no_tools(llm: Any) -> None:
    answer = telling(llm, CUT).chat([ChatMessage("x")])
    assert answer.message.content == CUT
    assert selected(llm, answer) == []


async def test_a_conversation_with_tools_goes_round(llm: Any) -> None:
    spied = Spied(llm)
    asked_for = telling(llm, CUT).chat_with_tools([ADD], user_msg="What is 1 + 2?")
    (chosen,) = llm.get_tool_calls_from_response(asked_for)
    result = ChatMessage(role=TOOL, content="3", additional_kwargs={"tool_call_id": chosen.tool_id})
    spied.llm.chat_with_tools([ADD], chat_history=[ChatMessage("What is 1 + 2?"), asked_for.message, result])
    shown = spied.only
    assert shown.count('{"name": "add", "arguments": {"a": 1, "b": 2}}') == 1
    assert shown.index("What is 1 + 2?") < shown.index('"arguments": {"a": 1') < shown.rindex("3")


# predict_and_call


@pytest.mark.parametrize("flag", [False, True])
async def test_predict_and_call_calls_whatever_the_flag(
    llm: Any, flag: bool, call: Callable[..., Any]
) -> None:
    told = telling(llm, CUT, is_function_calling_model=flag)
    answer = await call(told, "predict_and_call", [ADD, NOW], user_msg="What is 1 + 2?")
    assert answer.response == "3"
    assert [(each.tool_name, each.raw_output) for each in answer.sources] == [("add", 3)]
    assert told.is_function_calling_model is flag


async def test_predict_and_call_takes_options_and_history(llm: Any, call: Callable[..., Any]) -> None:
    options = {"tool_required": True, "temperature": 1.0, "seed": 3, "max_tokens": 300}
    answer = await call(llm, "predict_and_call", [NOW], chat_history=[ChatMessage("x")], **options)
    assert answer.response == "noon"


async def test_predict_and_call_calls_all_that_is_called(llm: Any, call: Callable[..., Any]) -> None:
    told = telling(llm, calling(("add", {"a": 1, "b": 2}), ("now", {})))
    answer = await call(told, "predict_and_call", [ADD, NOW], user_msg="x", allow_parallel_tool_calls=True)
    assert answer.response == "3\n\nnoon"


async def test_predict_and_call_without_a_call_is_an_error_or_no_answer(
    llm: Any, call: Callable[..., Any]
) -> None:
    told = telling(llm, "I would rather not.")
    with pytest.raises(GenerationError, match="calls no tool: 'I would rather not"):
        await call(told, "predict_and_call", [ADD], user_msg="x")
    answer = await call(told, "predict_and_call", [ADD], user_msg="x", error_on_no_tool_call=False)
    assert answer.sources == []


async def test_a_tool_that_fails_says_so(llm: Any, call: Callable[..., Any]) -> None:
    told = telling(llm, calling(("broken", {"city": "Oslo"})))
    answer = await call(told, "predict_and_call", [BROKEN], user_msg="x")
    assert "no such city: Oslo" in answer.response
    with pytest.raises(ValueError, match="no such city"):
        await call(told, "predict_and_call", [BROKEN], user_msg="x", error_on_tool_error=True)


async def test_errors_of_ours_come_out_of_predict_and_call(llm: Any, call: Callable[..., Any]) -> None:
    with pytest.raises(ContextOverflowError):
        await call(llm, "predict_and_call", [ADD], user_msg="x" * 9000)


REACT = 'Thought: I must add.\nAction: add\nAction Input: {"a": 1, "b": 2}'


@pytest.mark.parametrize(
    "given",
    [
        {"react_chat_formatter": ReActChatFormatter.from_defaults()},
        {"output_parser": ReActOutputParser()},
        {"react_chat_formatter": ReActChatFormatter.from_defaults(), "output_parser": ReActOutputParser()},
        {"react_chat_formatter": None},
    ],
    ids=lambda given: "+".join(given),
)
async def test_a_react_agent_chooses_on_request(llm: Any, given: Any, call: Callable[..., Any]) -> None:
    told = saying(llm, REACT, is_function_calling_model="output_parser" in given)
    answer = await call(told, "predict_and_call", [ADD], user_msg="What is 1 + 2?", **given)
    assert answer.response == "3"


async def test_the_bundled_pair_calls_what_a_question_asks_for(bundled: Any) -> None:
    def get_population(town: str) -> int:
        """Look up the population of a town."""
        return {"Lasko": 4812}[town]

    tools = [FunctionTool.from_defaults(get_population), ADD]
    for method in METHODS:
        *_, last = await within(asked(bundled, method, tools, user_msg="What is the population of Lasko?"))
        assert selected(bundled, last) == [("get_population", {"town": "Lasko"})]
    assert bundled.predict_and_call(tools, "What is the population of Lasko?").response == "4812"


def test_a_pydantic_argument_is_held_to_its_schema(llm: Any) -> None:
    class Order(BaseModel):
        kind: Literal["tea", "cake"]
        number: Literal[1, 2]

    def order(what: Order) -> str:
        """Order something."""
        return f"{what.number} {what.kind}"

    tool = FunctionTool.from_defaults(order)
    options = {"tool_required": True, "temperature": 1.0, "max_tokens": 400}
    for seed in range(3):
        answer = llm.chat_with_tools([tool], user_msg="x", seed=seed, **options)
        ((_, arguments),) = selected(llm, answer)
        Order.model_validate(arguments["what"])
