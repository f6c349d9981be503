"""The input file: JSONL or Parquet, a prompt and fields of the user's own in every row."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from cosd_core.errors import CoSDError, EvaluationFileError, quoted
from cosd_core.evaluation.tasks import json_object, read_prompt
from cosd_core.utils import text_lines

ADDED = ("text", "finish_reason", "provenance", "error")
"""The fields that an answer adds to those of its row."""


class PromptFile(ABC):
    """The rows of an input, and the format of the output.

    Attributes:
        suffix: The end of the names of such files.
        prompts: The prompt of every row: text, or the messages of a chat.
    """

    suffix: ClassVar[str]
    prompts: list[Any]

    @abstractmethod
    def answered(self, start: int, answers: Sequence[dict[str, Any]]) -> bytes:
        """A file of this format: the rows from ``start`` on with the fields of their answers."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """A key of the contents."""


class JSONLines(PromptFile):
    """A JSON object in every line that is not empty."""

    suffix = ".jsonl"

    def __init__(self, path: Path) -> None:
        self._lines: list[str] = []
        self.prompts = []
        try:
            lines = text_lines(path)
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                self._lines.append(line)
                self.prompts.append(_prompt_of(f"{path}, line {number}", line))

    def answered(self, start: int, answers: Sequence[dict[str, Any]]) -> bytes:
        """As :meth:`PromptFile.answered`."""
        rows = self._lines[start : start + len(answers)]
        # The user's own fields stay as they were written: numbers of any length, for example.
        lines = (
            f"{row.rstrip().removesuffix('}').rstrip()}, {json.dumps(answer)[1:]}\n"
            for row, answer in zip(rows, answers, strict=True)
        )
        return "".join(lines).encode()

    @property
    def digest(self) -> str:
        """As :attr:`PromptFile.digest`."""
        return hashlib.sha256("\n".join(self._lines).encode()).hexdigest()


class ParquetRows(PromptFile):
    """A table whose other columns the output has unchanged, whatever their types."""

    suffix = ".parquet"

    def __init__(self, path: Path) -> None:
        import pyarrow  # comes with Ray Data
        import pyarrow.parquet

        try:
            content = path.read_bytes()
            self._table: Any = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
            _check_names(str(path), self._table.column_names)
            prompts = self._table.column("prompt").to_pylist()
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise _unreadable(path, error) from error
        self._digest = hashlib.sha256(content).hexdigest()
        values = map(_without_nulls, prompts)
        self.prompts = [_checked(f"{path}, row {number}", each) for number, each in enumerate(values, 1)]

    def answered(self, start: int, answers: Sequence[dict[str, Any]]) -> bytes:
        """As :meth:`PromptFile.answered`; all added columns are strings, the provenance is JSON."""
        import pyarrow
        import pyarrow.parquet

        table = self._table.slice(start, len(answers))
        for name in ADDED:
            values = [answer.get(name) for answer in answers]
            if name == "provenance":
                values = [value and json.dumps(value) for value in values]
            table = table.append_column(name, pyarrow.array(values, pyarrow.string()))
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
        return bytes(sink.getvalue())

    @property
    def digest(self) -> str:
        """As :attr:`PromptFile.digest`."""
        return self._digest


def read_prompt_file(path: Path) -> PromptFile:
    """The rows of an input file; a name that ends in ``.parquet`` is of that format, others are JSONL.

    Raises:
        EvaluationFileError: The file cannot be read, a row is none, with its number, or there are none.
    """
    rows = ParquetRows(path) if path.suffix == ".parquet" else JSONLines(path)
    if not rows.prompts:
        raise EvaluationFileError(f'{path} holds no prompt; every row should have a "prompt"')
    return rows


def _unreadable(path: Path, error: Exception) -> EvaluationFileError:
    return EvaluationFileError(f"cannot read prompts {quoted(str(path))}: {quoted(error)}")


def _prompt_of(where: str, line: str) -> Any:
    try:
        row = json_object(line)
    except EvaluationFileError as error:
        raise EvaluationFileError(f"{where}: {error}") from error
    _check_names(where, row)
    return _checked(where, row["prompt"])


def _check_names(where: str, names: Sequence[str] | dict[str, Any]) -> None:
    if "prompt" not in names:
        raise EvaluationFileError(f"{where}: prompt is missing in {quoted(list(names))}")
    if taken := [name for name in ADDED if name in names]:
        raise EvaluationFileError(f"{where}: the field {taken[0]} is one that the answer has: rename it")


def _checked(where: str, prompt: Any) -> Any:
    """The prompt, if it is one."""
    try:
        read_prompt(prompt)
    except CoSDError as error:
        raise EvaluationFileError(f"{where}: {error}") from error
    try:
        json.dumps(prompt)
    except TypeError as error:  # a message with a time, for example, which a table can hold
        raise EvaluationFileError(f"{where}: the prompt should be JSON: {error}") from error
    return prompt


def _without_nulls(value: Any) -> Any:
    """A value of a column of structs, without the fields that this row does not have."""
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value
