"""Runs every method on every question, batch by batch in turns; an interrupted run can be continued."""

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

_COUNTS = ("kept", "drafted", "rounds", "draft_passes", "assistant_passes")
"""Fields of :class:`Answer` that are those of :class:`Stats`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One method's answers to one task.

    Attributes:
        method: The method.
        task: The task.
        answers: One per item, in the items' order.
        right: Whether each answer is right.
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
    """Answer every question with every method.

    All methods get the same prompts. They take turns batch by batch, so that other load of the machine
    affects all of them alike. Answers that are in the file already are not written again.

    Args:
        pair: The loaded models; the batches are as large as its ``batch_size``.
        methods: The methods, with different names.
        tasks: The tasks, with different names.
        answers: The file of finished answers.
        options: Fields of :class:`GenerationOptions`; they take precedence over those of a task.
        progress: Called with a method's name and the number of its newly finished answers.

    Returns:
        Every task's outcomes, methods in their order.

    Raises:
        InvalidOptionError: Two methods or tasks have one name, or an option is wrong.
        CoSDError: As :meth:`CoSDDecoder.generate`.
    """
    for what, names in (("methods", [m.name for m in methods]), ("tasks", [t.name for t in tasks])):
        if twice := [name for name in names if names.count(name) > 1]:
            raise InvalidOptionError(f"two {what} are named {quoted(twice[0])}: their names should differ")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    decoders = [(method, method.decoder(pair)) for method in methods]
    outcomes = []
    for task in tasks:
        merged = {**task.options, **(options or {})}
        runs = [_MethodRun(method, decoder, task, merged, answers, started) for method, decoder in decoders]
        for batch in _batches(task.items, pair.batch_size):
            for method_run in runs:
                method_run.answer(batch)
                progress(method_run.method.name, len(batch))
        outcomes += [method_run.outcome() for method_run in runs]
    return outcomes


class _MethodRun:
    """One method on one task."""

    def __init__(
        self,
        method: Method,
        decoder: CoSDDecoder,
        task: Task,
        options: Mapping[str, Any],
        answers: AnswerFile,
        started: str,
    ) -> None:
        self.method = method
        self._decoder, self._task, self._options = decoder, task, options
        self._answers, self._started = answers, started
        models = decoder.models[::-1] if method.swapped else decoder.models
        prints = [model.fingerprint for model in models]
        full = GenerationOptions(**options).model_dump(mode="python")
        self._description = json.dumps([prints, method.describe(), full], sort_keys=True, default=repr)

    def answer(self, items: Sequence[Item]) -> None:
        """Answer the items that have no answer yet."""
        missing = {key: item for item in items if self._answers.get(key := self._key(item)) is None}
        if not missing:
            return
        before = time.perf_counter()
        prompts: list[Any] = [each.prompt for each in missing.values()]
        generations = self._decoder.generate(prompts, **self._options)
        seconds = (time.perf_counter() - before) / len(missing)
        self._answers.add(
            Answer(
                key=key,
                method=self.method.name,
                task=self._task.name,
                text=each.text,
                finish_reason=each.finish_reason,
                tokens=len(each.token_ids),
                seconds=seconds,
                **{name: getattr(each.stats, name) for name in _COUNTS},
                run=self._started,
            )
            for key, each in zip(missing, generations, strict=True)
        )

    def outcome(self) -> Outcome:
        """The outcome, once every item has its answer."""
        found = [self._answers.get(self._key(item)) for item in self._task.items]
        answers = tuple(each for each in found if each is not None)
        pairs = zip(self._task.items, answers, strict=True)
        return Outcome(self.method, self._task, answers, tuple(item.is_right(a.text) for item, a in pairs))

    def _key(self, item: Item) -> str:
        return hashlib.sha256(f"{self._description} {item.identity}".encode()).hexdigest()


def _batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """Items of similar length together: they need little padding and tend to end at similar times."""
    by_length = sorted(items, key=lambda item: len(str(item.prompt)))
    for start in range(0, len(by_length), size):
        yield by_length[start : start + size]
