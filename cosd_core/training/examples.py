"""Training data of verifiers: prompts with their true completions, from files or iterables."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, cast

from cosd_core.chat.messages import Chat
from cosd_core.errors import CoSDError, TrainingDataError, quoted
from cosd_core.generation.requests import Prompt

_FIELDS = ("prompt", "completion")
_NAMES = '"prompt" and "completion"'


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and its true completion.

    Attributes:
        prompt: Text, token ids, or a chat, which is rendered by every model's own template.
        completion: Text or token ids; without the end token.
        place: Its file and line, or its number, for error messages.
    """

    prompt: Prompt
    completion: str | tuple[int, ...]
    place: str


def read_examples(data: str | PathLike[str] | Iterable[Any]) -> Iterator[Example]:
    """Read (prompt, completion) data one by one.

    Args:
        data: The path of a JSONL file (UTF-8; one object with ``prompt`` and ``completion`` per line, other
            entries and empty lines are ignored), or anything iterable over such mappings, over pairs
            or over :class:`Example`: a list, a generator, a ``datasets.Dataset``. A prompt may be text,
            token ids, a :class:`Chat` or a list of messages; a completion text or token ids.

    Raises:
        TrainingDataError: The file cannot be read, or a record is invalid; with its line or number.
    """
    if isinstance(data, str | PathLike):
        yield from _read_file(Path(data))
        return
    if not isinstance(data, Iterable):
        raise TrainingDataError(
            f"data={quoted(data)} should be the path of a JSONL file, or an iterable of mappings or pairs"
        )
    for number, record in enumerate(data, 1):
        yield record if isinstance(record, Example) else _example(record, f"record {number}")


def _read_file(path: Path) -> Iterator[Example]:
    if "\0" in str(path):
        raise TrainingDataError(f"data={quoted(str(path))} is no path")
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    place = f"{path}, line {number}"
                    yield _example(_parse(line, place), place)
    except (OSError, UnicodeEncodeError) as error:  # also names that are no path
        raise TrainingDataError(f"cannot read training data {quoted(str(path))}: {quoted(error)}") from error


def _parse(line: bytes, place: str) -> Any:
    try:
        record = json.loads(line.decode().removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))
    except (ValueError, RecursionError) as error:  # undecodable bytes are a ValueError too
        raise TrainingDataError(f"{place} is not JSON: {quoted(error)}") from error
    if not isinstance(record, dict):
        raise TrainingDataError(f"{place} is {quoted(record)}; it should be an object with {_NAMES}")
    return record


def _example(record: Any, place: str) -> Example:
    if isinstance(record, Mapping):
        if missing := [name for name in _FIELDS if name not in record]:
            raise TrainingDataError(f"{place} has no {quoted(missing[0])}; it has {quoted(list(record))}")
        prompt, completion = (record[name] for name in _FIELDS)
    elif isinstance(record, (list, tuple)) and len(record) == 2:
        prompt, completion = record
    else:
        raise TrainingDataError(
            f"{place} is {quoted(record)}; it should be a mapping with {_NAMES}, or a pair"
        )
    return Example(_prompt(prompt, place), _completion(completion, place), place)


def _prompt(prompt: Any, place: str) -> Prompt:
    if isinstance(prompt, str | Chat) or _is_ids(prompt):
        return cast(Prompt, prompt)
    if isinstance(prompt, (list, tuple)) and all(isinstance(each, Mapping) for each in prompt):
        try:
            return Chat(prompt)
        except CoSDError as error:
            raise TrainingDataError(f"the prompt of {place}: {error}") from error
    raise TrainingDataError(
        f"the prompt of {place} is {quoted(prompt)}; it should be text, token ids or a list of messages"
    )


def _completion(completion: Any, place: str) -> str | tuple[int, ...]:
    if isinstance(completion, str):
        return completion
    if _is_ids(completion):
        return tuple(completion)
    raise TrainingDataError(
        f"the completion of {place} is {quoted(completion)}; it should be text or token ids"
    )


def _is_ids(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(type(token) is int for token in value)
