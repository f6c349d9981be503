"""How far to draft before the assistants run. A schedule changes the cost of a text, never the text."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

from cosd_core.errors import InvalidOptionError, ScheduleError, quoted
from cosd_core.options import check_number, named
from cosd_core.outputs import Step
from cosd_core.utils.guarded import guarded

_ASSUMED_COST = 1.0
"""The time of the assistants' passes, in draft passes, until both have been measured."""

CanReplace = Callable[[float], bool]
"""Whether any prediction of an assistant could replace a draft token of this confidence."""


class ScheduleState(ABC):
    """A schedule at work on one batch."""

    @abstractmethod
    def should_draft(self, num_replaceable: Sequence[int]) -> bool:
        """Whether another draft pass comes before the assistants run.

        Args:
            num_replaceable: Per row that can draft, how many drafted tokens an assistant might replace.
        """

    def begin_round(self, rows: int, joined: int, steps: Sequence[Step]) -> None:  # noqa: B027
        """A round begins.

        Args:
            rows: The rows of the batch, at least one.
            joined: How many of them have joined since the last round; the next passes prefill their prompts.
            steps: The records of the last round, also of rows that have left; empty before the first.
        """

    def drafted(self, seconds: float) -> None:  # noqa: B027
        """A draft pass took this long."""

    def verified(self, seconds: float) -> None:  # noqa: B027
        """One pass of the assistants, in parallel, took this long."""


class Schedule(ABC):
    """A way to divide a text into blocks.

    Attributes:
        name: The name that users choose it by.
        lazy: Whether assistants run only where the verifier could replace a token.
    """

    name: ClassVar[str]
    lazy: ClassVar[bool]

    @abstractmethod
    def start(self, rows: int, can_replace: CanReplace) -> ScheduleState:
        """The state of a new batch of so many rows."""

    def deterministic(self) -> "Schedule":
        """The same schedule without measured times, so that a text is always divided into the same blocks."""
        return self

    def to_dict(self) -> dict[str, Any]:
        """Name and settings as plain values."""
        return {"name": self.name}


@dataclass(frozen=True, slots=True)
class FixedSchedule(Schedule):
    """The paper's loop: draft a whole block, verify all of it (Algorithm 1)."""

    name: ClassVar[str] = "fixed"
    lazy: ClassVar[bool] = False

    def start(self, rows: int, can_replace: CanReplace) -> ScheduleState:  # noqa: ARG002
        """A state that drafts to the end of every block."""
        return _FixedState()


class _FixedState(ScheduleState):
    def should_draft(self, num_replaceable: Sequence[int]) -> bool:  # noqa: ARG002
        return True


@dataclass(frozen=True, slots=True)
class AdaptiveSchedule(Schedule):
    """Run assistants only where they could change the text; draft past a replaceable token while that pays.

    One more draft pass pays if the text it is expected to add per second exceeds what the batch adds per
    second on average. A token drafted after ``n`` replaceable ones is kept with probability
    ``(1 - r) ** n``, where ``r`` is the share of replaceable tokens that were replaced so far; the times of a
    draft pass and of the assistants' passes are measured, also how the latter grow with the drafted tokens,
    which in llama.cpp on a CPU they do almost in proportion.

    Attributes:
        assistant_cost: The time of the assistants' passes in draft passes. None: measured while decoding.

    Raises:
        InvalidOptionError: The cost is no finite number of at least 0.
    """

    assistant_cost: float | None = None

    name: ClassVar[str] = "adaptive"
    lazy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.assistant_cost is not None:
            check_number("assistant_cost", self.assistant_cost)

    def start(self, rows: int, can_replace: CanReplace) -> ScheduleState:
        """A state that assumes equal costs, and that one of two replaceable tokens is replaced."""
        return _AdaptiveState(rows, can_replace, self.assistant_cost)

    def deterministic(self) -> "AdaptiveSchedule":
        """The same with the cost that is assumed before it is measured."""
        return self if self.assistant_cost is not None else AdaptiveSchedule(_ASSUMED_COST)

    def to_dict(self) -> dict[str, Any]:
        """Name and cost."""
        return {"name": self.name, "assistant_cost": self.assistant_cost}


class _AdaptiveState(ScheduleState):
    def __init__(self, rows: int, can_replace: CanReplace, assistant_cost: float | None) -> None:
        self._can_replace = can_replace
        self._assistant_cost = assistant_cost
        self._draft_time = _PassTime()
        self._assistant_time = _PassTime()
        self._num_unread = 0  # draft passes whose tokens the assistants have not processed
        # A weak prior: per row four tokens of four draft passes and one of the assistants, and one of two
        # replaceable tokens replaced.
        self._rows, self._tokens, self._draft_passes, self._assistant_passes = rows, 4.0 * rows, 4, 1
        self._replaceable, self._replaced = 2, 1

    def should_draft(self, num_replaceable: Sequence[int]) -> bool:
        if not any(num_replaceable):
            return True
        kept = 1 - self._replaced / self._replaceable
        expected = sum(kept**count for count in num_replaceable)
        cost, growth = self._costs()
        return expected >= self._tokens / (self._draft_passes + cost * self._assistant_passes) * (1 + growth)

    def _costs(self) -> tuple[float, float]:
        """The time of the assistants' passes, and of a further drafted token there, in draft passes."""
        if self._assistant_cost is not None:
            return self._assistant_cost, 0.0
        draft, assistant = self._draft_time.mean, self._assistant_time.mean
        if not (draft and assistant):
            return _ASSUMED_COST, 0.0
        return assistant / draft, self._assistant_time.growth / draft

    def begin_round(self, rows: int, joined: int, steps: Sequence[Step]) -> None:
        for step in steps:
            self._count(step)
        if joined:
            self._draft_time.skip_next = self._assistant_time.skip_next = True
        self._tokens *= rows / self._rows  # as if there had always been so many rows
        self._rows = rows

    def drafted(self, seconds: float) -> None:
        self._draft_passes += 1
        self._num_unread += 1
        self._draft_time.add(seconds)

    def verified(self, seconds: float) -> None:
        self._assistant_passes += 1
        self._assistant_time.add(seconds, self._num_unread)
        self._num_unread = 0

    def _count(self, step: Step) -> None:
        decided = islice(zip(step.proposal, step.opinions, strict=True), step.verdict.kept + 1)
        self._replaceable += sum(
            opinions is not None and self._can_replace(draft.confidence) for draft, opinions in decided
        )
        self._replaced += step.verdict.replacement is not None
        self._tokens += len(step.tokens)


class _PassTime:
    """The time of a pass, on average and by its length; passes that prefill a prompt are left out.

    Attributes:
        skip_next: Whether the next pass prefills a prompt.
    """

    def __init__(self) -> None:
        self.skip_next = True
        self._passes = 0
        self._seconds = self._tokens = 0.0
        self._tokens_squared = self._tokens_by_seconds = 0.0

    def add(self, seconds: float, tokens: int = 1) -> None:
        """Count a pass over so many tokens."""
        if not self.skip_next:
            self._passes += 1
            self._seconds += seconds
            self._tokens += tokens
            self._tokens_squared += tokens**2
            self._tokens_by_seconds += tokens * seconds
        self.skip_next = False

    @property
    def mean(self) -> float | None:
        """In seconds; None before the first pass that counts."""
        return self._seconds / self._passes if self._passes else None

    @property
    def growth(self) -> float:
        """The seconds that a further token takes; 0 before the first pass that counts.

        The slope of the least squares line, between 0 and what a time in proportion to the tokens would have.
        One pass is added to those that were measured: half longer than their mean, it takes a quarter more.
        """
        if not self._tokens:
            return 0.0
        tokens, seconds = self._tokens / self._passes, self._seconds / self._passes
        together = self._tokens_by_seconds - self._passes * tokens * seconds
        alone = self._tokens_squared - self._passes * tokens**2
        slope = (together + tokens * seconds / 8) / (alone + tokens**2 / 4)
        return min(max(slope, 0.0), seconds / tokens)


def start(schedule: Schedule, rows: int, can_replace: CanReplace) -> ScheduleState:
    """:meth:`Schedule.start`; it, and the state, raise ScheduleError where a user's own schedule fails."""
    if type(schedule) in _BY_NAME.values():
        return schedule.start(rows, can_replace)
    with guarded(ScheduleError, schedule):
        state: object = schedule.start(rows, can_replace)
    if not isinstance(state, ScheduleState):
        kind = type(schedule).__qualname__
        raise ScheduleError(f"{kind}.start returned {quoted(state)}: it should return a ScheduleState")
    return _GuardedState(schedule, state)


class _GuardedState(ScheduleState):
    """The state of a user's own schedule, whose errors name that schedule."""

    def __init__(self, schedule: Schedule, state: ScheduleState) -> None:
        self._guard = guarded(ScheduleError, schedule)
        self._state = state

    def should_draft(self, num_replaceable: Sequence[int]) -> bool:
        with self._guard:
            return bool(self._state.should_draft(num_replaceable))

    def begin_round(self, rows: int, joined: int, steps: Sequence[Step]) -> None:
        with self._guard:
            self._state.begin_round(rows, joined, steps)

    def drafted(self, seconds: float) -> None:
        with self._guard:
            self._state.drafted(seconds)

    def verified(self, seconds: float) -> None:
        with self._guard:
            self._state.verified(seconds)


_BY_NAME: dict[str, type[Schedule]] = {kind.name: kind for kind in (AdaptiveSchedule, FixedSchedule)}


def make_schedule(schedule: str | Mapping[str, Any] | Schedule) -> Schedule:
    """A schedule from its name, with default settings, or from its ``to_dict``; schedules pass unchanged.

    Raises:
        InvalidOptionError: There is no schedule of that name, or it has no such settings.
    """
    if isinstance(schedule, Schedule):
        for name, kind in (("name", str), ("lazy", bool)):
            if not isinstance(getattr(schedule, name, None), kind):
                owner = type(schedule).__qualname__
                raise InvalidOptionError(f"{owner}.{name} should be a {kind.__name__} (Schedule.{name})")
        return schedule
    if isinstance(schedule, Mapping):
        return named("schedule", schedule, _BY_NAME)
    if not isinstance(schedule, str) or schedule not in _BY_NAME:
        raise InvalidOptionError(
            f"schedule={quoted(schedule)} should be a Schedule or one of {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[schedule]()
