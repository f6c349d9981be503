"""A task: questions, their right answers and their scoring rules.

A task's file is JSONL, one question a line::

    {"prompt": "Q: 37+8? A:", "answer": 45, "scoring": "numeric", "group": "sums"}
    {"prompt": "Who wrote Emma?", "answer": ["Austen", "Jane Austen"], "scoring": "exact"}
    {"prompt": "...", "answer": "B", "choices": ["Rome", "Paris", "Oslo"]}

A line without ``prompt`` before the first question holds for all of them::

    {"task": "sums", "scoring": {"name": "numeric", "tolerance": 0.01}, "max_new_tokens": 64, "stop": ["Q:"]}
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from cosd_core.chat.messages import Chat
from cosd_core.demo import KINDS, Question, held_out, held_out_count
from cosd_core.errors import CoSDError, EvaluationFileError, InvalidOptionError, quoted
from cosd_core.evaluation.scoring import ChoiceScoring, ExactScoring, Scoring, make_scoring
from cosd_core.options import GenerationOptions
from cosd_core.utils import text_lines

BUNDLED = "demo"
"""The name of the bundled questions in place of a task's file."""

_OF_ALL = ("task", "scoring", "choices", "max_new_tokens", "stop")
_OF_ONE = ("prompt", "answer", "group", "scoring", "choices", "completion")


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        prompt: Text, or a chat.
        answers: The right answers; one of them is enough.
        scoring: The rule that compares an answer with them.
        group: The name of its part of the task; empty if the task has no parts.
        completion: The whole text that should follow the prompt, as training data; None if there is none.
    """

    prompt: str | Chat
    answers: tuple[str, ...]
    scoring: Scoring
    group: str = ""
    completion: str | None = None

    def is_right(self, text: str) -> bool:
        """Whether a text answers the question."""
        return self.scoring.accepts(text, self.answers)

    @property
    def identity(self) -> str:
        """A hash of the prompt, the same in every process."""
        prompt: Any = self.prompt
        if isinstance(prompt, Chat):
            prompt = [list(map(dict, prompt.messages)), list(prompt.tools)]
        return hashlib.sha256(json.dumps(prompt, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Task:
    """Questions that are reported together.

    Attributes:
        name: Its name in reports.
        items: Its questions, at least one.
        options: Fields of :class:`GenerationOptions` for its answers.

    Raises:
        InvalidOptionError: There are no questions, or an option is wrong.
    """

    name: str
    items: tuple[Item, ...]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.items:
            raise InvalidOptionError(f"task {quoted(self.name)} has no questions")
        GenerationOptions(**self.options)

    @property
    def groups(self) -> tuple[str, ...]:
        """Its groups, in the order of their first questions."""
        return tuple(dict.fromkeys(item.group for item in self.items))

    def limited(self, items: int) -> "Task":
        """The first so many questions of every group."""
        places = {group: count() for group in self.groups}
        kept = tuple(item for item in self.items if next(places[item.group]) < items)
        return Task(self.name, kept, self.options)


def bundled_task(questions: int = 300) -> Task:
    """The bundled pair's held-out questions: three kinds, one group each.

    Args:
        questions: The number of each kind.

    Raises:
        InvalidOptionError: There are not so many.
    """
    return _bundled(each for kind in KINDS for each in held_out(kind, questions))


def unasked_task(questions: int = 100) -> Task:
    """Held-out questions that are not among the 300 of each kind of :func:`bundled_task`, for tuning.

    Raises:
        InvalidOptionError: There are not so many.
    """
    evaluated = {item.prompt for item in bundled_task().items}
    found: list[Question] = []
    for kind in KINDS:
        others = [each for each in held_out(kind, held_out_count(kind)) if each.prompt not in evaluated]
        if questions > len(others):
            raise InvalidOptionError(
                f"questions={questions} is more than the {len(others)} there are of {kind!r}"
            )
        found += others[:questions]
    return _bundled(found)


def _bundled(questions: Iterable[Question]) -> Task:
    items = tuple(
        Item(each.prompt, (each.answer.strip(),), ExactScoring(), each.kind, each.answer)
        for each in questions
    )
    return Task(BUNDLED, items, {"max_new_tokens": 48})


def read_task(path: str | Path) -> Task:
    """Read a task's file.

    Raises:
        EvaluationFileError: The file cannot be read, or a line is invalid; with its number.
    """
    try:
        lines = text_lines(path)
    except (OSError, TypeError, ValueError) as error:  # also names that are no path
        raise EvaluationFileError(f"cannot read task {quoted(str(path))}: {quoted(error)}") from error
    shared: dict[str, Any] = {}
    items: list[Item] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json_object(line)
            if "prompt" not in entry and not items and not shared:
                shared = _shared(entry)
            else:
                items.append(_item(entry, shared))
        except CoSDError as error:
            raise EvaluationFileError(f"{path}, line {number}: {error}") from error
    if not items:
        raise EvaluationFileError(f'{path} holds no question; it should have one {{"prompt": ...}} per line')
    return Task(shared.get("task", Path(path).stem), tuple(items), _options(shared))


def json_object(line: str) -> dict[str, Any]:
    """The object in a line of JSON.

    Raises:
        EvaluationFileError: The line holds none.
    """
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EvaluationFileError(f"{quoted(line)} is not JSON: {quoted(error)}") from None
    if not isinstance(entry, dict):
        raise EvaluationFileError(f"{quoted(line)} should be a JSON object")
    return entry


def _shared(entry: Mapping[str, Any]) -> dict[str, Any]:
    _known(entry, _OF_ALL)
    if not isinstance(entry.get("task", ""), str):
        raise EvaluationFileError(f"task={quoted(entry['task'])} should be a name")
    GenerationOptions(**_options(entry))
    return dict(entry)


def _options(shared: Mapping[str, Any]) -> dict[str, Any]:
    return {name: shared[name] for name in ("max_new_tokens", "stop") if name in shared}


def _item(entry: Mapping[str, Any], shared: Mapping[str, Any]) -> Item:
    _known(entry, _OF_ONE)
    if missing := [name for name in ("prompt", "answer") if name not in entry]:
        raise EvaluationFileError(f"{missing[0]} is missing in {quoted(dict(entry))}")
    group = entry.get("group", "")
    if not isinstance(group, str):
        raise EvaluationFileError(f"group={quoted(group)} should be a name")
    completion = entry.get("completion")
    if completion is not None and (not isinstance(completion, str) or not completion):
        raise EvaluationFileError(f"completion={quoted(completion)} should be text")
    answers = tuple(_answers(entry["answer"]))
    scoring = _scoring(entry, shared)
    scoring.check(answers)
    return Item(read_prompt(entry["prompt"]), answers, scoring, group, completion)


def _scoring(entry: Mapping[str, Any], shared: Mapping[str, Any]) -> Scoring:
    """The line's rule, else the task's; without either, ``choice`` if there are choices, else ``exact``."""
    choices = entry.get("choices", shared.get("choices"))
    scoring = entry.get("scoring", shared.get("scoring", "exact" if choices is None else "choice"))
    if scoring == ChoiceScoring.name:
        if choices is None:
            raise EvaluationFileError('choices are missing: scoring "choice" needs a list of texts')
        return ChoiceScoring(choices)
    if "choices" in entry:
        raise EvaluationFileError(f'choices are for scoring "choice", but scoring={quoted(scoring)}')
    return make_scoring(scoring)


def read_prompt(prompt: Any) -> str | Chat:
    """A prompt from JSON: text, or a list of chat messages.

    Raises:
        EvaluationFileError: It is neither.
        InvalidPromptError: A message is invalid.
    """
    if isinstance(prompt, str) and prompt:
        return prompt
    if isinstance(prompt, list) and prompt:
        return Chat(prompt)
    raise EvaluationFileError(f"prompt={quoted(prompt)} should be text, or a list of chat messages")


def _answers(answer: Any) -> Iterator[str]:
    answers: Sequence[Any] = answer if isinstance(answer, list) else [answer]
    if not answers:
        raise EvaluationFileError("answer=[] should hold at least one answer")
    for each in answers:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise EvaluationFileError(f"answer={quoted(each)} should be text or a number")
        yield str(each)


def _known(entry: Mapping[str, Any], names: Sequence[str]) -> None:
    if unknown := [name for name in entry if name not in names]:
        raise EvaluationFileError(f"unknown entry {quoted(unknown[0])}: there are {', '.join(names)}")
