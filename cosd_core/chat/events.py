"""What happens while an answer is read: text, thoughts, and tool calls, piece by piece."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call has begun; ``index`` counts the calls of an answer, broken ones included."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """More of the JSON text of a call's arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class CallEnd:
    """A call is whole."""

    index: int
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class InvalidCall:
    """A call turned out broken, perhaps after it had begun: its text, and what is wrong with it."""

    index: int
    text: str
    error: str


Event = TextDelta | ReasoningDelta | CallStart | CallDelta | CallEnd | InvalidCall


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read to its end."""

    text: str
    reasoning: str
    calls: tuple[CallEnd, ...]
    invalid_calls: tuple[InvalidCall, ...]

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """What all events of an answer amount to."""
        events = list(events)
        return cls(
            text="".join(event.text for event in events if isinstance(event, TextDelta)),
            reasoning="".join(event.text for event in events if isinstance(event, ReasoningDelta)),
            calls=tuple(event for event in events if isinstance(event, CallEnd)),
            invalid_calls=tuple(event for event in events if isinstance(event, InvalidCall)),
        )


def joined(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring pieces of one text made one; reading yields single characters."""
    groups: list[tuple[Event, list[str]]] = []
    for event in events:
        last = groups[-1][0] if groups else None
        match event:
            case TextDelta(piece) | ReasoningDelta(piece):
                goes_on = type(last) is type(event)
            case CallDelta(index, piece):
                goes_on = isinstance(last, CallDelta) and last.index == index
            case _:
                piece, goes_on = "", False
        if goes_on:
            groups[-1][1].append(piece)
        else:
            groups.append((event, [piece]))
    return [_with(event, "".join(pieces)) for event, pieces in groups]


def taken(events: list[Event]) -> list[Event]:
    """The events of a list, joined; they are not in it any more."""
    told = joined(events)
    events.clear()
    return told


def _with(event: Event, text: str) -> Event:
    match event:
        case TextDelta() | ReasoningDelta():
            return type(event)(text)
        case CallDelta(index):
            return CallDelta(index, text)
        case _:
            return event
