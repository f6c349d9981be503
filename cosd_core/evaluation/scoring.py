"""How an answer is told right from wrong: exactly, by a pattern, by a choice, by a number."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import check_number, named

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER = re.compile(
    r"""
    (?<![\w.])(?:(?<![)\]])[-\u2212])?[$\u20ac\u00a3]?  # a minus after a digit or a bracket is an operator
    (?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))          # 1,234 is one number, 1,2 are two
    (?:\.\d+)?(?:[eE][+-]?\d+)?
    """,
    re.VERBOSE,
)


class Scoring(ABC):
    """A rule that says whether a text answers a question.

    Attributes:
        name: The word a task's file chooses it by.
    """

    name: ClassVar[str]

    @abstractmethod
    def read(self, text: str) -> str | None:
        """What the rule takes from a text, in the one form in which it is compared; None where nothing is."""

    def accepts(self, text: str, answers: Sequence[str]) -> bool:
        """Whether a text gives one of the right answers."""
        given = self.read(text)
        return given is not None and any(self._equal(given, answer) for answer in answers)

    def check(self, answers: Sequence[str]) -> None:
        """Refuse right answers that no text could give.

        Raises:
            InvalidOptionError: With the answer and what would be right.
        """
        for answer in answers:
            if not self.accepts(answer, [answer]):
                raise InvalidOptionError(f"answer {quoted(answer)} is none that {quoted(self)} could read")

    def _equal(self, given: str, answer: str) -> bool:
        return given == self.read(answer)


@dataclass(frozen=True, slots=True)
class ExactScoring(Scoring):
    """The whole text is the answer, white space around it aside.

    Attributes:
        ignore_case: Whether capital letters count as small ones.
    """

    ignore_case: bool = False

    name: ClassVar[str] = "exact"

    def __post_init__(self) -> None:
        _check_flag("ignore_case", self.ignore_case)

    def read(self, text: str) -> str:
        """The text without the white space around it."""
        return _folded(text, self.ignore_case)


@dataclass(frozen=True, slots=True)
class RegexScoring(Scoring):
    """What a pattern finds in the text is the answer.

    The answers in a task's file are plain: they are compared with what is found.

    Attributes:
        pattern: A regular expression of Python's ``re``. Its first group counts, or all of it without one.
        last: Whether the last match counts instead of the first.
        ignore_case: Whether capital letters count as small ones when both are compared.

    Raises:
        InvalidOptionError: It is no regular expression.
    """

    pattern: str
    last: bool = False
    ignore_case: bool = False

    name: ClassVar[str] = "regex"

    def __post_init__(self) -> None:
        _check_flag("last", self.last)
        _check_flag("ignore_case", self.ignore_case)
        try:
            re.compile(self.pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            raise InvalidOptionError(
                f"pattern={quoted(self.pattern)} should be a regular expression: {quoted(error)}"
            ) from None

    def read(self, text: str) -> str | None:
        """What the pattern finds."""
        found = list(re.finditer(self.pattern, text))
        if not found:
            return None
        match = found[-1 if self.last else 0]
        part = match.group(1) if match.re.groups else match.group()
        return None if part is None else _folded(part, self.ignore_case)

    def check(self, answers: Sequence[str]) -> None:
        """Any text could stand where the pattern looks."""

    def _equal(self, given: str, answer: str) -> bool:
        return given == _folded(answer, self.ignore_case)


@dataclass(frozen=True, slots=True)
class NumberScoring(Scoring):
    """The last number of the text is the answer.

    Thousands may be set off by commas (``1,234``), a currency sign may stand before a number, and a minus
    counts unless a digit, a letter, a point or a closing bracket stands before it: ``5-3`` ends in 3.

    Attributes:
        tolerance: How far the number may lie from the answer, in the answer's own unit.

    Raises:
        InvalidOptionError: The tolerance is no finite number of at least 0.
    """

    tolerance: float = 0.0

    name: ClassVar[str] = "numeric"

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance)

    def read(self, text: str) -> str | None:
        """The last number, as Python writes it."""
        value = _last_number(text)
        return None if value is None else repr(value)

    def check(self, answers: Sequence[str]) -> None:
        """Every answer should be a number.

        Raises:
            InvalidOptionError: One is not.
        """
        for answer in answers:
            if not _NUMBER.fullmatch(answer.strip()) or _last_number(answer) is None:
                raise InvalidOptionError(f"answer {quoted(answer)} should be a number")

    def _equal(self, given: str, answer: str) -> bool:
        right = _last_number(answer)
        return right is not None and abs(float(given) - right) <= self.tolerance


@dataclass(frozen=True, slots=True)
class ChoiceScoring(Scoring):
    """The text names one of several choices, which are lettered A, B, C and on.

    In this order, and only if the first that applies names exactly one choice:

    1. the text is the text of a choice, case and a final point aside;
    2. the text begins with a letter that something sets off, as in ``B``, ``(B)``, ``B.``, ``B) Paris``;
       ``A dog`` does not begin so;
    3. the text says "answer is" or "answer:" and then a letter, as in ``The answer is B``; the last time, if
       it says so several times;
    4. one choice's text stands in it as whole words; a choice within a longer one that also stands there
       does not count.

    Answers in a task's file are letters or the texts of choices.

    Attributes:
        choices: Their texts.

    Raises:
        InvalidOptionError: There are not 2 to 26 different ones, or one is the letter of another.
    """

    choices: tuple[str, ...]

    name: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        given = self.choices
        if not isinstance(given, (list, tuple)) or not all(isinstance(each, str) for each in given):
            raise InvalidOptionError(f"choices={quoted(given)} should be a list of texts")
        object.__setattr__(self, "choices", tuple(given))
        plain = [_plain(each) for each in given]
        if not 2 <= len(given) <= len(_LETTERS) or len(set(plain)) < len(plain) or "" in plain:
            raise InvalidOptionError(f"choices={quoted(given)} should be 2 to 26 different texts")
        for at, letter in enumerate(_LETTERS[: len(given)]):
            if letter.casefold() in plain and plain[at] != letter.casefold():
                raise InvalidOptionError(
                    f"choices={quoted(given)}: the text {letter!r} is the letter of another choice"
                )

    def read(self, text: str) -> str | None:
        """The letter of the choice that the text names."""
        plain = [_plain(each) for each in self.choices]
        if _plain(text) in plain:
            return _LETTERS[plain.index(_plain(text))]
        letters = _LETTERS[: len(self.choices)]
        set_off = rf"\(?([{letters}])(?:[).:,]|\s*$|\s*\n)"
        if begins := re.match(rf"\s*{set_off}", text):
            return begins.group(1)
        if said := re.findall(rf"(?i:\banswer\s*(?:is|:))\s*[*(]*([{letters}])\b", text):
            return str(said[-1])
        folded = text.casefold()
        standing = [at for at, each in enumerate(plain) if _stands(each, folded)]
        longest = [
            at for at in standing if not any(at != o and _stands(plain[at], plain[o]) for o in standing)
        ]
        return _LETTERS[longest[0]] if len(longest) == 1 else None


SCORINGS: dict[str, type[Scoring]] = {
    kind.name: kind for kind in (ExactScoring, RegexScoring, ChoiceScoring, NumberScoring)
}


def make_scoring(scoring: str | Mapping[str, Any] | Scoring) -> Scoring:
    """A rule from its name, or from its name and settings: ``{"name": "numeric", "tolerance": 0.01}``.

    Raises:
        InvalidOptionError: There is none of that name, it has no such settings, or lacks one.
    """
    if isinstance(scoring, Scoring):
        return scoring
    described = {"name": scoring} if isinstance(scoring, str) else scoring
    if not isinstance(described, Mapping):
        raise InvalidOptionError(f"scoring={quoted(scoring)} should be one of {', '.join(SCORINGS)}")
    return named("scoring", described, SCORINGS)


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidOptionError(f"{name}={quoted(value)} should be true or false")


def _folded(text: str, ignore_case: bool) -> str:
    return text.strip().casefold() if ignore_case else text.strip()


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").rstrip().casefold()


def _stands(words: str, text: str) -> bool:
    """Whether words stand in a text, and not within longer words."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _last_number(text: str) -> float | None:
    """The last number of a text, None where there is none or it is too large for a float."""
    last = None
    for match in _NUMBER.finditer(text):
        last = match.group()
    if last is None:
        return None
    digits = re.sub(r"[,$\u20ac\u00a3]", "", last).replace("\u2212", "-")
    value = float(digits)
    return value if math.isfinite(value) else None
