"""The pieces of a stream make up the whole choice, whatever events the parser finds."""

from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core.chat.events import CallDelta, CallEnd, CallStart, Event, InvalidAnswer, InvalidCall
from cosd_core.chat.events import ReasoningDelta as Reasoning
from cosd_core.chat.events import TextDelta as Text
from cosd_core.frontend.call import Call
from cosd_core.outputs import Chunk, Generation
from cosd_core.serving.choices import ChatWriter
from tests.serving.servers import decoder


class FakeTurn:
    """Finds these events in a text, one in every chunk."""

    def __init__(self, found: list[Event]) -> None:
        self._found = found

    def read(self, piece: Chunk | Generation) -> list[Event]:
        return self._found if isinstance(piece, Generation) else [self._found.pop(0)]


class FakeCall:
    settings = type("Settings", (), {"logprobs": False})


def writer(found: list[Event]) -> ChatWriter:
    return ChatWriter(0, cast(Call, FakeCall()), cast(Any, FakeTurn(list(found))), provenance=False)


@pytest.fixture(scope="module")
def generation() -> Generation:
    return decoder().generate("x", max_new_tokens=1)


def joined(pieces: list[Any]) -> dict[str, Any]:
    """The message that a client makes of the pieces, and what the last one says."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "calls": []}
    for piece in pieces:
        for key in ("content", "reasoning_content"):
            message[key] += piece["delta"].get(key) or ""
        for call in piece["delta"].get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(message["calls"]), "calls are numbered without gaps"
                message["calls"].append([call["function"]["name"], ""])
            message["calls"][call["index"]][1] += call["function"]["arguments"]
    return {**message, "reason": pieces[-1]["finish_reason"], "error": pieces[-1].get("schema_error")}


def whole(choice: Any) -> dict[str, Any]:
    calls = [call["function"] for call in choice["message"].get("tool_calls", ())]
    return {
        "content": choice["message"]["content"] or "",
        "reasoning_content": choice["message"].get("reasoning_content", ""),
        "calls": [[call["name"], call["arguments"]] for call in calls],
        "reason": choice["finish_reason"],
        "error": choice.get("schema_error"),
    }


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """The events of an answer: texts, reasoning, and calls that are complete, broken, or without a name."""
    found: list[Event] = []
    for at in range(draw(st.integers(0, 3))):
        found.append(draw(st.sampled_from([Text("a "), Reasoning("hm")])))
        if draw(st.booleans()):
            found += [CallStart(at, f"f{at}"), CallDelta(at, '{"a":'), CallDelta(at, " 1}")]
            found.append(draw(st.sampled_from([CallEnd(at, f"f{at}", {"a": 1}), InvalidCall(at, "", "bad")])))
        else:
            found.append(InvalidCall(at, "<call>?", "without a name"))
    return [*found, draw(st.sampled_from([Text("end"), InvalidAnswer("no JSON")]))]


@given(found=answers())
@settings(max_examples=50, deadline=None)
def test_the_pieces_make_up_the_whole(generation: Generation, found: list[Event]) -> None:
    ended = replace(generation, finish_reason="stop")
    chunks = [Chunk("", (), 0, None, None) for _ in found[:-1]] + [Chunk("", (), 0, "stop", ended)]
    streaming = writer(found)
    pieces = [piece for chunk in chunks for piece in streaming.pieces(chunk)]
    assert joined(pieces) == whole(writer(found).whole(ended))
    assert pieces[0]["delta"]["role"] == "assistant"
    has_calls = any(isinstance(event, CallEnd) for event in found)
    assert pieces[-1]["finish_reason"] == ("tool_calls" if has_calls else "stop")
    assert all(piece["finish_reason"] is None for piece in pieces[:-1])
