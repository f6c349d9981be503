"""Finished answers in a file, from which an interrupted run continues."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from cosd_core.errors import EvaluationFileError, quoted
from cosd_core.evaluation.files import append_lines, read_lines


@dataclass(frozen=True, slots=True)
class Answer:
    """One method's answer to one question, and its cost.

    Attributes:
        key: A hash of method, models, options and prompt.
        method: The method's name.
        task: The task's name.
        text: The answer.
        finish_reason: ``"stop"`` or ``"length"``.
        tokens: Tokens of the answer.
        kept: Those that the draft wrote.
        drafted: Tokens that the draft proposed.
        rounds: Blocks drafted and verified.
        draft_passes: Forward passes of the draft.
        assistant_passes: How often the assistants ran.
        seconds: Its share of the wall time of its batch.
        run: The start time of the run that wrote it.
    """

    key: str
    method: str
    task: str
    text: str
    finish_reason: str
    tokens: int
    kept: int
    drafted: int
    rounds: int
    draft_passes: int
    assistant_passes: int
    seconds: float
    run: str


_TYPES: dict[str, Any] = get_type_hints(Answer)


class AnswerFile:
    """A JSONL file of answers that only grows.

    An incomplete last line is removed; any other line that is no answer is an error.

    Attributes:
        path: Its path.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the file, if it exists.

        Raises:
            EvaluationFileError: The file cannot be read, or a line is no answer; with its number.
        """
        lines = read_lines(path)
        self.path = Path(path)
        self._answers: dict[str, Answer] = {}
        for number, line in enumerate(lines, start=1):
            answer = self._parse(line, number)
            self._answers[answer.key] = answer

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer of that key, or None."""
        return self._answers.get(key)

    def add(self, answers: Iterable[Answer]) -> None:
        """Store answers; they are on the disk when this returns.

        Raises:
            EvaluationFileError: The file cannot be written.
        """
        new = list(answers)
        append_lines(self.path, (json.dumps(asdict(each), ensure_ascii=True) for each in new))
        self._answers.update({each.key: each for each in new})

    def _parse(self, line: bytes, number: int) -> Answer:
        where = f"{self.path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationFileError(f"{where} is not JSON: {quoted(error)}") from error
        if not isinstance(entry, dict) or entry.keys() != _TYPES.keys():
            raise EvaluationFileError(f"{where} should be an object with {', '.join(_TYPES)}")
        for name, kind in _TYPES.items():
            if type(entry[name]) is not kind:
                raise EvaluationFileError(f"{where}: {name}={quoted(entry[name])} should be {kind.__name__}")
        return Answer(**entry)
