"""How far to draft before the assistants are asked. Schedules change the price of a text, never the text."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import check_number, named
from cosd_core.outputs import Step

CanReplace = Callable[[float], bool]
"""Whether any opinion could replace a draft token of this confidence."""


class ScheduleState(ABC):
    """A schedule at work on one batch. It is told what things cost and how they ended.

    How a round ended, and who joined or left after it, it is told when the next one begins.
    """

    @abstractmethod
    def should_draft(self, doubts: Sequence[int]) -> bool:
        """Whether another draft pass comes before the assistants are asked.

        Args:
            doubts: Per row that can still draft, how many of its drafted tokens an assistant might replace.
        """

    def drafted(self, seconds: float) -> None:  # noqa: B027
        """A draft pass took this long."""

    def asked(self, seconds: float) -> None:  # noqa: B027
        """Asking all assistants took this long."""

    def judged(self, step: Step) -> None:  # noqa: B027
        """A row's block was judged."""

    def resized(self, rows: int) -> None:  # noqa: B027
        """Rows have joined or left, and so many, at least one, go on."""


class Schedule(ABC):
    """A way to divide a text into blocks.

    Attributes:
        name: The word users choose it by.
        lazy: Whether assistants are asked only where the verifier could replace a token.
    """

    name: ClassVar[str]
    lazy: ClassVar[bool]

    @abstractmethod
    def start(self, rows: int, can_replace: CanReplace) -> ScheduleState:
        """Begin with a batch of so many rows under a verifier that can replace at some confidences."""

    def to_dict(self) -> dict[str, Any]:
        """Name and settings as plain values."""
        return {"name": self.name}


@dataclass(frozen=True, slots=True)
class FixedSchedule(Schedule):
    """The paper's loop: draft a whole block, ask about all of it (Algorithm 1)."""

    name: ClassVar[str] = "fixed"
    lazy: ClassVar[bool] = False

    def start(self, rows: int, can_replace: CanReplace) -> ScheduleState:  # noqa: ARG002
        """Always on to the end of the block."""
        return _FixedState()


class _FixedState(ScheduleState):
    def should_draft(self, doubts: Sequence[int]) -> bool:  # noqa: ARG002
        return True


@dataclass(frozen=True, slots=True)
class AdaptiveSchedule(Schedule):
    """Ask only where an answer could matter, and draft past an unsure token only while that pays.

    One more draft token is worth drafting if the text it is expected to add per second beats what the
    batch adds per second on average. A token drafted after ``n`` doubtful ones stands with probability
    ``(1 - r) ** n``, r the share of doubtful tokens that were replaced so far; the prices of a draft
    pass and of asking are measured.

    Attributes:
        assistant_cost: The price of asking the assistants in draft passes. None: measured while decoding.

    Raises:
        InvalidOptionError: The price is no finite number of at least 0.
    """

    assistant_cost: float | None = None

    name: ClassVar[str] = "adaptive"
    lazy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.assistant_cost is not None:
            check_number("assistant_cost", self.assistant_cost)

    def start(self, rows: int, can_replace: CanReplace) -> ScheduleState:
        """Begin with even prices and even odds."""
        return _AdaptiveState(rows, can_replace, self.assistant_cost)

    def to_dict(self) -> dict[str, Any]:
        """Name and price."""
        return {"name": self.name, "assistant_cost": self.assistant_cost}


class _AdaptiveState(ScheduleState):
    def __init__(self, rows: int, can_replace: CanReplace, assistant_cost: float | None) -> None:
        self._can_replace = can_replace
        self._assistant_cost = assistant_cost
        self._draft = _Price()
        self._assistant = _Price()
        # What would have been seen before, as weak evidence: four tokens a row for four draft passes and one
        # question, and one of two doubtful tokens replaced.
        self._rows, self._tokens, self._draft_passes, self._questions = rows, 4.0 * rows, 4, 1
        self._doubts, self._replaced = 2, 1

    def should_draft(self, doubts: Sequence[int]) -> bool:
        if not any(doubts):
            return True
        stands = 1 - self._replaced / self._doubts
        expected = sum(stands**count for count in doubts)
        return expected >= self._tokens / (self._draft_passes + self._cost * self._questions)

    @property
    def _cost(self) -> float:
        """The price of asking, in draft passes; even until both have been measured."""
        if self._assistant_cost is not None:
            return self._assistant_cost
        draft, assistant = self._draft.mean, self._assistant.mean
        return assistant / draft if draft and assistant else 1.0

    def drafted(self, seconds: float) -> None:
        self._draft_passes += 1
        self._draft.add(seconds)

    def asked(self, seconds: float) -> None:
        self._questions += 1
        self._assistant.add(seconds)

    def judged(self, step: Step) -> None:
        judged = islice(zip(step.proposal, step.opinions, strict=True), step.verdict.kept + 1)
        self._doubts += sum(
            opinions is not None and self._can_replace(draft.confidence) for draft, opinions in judged
        )
        self._replaced += step.verdict.replacement is not None
        self._tokens += len(step.tokens)

    def resized(self, rows: int) -> None:
        """Read the evidence as if there had always been so many rows."""
        if rows > self._rows:
            self._draft.reads_a_prompt = self._assistant.reads_a_prompt = True
        self._tokens *= rows / self._rows
        self._rows = rows


class _Price:
    """The mean time of a pass, those left out that read a prompt."""

    def __init__(self) -> None:
        self.reads_a_prompt = True
        self._passes = 0
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        if not self.reads_a_prompt:
            self._passes += 1
            self._seconds += seconds
        self.reads_a_prompt = False

    @property
    def mean(self) -> float | None:
        return self._seconds / self._passes if self._passes else None


_BY_NAME: dict[str, type[Schedule]] = {kind.name: kind for kind in (AdaptiveSchedule, FixedSchedule)}


def make_schedule(schedule: str | Mapping[str, Any] | Schedule) -> Schedule:
    """A schedule from its name, with default settings, or from what ``to_dict`` says; schedules pass through.

    Raises:
        InvalidOptionError: There is no schedule of that name, or it has no such settings.
    """
    if isinstance(schedule, Schedule):
        return schedule
    if isinstance(schedule, Mapping):
        return named("schedule", schedule, _BY_NAME)
    if not isinstance(schedule, str) or schedule not in _BY_NAME:
        raise InvalidOptionError(
            f"schedule={quoted(schedule)} should be a Schedule or one of {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[schedule]()
