"""What the suffix of a broken tool call relies on in LangChain."""

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langchain_cosd.broken_json import breaking_suffix

WHOLE = '{"city": "Os\\"lo\\\\", "days": [1, {"a": [2]}], "more": {}}'


def message(arguments: str) -> AIMessageChunk:
    call = tool_call_chunk(name="f", args=arguments, id="1", index=0)
    return AIMessageChunk(content="", tool_call_chunks=[call])


def test_langchain_takes_a_call_that_is_cut_off_for_valid() -> None:
    (call,) = message('{"city": "Os').tool_calls
    assert call["args"] == {"city": "Os"}


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_langchain_takes_no_call_with_a_wrong_bracket_for_valid(length: int) -> None:
    cut = WHOLE[:length]
    broken = message(cut + breaking_suffix(cut))
    assert not broken.tool_calls
    (call,) = broken.invalid_tool_calls
    assert call["args"] == cut + breaking_suffix(cut)
