"""Replays settings from the stored predictions of both models, so that most texts need no decoding.

Greedy predictions depend on the prefix alone: not on the verifier, and not on which model drafts. They are
stored in one trie of token ids per prompt, and a setting is followed through it. At a prefix without
predictions the decoding loop continues the text under the fixed schedule, which runs both models at every
position. A :class:`Row` first goes through the known prefix, so that stop strings, limits and masks apply as
if the text had been decoded at once.

Confidences are stored at all temperatures that settings use. These are fitted on true completions before any
decoding, so calibrated settings are replayed exactly, too.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, ClassVar

import torch

from cosd_core.chat.messages import Chat
from cosd_core.errors import InvalidOptionError
from cosd_core.generation.loop import Batch
from cosd_core.generation.requests import Request, read_prompts
from cosd_core.generation.row import Row
from cosd_core.generation.row_factory import SharedRowFactory
from cosd_core.generation.scheduling import FixedSchedule
from cosd_core.generation.text_state import RowConfig
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import align, require_one_vocabulary
from cosd_core.options import GenerationOptions
from cosd_core.outputs import Generation
from cosd_core.prediction import Prediction
from cosd_core.tuning.prediction_log import PredictionLog, make_entry, restore
from cosd_core.tuning.prefix_trie import (
    UNCALIBRATED,
    Ending,
    Node,
    PairPrediction,
    Path,
    Setting,
    Temperatures,
    replay,
)
from cosd_core.verifiers import DraftVerifier, Position, Verifier
from cosd_core.verifiers.types import Replacement, logits_of


def processes_logits(options: Mapping[str, Any]) -> bool:
    """Whether tokens are picked from other logits than the confidences are computed from."""
    merged = GenerationOptions(**options)
    return bool(merged.logits_processor) or merged.repetition_penalty != 1


class ReplayCache:
    """Two models and their prompts, with all their predictions so far.

    Attributes:
        models: The two models; the first drafts unless a setting swaps the roles.
        temperatures: The temperatures at which confidences are stored.
        computed: The number of positions at which the models ran.
        replayed: The number of positions at which stored predictions were used instead.
    """

    def __init__(
        self,
        models: Sequence[BaseLanguageModel],
        prompts: Sequence[str | Chat],
        options: Mapping[str, Any],
        *,
        temperatures: Temperatures = UNCALIBRATED,
        draft_length: int = 8,
        batch_size: int = 32,
        log: str | PathLike[str] | None = None,
    ) -> None:
        """Encode the prompts for either draft, and restore the predictions of a log.

        The two models share one vocabulary; ``options`` are fields of :class:`GenerationOptions`. ``log`` is
        a file for the predictions, from which an interrupted run continues.

        Raises:
            InvalidOptionError: The options sample, or process logits where confidences are calibrated.
            EvaluationFileError: The file cannot be read.
            CoSDError: As :meth:`CoSDDecoder.generate` for prompts.
        """
        merged = GenerationOptions(**options)
        if merged.temperature:
            raise InvalidOptionError(
                f"temperature={merged.temperature:g}: only greedy texts depend on the prefix alone; "
                "tune at temperature 0"
            )
        if temperatures != UNCALIBRATED and processes_logits(options):
            raise InvalidOptionError("confidences cannot be calibrated where logits are processed")
        self.models = tuple(models)
        self.temperatures = temperatures
        self.computed = self.replayed = 0
        self._batch_size = batch_size if any(model.batchable for model in models) else 1
        self._alignment = require_one_vocabulary(self.models, "tuning")
        orders = (self.models, self.models[::-1])
        self._config = RowConfig(
            verifier=DraftVerifier(),
            draft_length=draft_length,
            lazy=FixedSchedule.lazy,
            models=tuple(model.name for model in models),
            calibration=(1.0, 1.0),
        )
        self._make_row = [
            SharedRowFactory(order, align(order), self._config).for_call(merged) for order in orders
        ]
        self._requests = [read_prompts(list(prompts), merged, order, align(order)) for order in orders]
        self._keys = [
            [_key(models, temperatures, each, swapped) for each in requests]
            for swapped, requests in enumerate(self._requests)
        ]
        self._roots = {key: Node() for keys in self._keys for key in keys}
        self._log = None if log is None else PredictionLog(log)
        for entry in self._log.entries if self._log else ():
            if root := self._roots.get(entry["key"]):
                restore(root, entry)

    def generate(
        self,
        tasks: Sequence[tuple[Setting, int]],
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> list[Ending]:
        """The texts of settings, each on the prompt of that number.

        All are replayed as far as predictions are known. Of those that stop at the same prefix one is
        decoded, and the others are replayed again; so batches are as full as possible. ``progress`` gets the
        numbers of finished and of all texts.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.generate`.
            EvaluationFileError: The log cannot be written.
        """
        endings: dict[int, Ending] = {}
        waiting = list(range(len(tasks)))
        while len(endings) < len(tasks):
            pending: dict[Node, _Recorder] = {}
            stopped = []
            for number in waiting:
                setting, prompt = tasks[number]
                path = self.path(setting, prompt)
                if path.last.ending is None:
                    if path.last not in pending:
                        root = self._root(setting, prompt)
                        pending[path.last] = _Recorder(setting, prompt, path, root, self.temperatures)
                    stopped.append(number)
                else:
                    endings[number] = path.last.ending
                    self.replayed += len(path.tokens)
            progress(len(endings), len(tasks))
            for batch in self._batches(list(pending.values())):
                self._decode(batch)
            waiting = stopped
        return [endings[number] for number in range(len(tasks))]

    def path(self, setting: Setting, prompt: int) -> Path:
        """The known part of a setting's text on one prompt."""
        return replay(self._root(setting, prompt), setting)

    def _root(self, setting: Setting, prompt: int) -> Node:
        return self._roots[self._keys[setting.swapped][prompt]]

    def _request(self, pending: "_Recorder") -> Request:
        return self._requests[pending.setting.swapped][pending.prompt]

    def _batches(self, pending: list["_Recorder"]) -> Iterator[list["_Recorder"]]:
        """Texts that are decoded together: of one role, and of similar length."""
        for swapped in (False, True):
            alike = [each for each in pending if each.setting.swapped == swapped]
            alike.sort(key=lambda each: len(self._request(each).ids) + len(each.path.tokens))
            for start in range(0, len(alike), self._batch_size):
                yield alike[start : start + self._batch_size]

    def _decode(self, batch: Sequence["_Recorder"]) -> None:
        """Continue the texts where their paths end, and store the predictions."""
        swapped = batch[0].setting.swapped
        rows = [self._row(number, recorder) for number, recorder in enumerate(batch)]
        if open_rows := [row for row in rows if not row.is_finished]:
            rounds = Batch(
                open_rows,
                models=self.models[::-1] if swapped else self.models,
                vocabularies=self._alignment.vocabularies,
                config=replace(self._config, verifier=batch[0]),
                schedule=FixedSchedule(),
            ).rounds()
            for step in rounds:
                if step.generation:
                    batch[step.index].finish(step.generation)
        self.computed += sum(len(each.new) for each in batch)
        if self._log:
            self._log.add(each.entry(self._keys[swapped][each.prompt]) for each in batch)

    def _row(self, number: int, recorder: "_Recorder") -> Row:
        """A row that has gone through the known prefix."""
        setting = recorder.setting
        row = self._make_row[setting.swapped](number, self._request(recorder), recorder)
        for prediction in recorder.path.predictions:
            pair = [Prediction(token, 0.0) for token in prediction.tokens]
            x, y = reversed(pair) if setting.swapped else pair
            row.propose(x)
            row.verify()
            row.add_predictions([[y, y]])
            row.verify()
            if generation := row.commit().generation:
                recorder.finish(generation)
        return row


class _Recorder(Verifier):
    """Decides as a setting does, and stores the predictions in the trie.

    Attributes:
        setting: The setting of a text to be decoded.
        prompt: The number of its prompt.
        path: Its known part.
        new: Predictions that were not known before, with the lengths of their prefixes.
    """

    name: ClassVar[str] = "recorder"
    needs_logits: ClassVar[bool] = True

    def __init__(
        self, setting: Setting, prompt: int, path: Path, root: Node, temperatures: Temperatures
    ) -> None:
        self.setting, self.prompt, self.path = setting, prompt, path
        self.new: list[tuple[int, PairPrediction]] = []
        self._root, self._temperatures = root, temperatures
        self._node, self._length = root, 0
        self._tokens: tuple[int, ...] = ()

    def judge(self, position: Position) -> Replacement | None:
        """Every judged position follows the token that was kept at the one before."""
        prediction = self._node.prediction
        if prediction is None:
            prediction = self._node.prediction = self._predictions(position)
            self.new.append((self._length, prediction))
        token = self.setting.token(prediction)
        self._node, self._length = self._node.children[token], self._length + 1
        return None if token == position.draft.id else Replacement(token, 0)

    def finish(self, generation: Generation) -> None:
        """Store the ending. A stop string may have ended the text before the end of a judged block."""
        node = self._root
        for token in generation.token_ids:
            node = node.children[token]
        node.ending = Ending(generation.text, generation.finish_reason)
        self._tokens, self._node = generation.token_ids, node

    def entry(self, key: str) -> dict[str, Any]:
        """The new predictions as an entry of the log."""
        assert self._node.ending is not None, "every row is decoded to its end"
        new = [(length, each) for length, each in self.new if length < len(self._tokens)]
        return make_entry(key, self._tokens, self._node.ending, new)

    def _predictions(self, position: Position) -> PairPrediction:
        assert position.opinions is not None, "the fixed schedule runs the assistants everywhere"
        pair = [position.draft, *position.opinions]
        if self.setting.swapped:
            pair.reverse()
        first, second = map(_confidences, pair, self._temperatures)
        return PairPrediction((pair[0].id, pair[1].id), (first, second))


def _confidences(prediction: Prediction, temperatures: Sequence[float]) -> tuple[float, ...]:
    """The confidence in a token at all temperatures, as :func:`predict` computes it."""
    if len(temperatures) == 1:
        return (prediction.confidence,)
    logits = logits_of(prediction)
    others = torch.tensor(temperatures[1:], dtype=logits.dtype, device=logits.device)
    shares = torch.softmax(logits / others[:, None], -1)[:, prediction.id]
    return (prediction.confidence, *shares.tolist())


def _key(
    models: Sequence[BaseLanguageModel], temperatures: Temperatures, request: Request, swapped: int
) -> str:
    """A hash of what predictions and endings depend on; both roles share it if they encode a prompt alike."""
    prompts = [list(ids) for ids in (request.prompts[::-1] if swapped else request.prompts)]
    names = [model.fingerprint for model in models]
    options = request.options.model_dump(mode="python", exclude={"truncation", "add_special_tokens", "seed"})
    parts = [names, temperatures, prompts, sorted(request.visible), options]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()
