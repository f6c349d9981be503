"""Every method over every question: batch by batch, in turns, from where an interrupted run stopped."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.evaluation.answers import Answer, AnswerFile
from cosd_core.evaluation.methods import Method
from cosd_core.evaluation.tasks import Item, Task
from cosd_core.options import GenerationOptions


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one method made of one task.

    Attributes:
        method: The method.
        task: The task.
        answers: One per item, in the items' order.
        right: Per item whether the answer is right.
    """

    method: Method
    task: Task
    answers: tuple[Answer, ...]
    right: tuple[bool, ...]


def run(
    pair: CoSDDecoder,
    methods: Sequence[Method],
    tasks: Sequence[Task],
    *,
    answers: AnswerFile,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[str, int], None] = lambda _method, _count: None,
) -> list[Outcome]:
    """Let every method answer every question.

    All methods see the same prompts. They take turns batch by batch, so that what else the machine does
    weighs on all of them alike. Answers that the file holds already are not written again.

    Args:
        pair: The loaded models; the batches are as large as its ``batch_size``.
        methods: What to compare, by different names.
        tasks: What to ask, by different names.
        answers: Where finished answers are kept.
        options: Fields of :class:`GenerationOptions`; they go before those of a task.
        progress: Told a method's name and how many more of its answers are there.

    Returns:
        Every task's outcomes, methods in their order.

    Raises:
        InvalidOptionError: Two methods or tasks have one name, or an option is wrong.
        CoSDError: As :meth:`CoSDDecoder.generate`.
    """
    for what, names in (("methods", [m.name for m in methods]), ("tasks", [t.name for t in tasks])):
        if twice := [name for name in names if names.count(name) > 1]:
            raise InvalidOptionError(f"two {what} are named {quoted(twice[0])}: their names should differ")
    began = datetime.now(UTC).isoformat(timespec="seconds")
    decoders = [method.decoder(pair) for method in methods]
    outcomes = []
    for task in tasks:
        wanted = {**task.options, **(options or {})}
        writers = [
            _Writer(pair, method, decoder, task, wanted, answers, began)
            for method, decoder in zip(methods, decoders, strict=True)
        ]
        for batch in _batches(task.items, pair.batch_size):
            for writer in writers:
                progress(writer.method.name, writer.write(batch))
        outcomes += [writer.outcome() for writer in writers]
    return outcomes


class _Writer:
    """One method at work on one task."""

    def __init__(
        self,
        pair: CoSDDecoder,
        method: Method,
        decoder: CoSDDecoder,
        task: Task,
        options: Mapping[str, Any],
        answers: AnswerFile,
        began: str,
    ) -> None:
        self.method = method
        self._decoder, self._task, self._options = decoder, task, options
        self._answers, self._began = answers, began
        models = [model.fingerprint for model in pair.models]
        full = GenerationOptions(**options).model_dump(mode="python")
        self._setting = json.dumps([models, method.describe(), full], sort_keys=True, default=repr)

    def write(self, items: Sequence[Item]) -> int:
        """Answer those of the items that have no answer yet; the number of items that now have one."""
        missing = {key: item for item in items if self._answers.get(key := self._key(item)) is None}
        if missing:
            started = time.perf_counter()
            prompts: list[Any] = [each.prompt for each in missing.values()]
            written = self._decoder.generate(prompts, **self._options)
            seconds = (time.perf_counter() - started) / len(missing)
            self._answers.add(
                Answer(
                    key=key,
                    method=self.method.name,
                    task=self._task.name,
                    text=each.text,
                    finish_reason=each.finish_reason,
                    tokens=len(each.token_ids),
                    kept=each.stats.kept,
                    drafted=each.stats.drafted,
                    rounds=each.stats.rounds,
                    draft_passes=each.stats.draft_passes,
                    assistant_passes=each.stats.assistant_passes,
                    seconds=seconds,
                    run=self._began,
                )
                for key, each in zip(missing, written, strict=True)
            )
        return len(items)

    def outcome(self) -> Outcome:
        """What came of it, once every item has its answer."""
        found = []
        for item in self._task.items:
            answer = self._answers.get(self._key(item))
            assert answer is not None, "every batch has been written"
            found.append(answer)
        right = tuple(
            item.is_right(answer.text) for item, answer in zip(self._task.items, found, strict=True)
        )
        return Outcome(self.method, self._task, tuple(found), right)

    def _key(self, item: Item) -> str:
        return hashlib.sha256(f"{self._setting} {item.identity}".encode()).hexdigest()


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Items of like length together: little padding, and they tend to end together."""
    by_length = sorted(items, key=lambda item: len(str(item.prompt)))
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]
