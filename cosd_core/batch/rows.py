"""The rows of an input file: JSONL, a prompt and fields of the user's own in each."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosd_core.chat.messages import Chat
from cosd_core.errors import CoSDError, EvaluationFileError, quoted
from cosd_core.evaluation.tasks import json_object, read_prompt
from cosd_core.utils import text_lines

ADDED = ("text", "finish_reason", "provenance", "error")
"""The fields that an answer adds to those of its row."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the input.

    Attributes:
        fields: All of its fields.
        prompt: Text, or a chat.
    """

    fields: dict[str, Any]
    prompt: str | Chat

    @classmethod
    def read(cls, line: str) -> "Row":
        """The row of a line.

        Raises:
            EvaluationFileError: It is no object with a prompt, or has a field that answers add.
            InvalidPromptError: A message of its chat is invalid.
        """
        fields = json_object(line)
        if "prompt" not in fields:
            raise EvaluationFileError(f"prompt is missing in {quoted(fields)}")
        if taken := [name for name in ADDED if name in fields]:
            raise EvaluationFileError(f"the field {taken[0]} is one that the answer has: rename it")
        return cls(fields, read_prompt(fields["prompt"]))

    def answered(self, answer: dict[str, Any]) -> str:
        """The line of the output, without its end."""
        return json.dumps({**self.fields, **answer})


def read_lines(path: str | Path) -> list[str]:
    """The lines of an input file that are not empty, each of which is a valid row.

    Raises:
        EvaluationFileError: The file cannot be read, a line is no row, with its number, or there are none.
    """
    try:
        lines = text_lines(path)
    except (OSError, TypeError, ValueError) as error:  # also names that are no path
        raise EvaluationFileError(f"cannot read prompts {quoted(str(path))}: {quoted(error)}") from error
    kept = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    for number, line in kept:
        try:
            Row.read(line)
        except CoSDError as error:
            raise EvaluationFileError(f"{path}, line {number}: {error}") from error
    if not kept:
        raise EvaluationFileError(f'{path} holds no prompt; it should have one {{"prompt": ...}} per line')
    return [line for _, line in kept]


def in_parts(lines: Sequence[str], size: int) -> list[str]:
    """The lines in parts of that size, the last one with the rest; each is one text."""
    return ["\n".join(lines[at : at + size]) for at in range(0, len(lines), size)]
