"""Rules that score an answer: exact text, pattern, choice, number."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import check_flags, check_number, named

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
    """A rule that decides whether a text answers a question.

    Attributes:
        name: Its name in a task's file.
    """

    name: ClassVar[str]

    @abstractmethod
    def extract(self, text: str) -> str | None:
        """The answer in a text, in the form in which answers are compared; None if there is none."""

    def accepts(self, text: str, answers: Sequence[str]) -> bool:
        """Whether a text contains one of the right answers."""
        given = self.extract(text)
        return given is not None and any(self._equal(given, answer) for answer in answers)

    def check(self, answers: Sequence[str]) -> None:
        """Refuse right answers that no text could match.

        Raises:
            InvalidOptionError: With the answer and a valid form.
        """
        for answer in answers:
            if not self.accepts(answer, [answer]):
                raise InvalidOptionError(f"answer {quoted(answer)} is none that {quoted(self)} could read")

    def _equal(self, given: str, answer: str) -> bool:
        return given == self.extract(answer)


@dataclass(frozen=True, slots=True)
class ExactScoring(Scoring):
    """The whole text is the answer, apart from white space around it.

    Attributes:
        ignore_case: Whether case is ignored.
    """

    ignore_case: bool = False

    name: ClassVar[str] = "exact"

    def __post_init__(self) -> None:
        check_flags(ignore_case=self.ignore_case)

    def extract(self, text: str) -> str:
        """The text without the white space around it."""
        return _folded(text, self.ignore_case)


@dataclass(frozen=True, slots=True)
class RegexScoring(Scoring):
    """The match of a pattern in the text is the answer.

    The answers in a task's file are plain texts that are compared with the match.

    Attributes:
        pattern: A regular expression of Python's ``re``. Its first group counts, or all of it without one.
        last: Whether the last match counts instead of the first.
        ignore_case: Whether case is ignored in the comparison.

    Raises:
        InvalidOptionError: It is no regular expression.
    """

    pattern: str
    last: bool = False
    ignore_case: bool = False

    name: ClassVar[str] = "regex"

    def __post_init__(self) -> None:
        check_flags(last=self.last, ignore_case=self.ignore_case)
        try:
            re.compile(self.pattern)
        except (re.error, TypeError, OverflowError, RecursionError) as error:
            raise InvalidOptionError(
                f"pattern={quoted(self.pattern)} should be a regular expression: {quoted(error)}"
            ) from None

    def extract(self, text: str) -> str | None:
        """The match."""
        found = list(re.finditer(self.pattern, text))
        if not found:
            return None
        match = found[-1 if self.last else 0]
        part = match.group(1) if match.re.groups else match.group()
        return None if part is None else _folded(part, self.ignore_case)

    def check(self, answers: Sequence[str]) -> None:
        """Any answer is possible, since a pattern may match any text."""

    def _equal(self, given: str, answer: str) -> bool:
        return given == _folded(answer, self.ignore_case)


@dataclass(frozen=True, slots=True)
class NumberScoring(Scoring):
    """The last number of the text is the answer.

    Commas may separate thousands (``1,234``), a currency sign may precede a number, and a minus counts unless
    a digit, a letter, a point or a closing bracket precedes it: ``5-3`` ends in 3.

    Attributes:
        tolerance: The largest accepted difference, in the answer's unit.

    Raises:
        InvalidOptionError: The tolerance is no finite number of at least 0.
    """

    tolerance: float = 0.0

    name: ClassVar[str] = "numeric"

    def __post_init__(self) -> None:
        check_number("tolerance", self.tolerance)

    def extract(self, text: str) -> str | None:
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

    1. the text is the text of a choice, ignoring case and a final point;
    2. the text begins with a letter that is set off from the rest, as in ``B``, ``(B)``, ``B.``, ``B) Paris``
       but not in ``A dog``;
    3. the text contains "answer is" or "answer:" and then a letter, as in ``The answer is B``; the last such
       place counts;
    4. the text contains one choice's text as whole words; a choice within a longer one that it also contains
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
        for index, letter in enumerate(_LETTERS[: len(given)]):
            if letter.casefold() in plain and plain[index] != letter.casefold():
                raise InvalidOptionError(
                    f"choices={quoted(given)}: the text {letter!r} is the letter of another choice"
                )

    def extract(self, text: str) -> str | None:
        """The letter of the choice in the text."""
        plain = [_plain(each) for each in self.choices]
        if _plain(text) in plain:
            return _LETTERS[plain.index(_plain(text))]
        letters = _LETTERS[: len(self.choices)]
        set_off = rf"\(?([{letters}])(?:[).:,]|\s*$|\s*\n)"
        if begins := re.match(rf"\s*{set_off}", text):
            return begins.group(1)
        if named_letters := re.findall(rf"(?i:\banswer\s*(?:is|:))\s*[*(]*([{letters}])\b", text):
            return str(named_letters[-1])
        folded = text.casefold()
        present = [index for index, each in enumerate(plain) if _contains(folded, each)]
        longest = [
            index
            for index in present
            if not any(index != other and _contains(plain[other], plain[index]) for other in present)
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


def _folded(text: str, ignore_case: bool) -> str:
    return text.strip().casefold() if ignore_case else text.strip()


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").rstrip().casefold()


def _contains(text: str, words: str) -> bool:
    """Whether a text contains words, and not only as parts of longer words."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _last_number(text: str) -> float | None:
    """The last number of a text; None if there is none or it is too large for a float."""
    numbers = _NUMBER.findall(text)
    if not numbers:
        return None
    digits = re.sub(r"[,$\u20ac\u00a3]", "", numbers[-1]).replace("\u2212", "-")
    value = float(digits)
    return value if math.isfinite(value) else None
