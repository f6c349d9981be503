"""What both models think after every prefix that has come up, so that a setting is replayed, not decoded.

Greedy predictions depend on the prefix alone: not on the verifier, and not on who drafts. They are kept in a
trie of token ids per prompt. A setting walks down the trie as :func:`cosd_core.verifiers.walk` walks blocks.
Where it comes to a prefix that nobody has written yet, the real loop writes on from there, under the fixed
schedule, which shows both models at every position; a :class:`Row` is first led along the known prefix, so
that stop strings, limits and masks stand as if it had been written in one go.

Confidences are kept at all temperatures that will be asked for. These are known before anything is written,
since they are fitted on true completions; so calibrated settings are replayed exactly, too.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import torch

from cosd_core.chat.messages import Chat
from cosd_core.errors import InvalidOptionError
from cosd_core.generation.loop import Batch
from cosd_core.generation.requests import Request, read_prompts
from cosd_core.generation.row import Row
from cosd_core.generation.row_factory import SharedRows
from cosd_core.generation.scheduling import FixedSchedule
from cosd_core.models.language_model import LanguageModel
from cosd_core.models.vocabulary_alignment import align, require_one_vocabulary
from cosd_core.options import GenerationOptions
from cosd_core.outputs import Generation
from cosd_core.prediction import Prediction
from cosd_core.tuning.prediction_log import PredictionLog, entry, recall
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
from cosd_core.verifiers.features import Further
from cosd_core.verifiers.types import Replacement


def processes_logits(options: Mapping[str, Any]) -> bool:
    """Whether tokens are picked from other logits than confidences are computed of."""
    wanted = GenerationOptions(**options)
    return bool(wanted.logits_processor) or wanted.repetition_penalty != 1


class ReplayCache:
    """Two models and their prompts, with everything that they have thought so far.

    Attributes:
        models: The two models; the first drafts unless a setting swaps the roles.
        temperatures: Those at which confidences are kept.
        wide: Whether what wide trees see is kept, too.
        computed: Positions at which the models were run.
        replayed: Positions that settings went through without.
    """

    def __init__(
        self,
        models: Sequence[LanguageModel],
        prompts: Sequence[str | Chat],
        options: Mapping[str, Any],
        *,
        temperatures: Temperatures = UNCALIBRATED,
        wide: bool = False,
        draft_length: int = 8,
        batch_size: int = 32,
        notes: str | PathLike[str] | None = None,
    ) -> None:
        """Read the prompts as each of the two roles' drafts does.

        Args:
            models: Two models of one vocabulary.
            prompts: What they are shown.
            options: Fields of :class:`GenerationOptions`; texts must be greedy.
            temperatures: Those at which settings will see the confidences.
            wide: Whether some of them are wide trees.
            draft_length: The most tokens per block where texts are decoded.
            batch_size: The most prompts that are decoded together.
            notes: A file for what is thought, from which an interrupted run goes on; None keeps none.

        Raises:
            InvalidOptionError: The options sample, or process logits where confidences are calibrated.
            EvaluationFileError: The file cannot be read.
            CoSDError: As :meth:`CoSDDecoder.generate` for prompts.
        """
        wanted = GenerationOptions(**options)
        if wanted.temperature:
            raise InvalidOptionError(
                f"temperature={wanted.temperature:g}: only greedy texts depend on the prefix alone; "
                "tune at temperature 0"
            )
        if temperatures != UNCALIBRATED and processes_logits(options):
            raise InvalidOptionError("confidences cannot be calibrated where logits are processed")
        self.models = tuple(models)
        self.temperatures = temperatures
        self.wide = wide
        self.computed = self.replayed = 0
        self._batch_size = batch_size if any(model.batchable for model in models) else 1
        self._alignment = require_one_vocabulary(self.models, "tuning")
        orders = (self.models, self.models[::-1])
        self._make = [
            SharedRows(
                order, align(order), DraftVerifier(), draft_length=draft_length, lazy=FixedSchedule.lazy,
                calibration=(1.0, 1.0),
            ).begin(wanted)
            for order in orders
        ]  # fmt: skip
        self._requests = [read_prompts(list(prompts), wanted, order, align(order)) for order in orders]
        self._keys = [
            [_key(models, temperatures, each, swapped) for each in requests]
            for swapped, requests in enumerate(self._requests)
        ]
        self._roots = {key: Node() for keys in self._keys for key in keys}
        self._diary = None if notes is None else PredictionLog(notes)
        for noted in self._diary.entries if self._diary else ():
            if root := self._roots.get(noted["key"]):
                recall(root, noted, wide=wide)

    def write(self, setting: Setting, at: Sequence[int]) -> list[Ending]:
        """What a setting writes on some of the prompts; errors as in :meth:`write_all`."""
        return self.write_all([(setting, each) for each in at])

    def write_all(
        self,
        wanted: Sequence[tuple[Setting, int]],
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> list[Ending]:
        """What settings write, each on one prompt.

        All are replayed as far as it goes. Where some of them stand before the same unknown prefix, one of
        them writes on, and the others are replayed again; so batches are as full as can be.

        Args:
            wanted: Pairs of a setting and the number of a prompt.
            progress: Told how many of all are done.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.generate`.
            EvaluationFileError: Notes cannot be written.
        """
        endings: dict[int, Ending] = {}
        waiting = list(range(len(wanted)))
        while len(endings) < len(wanted):
            unknown: dict[Node, _Open] = {}
            stopped = []
            for number in waiting:
                setting, at = wanted[number]
                path = replay(self._root(setting, at), setting)
                if path.last.ending is None:
                    unknown.setdefault(path.last, _Open(setting, at, path))
                    stopped.append(number)
                else:
                    endings[number] = path.last.ending
                    self.replayed += len(path.tokens)
            progress(len(endings), len(wanted))
            for batch in self._batches(list(unknown.values())):
                self._decode(batch)
            waiting = stopped
        return [endings[number] for number in range(len(wanted))]

    def thoughts(self, setting: Setting, at: Sequence[int]) -> Iterator[tuple[PairPrediction, int]]:
        """At every position of what a setting wrote: what the models thought, and the token that stands."""
        for each in at:
            path = replay(self._root(setting, each), setting)
            for node, token in zip(path.nodes, path.tokens, strict=False):
                assert node.thought is not None, "the path goes on from here"
                yield node.thought, token

    def _root(self, setting: Setting, at: int) -> Node:
        return self._roots[self._keys[setting.swapped][at]]

    def _request(self, setting: Setting, at: int) -> Request:
        return self._requests[setting.swapped][at]

    def _batches(self, unknown: list["_Open"]) -> Iterator[list["_Open"]]:
        """What is written together: of one role, and of like length."""
        for swapped in (False, True):
            own = [each for each in unknown if each.setting.swapped == swapped]
            own.sort(key=lambda each: len(self._request(each.setting, each.at).ids) + len(each.path.tokens))
            for start in range(0, len(own), self._batch_size):
                yield own[start : start + self._batch_size]

    def _decode(self, batch: Sequence["_Open"]) -> None:
        """Write on where the paths end, and keep what both models think on the way."""
        swapped = batch[0].setting.swapped
        recorders = [
            _Recorder(each.setting, self._root(each.setting, each.at), self.temperatures, wide=self.wide)
            for each in batch
        ]
        rows = [
            self._row(number, each, recorder)
            for number, (each, recorder) in enumerate(zip(batch, recorders, strict=True))
        ]
        if open_rows := [row for row in rows if not row.finished]:
            rounds = Batch(
                open_rows,
                models=self.models[::-1] if swapped else self.models,
                vocabularies=self._alignment.vocabularies,
                verifier=recorders[0],
                schedule=FixedSchedule(),
                calibration=(1.0, 1.0),
            ).rounds()
            for step in rounds:
                if step.generation:
                    recorders[step.index].finish(step.generation)
        self.computed += sum(len(each.new) for each in recorders)
        if self._diary:
            keys = [self._keys[swapped][each.at] for each in batch]
            self._diary.add(each.entry(key) for key, each in zip(keys, recorders, strict=True))

    def _row(self, number: int, each: "_Open", recorder: "_Recorder") -> Row:
        """A row that has written a path already."""
        setting, path = each.setting, each.path
        row = self._make[setting.swapped](number, self._request(setting, each.at), recorder)
        for node in path.nodes[:-1]:
            assert node.thought is not None, "the path goes on from here"
            pair = [Prediction(*each) for each in zip(node.thought.picks, (0.0, 0.0), strict=True)]
            x, y = reversed(pair) if setting.swapped else pair
            row.propose(x)
            row.hear([[y, y]])
            row.judge()
            if generation := row.commit().generation:
                recorder.finish(generation)
        return row


@dataclass(frozen=True, slots=True)
class _Open:
    """A setting, the number of a prompt, and how far it came there by what is known."""

    setting: Setting
    at: int
    path: Path


class _Recorder(Verifier):
    """Judges as a setting does, and puts what the models think into the trie.

    Attributes:
        new: What was not known before, by the prefixes' lengths.
    """

    name: ClassVar[str] = "recorder"
    needs_logits: ClassVar[bool] = True

    def __init__(self, setting: Setting, root: Node, temperatures: Temperatures, *, wide: bool) -> None:
        self.new: list[tuple[int, PairPrediction]] = []
        self._setting, self._root, self._temperatures, self._wide = setting, root, temperatures, wide
        self._node, self._length = root, 0
        self._written: tuple[int, ...] = ()
        self._ending: Ending | None = None

    def judge(self, position: Position) -> Replacement | None:
        """Every position that is judged comes after the token that stood at the one before."""
        thought = self._node.thought
        if thought is None:
            thought = self._node.thought = self._read(position)
            self.new.append((self._length, thought))
        token = self._setting.token(thought)
        self._node, self._length = self._node.child(token), self._length + 1
        return None if token == position.draft.id else Replacement(token, 0)

    def finish(self, generation: Generation) -> None:
        """Note where the text ended. A stop string may have ended it before the end of a judged block."""
        node = self._root
        for token in generation.token_ids:
            node = node.child(token)
        node.ending = self._ending = Ending(generation.text, generation.finish_reason)
        self._written = generation.token_ids

    def entry(self, key: str) -> dict[str, Any]:
        """What is new, for the diary."""
        assert self._ending is not None, "every row is written to its end"
        kept = [(at, each) for at, each in self.new if at < len(self._written)]
        return entry(key, self._written, self._ending, kept)

    def _read(self, position: Position) -> PairPrediction:
        assert position.opinions is not None, "the fixed schedule asks everywhere"
        pair = [position.draft, *position.opinions]
        if self._setting.swapped:
            pair.reverse()
        first, second = (
            _confidences(each, temperatures)
            for each, temperatures in zip(pair, self._temperatures, strict=True)
        )
        further = Further.of(*pair) if self._wide else None
        return PairPrediction((pair[0].id, pair[1].id), (first, second), further)


def _confidences(prediction: Prediction, temperatures: Sequence[float]) -> tuple[float, ...]:
    """The confidence in a token at all temperatures, as :func:`predict` computes it."""
    if len(temperatures) == 1:
        return (prediction.confidence,)
    logits = prediction.logits
    assert logits is not None, "a verifier with needs_logits gets them"
    others = torch.tensor(temperatures[1:], dtype=logits.dtype, device=logits.device)
    shares = torch.softmax(logits / others[:, None], -1)[:, prediction.id]
    return (prediction.confidence, *shares.tolist())


def _key(models: Sequence[LanguageModel], temperatures: Temperatures, request: Request, swapped: int) -> str:
    """What thoughts and endings depend on; both roles have one key where they are shown the prompt alike."""
    prompts = [list(ids) for ids in (request.prompts[::-1] if swapped else request.prompts)]
    names = [model.fingerprint for model in models]
    options = request.options.model_dump(mode="python", exclude={"truncation", "add_special_tokens", "seed"})
    said = [names, temperatures, prompts, sorted(request.visible), options]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=repr).encode()).hexdigest()
