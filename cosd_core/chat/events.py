"""The events of parsing an answer: pieces of text, of reasoning, and of tool calls."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the reasoning before the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call has begun. ``index`` counts all calls of an answer, invalid ones included."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of the JSON text of a call's arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is complete."""

    index: int
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InvalidCall:
    """The text of a malformed call and the error in it. Its ``CallStart`` may have been sent before."""

    index: int
    text: str
    error: str


@dataclass(frozen=True, slots=True)
class InvalidAnswer:
    """The last event of an answer that does not match its JSON Schema: what is wrong, in one sentence."""

    error: str


CallEvent = CallStart | CallDelta | CallEnd | InvalidCall
Event = TextDelta | ReasoningDelta | CallEvent | InvalidAnswer


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A complete answer; ``schema_error`` says what is wrong with it by its JSON Schema, if anything is."""

    text: str
    reasoning: str
    calls: tuple[CallEnd, ...]
    invalid_calls: tuple[InvalidCall, ...]
    schema_error: str | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """The answer that all its events make up."""
        events = list(events)
        return cls(
            text="".join(event.text for event in events if isinstance(event, TextDelta)),
            reasoning="".join(event.text for event in events if isinstance(event, ReasoningDelta)),
            calls=tuple(event for event in events if isinstance(event, CallEnd)),
            invalid_calls=tuple(event for event in events if isinstance(event, InvalidCall)),
            schema_error=next((event.error for event in events if isinstance(event, InvalidAnswer)), None),
        )


def merge_deltas(events: Iterable[Event]) -> list[Event]:
    """Merge neighbouring deltas of one kind and call, since parsers emit single characters."""
    merged: list[Event] = []
    for _, group in groupby(events, lambda event: (type(event), getattr(event, "index", None))):
        run: list[Any] = list(group)
        match run[0]:
            case TextDelta() | ReasoningDelta() as first:
                merged.append(type(first)("".join(each.text for each in run)))
            case CallDelta(index):
                merged.append(CallDelta(index, "".join(each.arguments for each in run)))
            case _:
                merged += run
    return merged
