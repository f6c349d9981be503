"""Finished answers, kept in a file as soon as they are there, so that an interrupted run can go on."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from os import PathLike
from pathlib import Path
from typing import Any, get_type_hints

from cosd_core.errors import EvaluationFileError, quoted


@dataclass(frozen=True, slots=True)
class Answer:
    """What one method wrote on one question, and what it cost.

    Attributes:
        key: Tells method, models, options and prompt from all others.
        method: The method's name.
        task: The task's name.
        text: The answer.
        finish_reason: ``"stop"`` or ``"length"``.
        tokens: Tokens of the answer.
        kept: Those that the draft wrote.
        drafted: Tokens that the draft proposed.
        rounds: Blocks written and judged.
        draft_passes: Forward passes of the draft.
        assistant_passes: Times the assistants were asked.
        seconds: Its share of the wall time of the batch that it was written in.
        run: When the run began that wrote it.
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


def read_lines(path: str | PathLike[str]) -> list[bytes]:
    """The lines of a file that only grows; it need not exist. A last line that was cut off is dropped.

    Raises:
        EvaluationFileError: The file cannot be read.
    """
    path = Path(path)
    try:
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            os.truncate(path, len(whole))
    except OSError as error:
        raise EvaluationFileError(f"cannot read answers {quoted(str(path))}: {quoted(error)}") from error
    return whole.splitlines()


def append_lines(path: str | PathLike[str], lines: Iterable[str]) -> None:
    """Add lines to a file; they are on the disk when this returns.

    Raises:
        EvaluationFileError: The file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EvaluationFileError(f"cannot write answers {quoted(str(path))}: {quoted(error)}") from error


class AnswerFile:
    """A JSONL file of answers that only grows.

    A last line that was cut off while it was written is dropped; anything else that is not an answer is an
    error.

    Attributes:
        path: Where it lies.
    """

    def __init__(self, path: str | Path) -> None:
        """Read what is there; the file need not exist.

        Raises:
            EvaluationFileError: The file cannot be read, or a line is no answer; with its number.
        """
        self.path = Path(path)
        self._answers: dict[str, Answer] = {}
        for number, line in enumerate(read_lines(path), start=1):
            answer = self._read(line, number)
            self._answers[answer.key] = answer

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        """The answer of that key, if it is there."""
        return self._answers.get(key)

    def add(self, answers: Iterable[Answer]) -> None:
        """Keep answers; they are on the disk when this returns.

        Raises:
            EvaluationFileError: The file cannot be written.
        """
        new = list(answers)
        append_lines(self.path, (json.dumps(asdict(each), ensure_ascii=True) for each in new))
        self._answers.update({each.key: each for each in new})

    def _read(self, line: bytes, number: int) -> Answer:
        where = f"{self.path}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise EvaluationFileError(f"{where} is not JSON: {quoted(error)}") from error
        names = [each.name for each in fields(Answer)]
        if not isinstance(entry, dict) or sorted(entry) != sorted(names):
            raise EvaluationFileError(f"{where} should be an object with {', '.join(names)}")
        for name, kind in _TYPES.items():
            if type(entry[name]) is not kind:
                raise EvaluationFileError(f"{where}: {name}={quoted(entry[name])} should be {kind.__name__}")
        return Answer(**entry)
