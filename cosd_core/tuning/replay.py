"""Replays settings from what is known of the texts of both models, so that most texts need no decoding.

Greedy predictions depend on the text before them alone: not on the verifier. So what a verifier has to decide
about in a text, the rivals of the draft's text and all confidences, follows from its earlier decisions. It
is stored in one trie of decisions per prompt and draft, and a setting is followed through it. Where the trie
ends, the decoding loop writes the text under the fixed schedule, which runs all models at every position; the
models themselves run only where their predictions are not known from another text.

Confidences are stored at all temperatures that settings use. These are fitted on true completions before any
decoding, so calibrated settings are replayed exactly, too. A text that fills the context window of an
assistant with other tokens ends where the verifier could first need it; such texts are decoded one by one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

from cosd_core.chat.messages import Chat
from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidOptionError
from cosd_core.generation.loop import Batch
from cosd_core.generation.measured import KeptSession
from cosd_core.generation.scheduling import FixedSchedule
from cosd_core.models.base import BaseLanguageModel
from cosd_core.options import GenerationOptions
from cosd_core.tuning.decision_trie import (
    Ending,
    Node,
    Path,
    Setting,
    Temperatures,
    order_of,
    replay,
)
from cosd_core.tuning.prediction_log import PredictionLog, measure_at
from cosd_core.tuning.recorder import Recorder
from cosd_core.tuning.remembered_model import RememberedModel
from cosd_core.tuning.roles import Roles


def processes_logits(options: Mapping[str, Any]) -> bool:
    """Whether tokens are picked from other logits than the confidences are computed from."""
    merged = GenerationOptions(**options)
    return bool(merged.logits_processor) or merged.repetition_penalty != 1


class ReplayCache:
    """Some models and their prompts, with all that is known of their texts.

    Attributes:
        models: The models; the first drafts unless a setting says otherwise.
        temperatures: The temperatures at which confidences are stored.
        computed: The number of predictions that the models have made.
        replayed: The number of tokens of the texts that settings have written.
        decoded: The number of texts that could not be replayed.
    """

    def __init__(
        self,
        models: Sequence[BaseLanguageModel],
        prompts: Sequence[str | Chat],
        options: Mapping[str, Any],
        *,
        temperatures: Temperatures | None = None,
        draft_length: int = 1,
        batch_size: int = 32,
        log: str | PathLike[str] | None = None,
    ) -> None:
        """Encode the prompts for every draft, and restore the predictions of a log.

        ``options`` are fields of :class:`GenerationOptions`. ``log`` is a file for the predictions, from
        which an interrupted run continues. Tokens drafted behind a replaced one are lost, so a
        ``draft_length`` of 1 computes least.

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
        if temperatures is not None and len(temperatures[0]) > 1 and processes_logits(options):
            raise InvalidOptionError("confidences cannot be calibrated where logits are processed")
        self.models = tuple(models)
        self.temperatures = temperatures or ((1.0,),) * len(models)
        self.replayed = self.decoded = self._computed = 0
        self._options = options
        self._batch_size = batch_size if any(model.batchable for model in models) else 1
        self._roles = [
            Roles(self.models, draft, merged, list(prompts), draft_length) for draft in range(len(models))
        ]
        self._keys = [roles.keys(self.models, self.temperatures) for roles in self._roles]
        self._roots = [[Node() for _ in prompts] for _ in models]
        self._decoded: dict[tuple[Setting, int], Ending] = {}
        self._log = PredictionLog(log)
        self._sessions: dict[tuple[int, int], KeptSession] = {}

    @property
    def computed(self) -> int:
        """The number of predictions that the models have made."""
        return self._computed + sum(each.computed for each in self._sessions.values())

    def generate(
        self,
        tasks: Sequence[tuple[Setting, int]],
        progress: Callable[[int, int], None] = lambda *_: None,
    ) -> list[Ending]:
        """The texts of settings, each on the prompt of that number.

        The prompts are taken in groups. A prompt's texts are written one after another in one row of every
        model's session, and the prompts of later groups follow in these rows. All texts are replayed as far
        as they are known. Of those that stop at the same place one is decoded, and the others are replayed
        again. ``progress`` gets the numbers of finished and of all texts.

        Raises:
            CoSDError: As :meth:`CoSDDecoder.generate`.
            EvaluationFileError: The log cannot be written.
        """
        endings: dict[int, Ending] = {}
        for group in self._groups(tasks):
            slots = {prompt: at for at, prompt in enumerate(dict.fromkeys(tasks[at][1] for at in group))}
            while waiting := [number for number in group if number not in endings]:
                pending: dict[Node, Recorder] = {}
                for setting, prompt in (tasks[number] for number in waiting):
                    last = self.path(setting, prompt).last
                    if last.ending is None:
                        root = self._roots[setting.draft][prompt]
                        pending.setdefault(last, Recorder(setting, prompt, root))
                for batch in _batches(list(pending.values())):
                    self._record(batch, slots)
                endings |= {number: ending for number in waiting if (ending := self._ending(*tasks[number]))}
                progress(len(endings), len(tasks))
        self._computed, self._sessions = self.computed, {}
        return [endings[number] for number in range(len(tasks))]

    def _ending(self, setting: Setting, prompt: int) -> Ending | None:
        """The end of a setting's text, if it is known by now."""
        ending = self.path(setting, prompt).last.ending
        if ending is None:
            return None
        self.replayed += ending.tokens
        return self._decode(setting, prompt) if ending.depends else ending

    def path(self, setting: Setting, prompt: int) -> Path:
        """The known part of a setting's text on one prompt."""
        return replay(self._roots[setting.draft][prompt], setting)

    def _groups(self, tasks: Sequence[tuple[Setting, int]]) -> Iterator[list[int]]:
        """The numbers of the tasks on prompts of similar length, of as many as share a batch."""
        of_prompt: defaultdict[int, list[int]] = defaultdict(list)
        for number, (_, prompt) in enumerate(tasks):
            of_prompt[prompt].append(number)
        prompts = sorted(of_prompt, key=lambda prompt: len(self._roles[0].requests[prompt].ids))
        for start in range(0, len(prompts), self._batch_size):
            yield [
                number for prompt in prompts[start : start + self._batch_size] for number in of_prompt[prompt]
            ]

    def _record(self, batch: Sequence[Recorder], slots: Mapping[int, int]) -> None:
        """Write texts of one draft on different prompts, and store what was decided about.

        ``slots`` are the rows of the sessions by the numbers of the prompts.
        """
        draft, prompts = batch[0].setting.draft, [each.prompt for each in batch]
        roles = self._roles[draft]
        order = order_of(draft, len(self.models))
        models = [
            RememberedModel(
                self._session(model, roles.alignment.vocabularies[role]),
                self._log,
                [slots[prompt] for prompt in prompts],
                [self._keys[draft][prompt][role] for prompt in prompts],
            )
            for role, model in enumerate(order)
        ]
        rounds = Batch(
            [roles.make_row(at, roles.requests[each.prompt], each) for at, each in enumerate(batch)],
            models=models,
            vocabularies=roles.alignment.vocabularies,
            config=replace(roles.config, verifier=batch[0]),
            schedule=FixedSchedule(),
        ).rounds()
        for step in rounds:
            if step.generation:
                batch[step.index].finish(step.generation, roles.requests[prompts[step.index]])
        self._log.write()

    def _session(self, model: int, vocabulary: int) -> Callable[[], KeptSession]:
        def opened() -> KeptSession:
            if (model, vocabulary) not in self._sessions:
                self._sessions[model, vocabulary] = KeptSession(
                    self.models[model], vocabulary, measure_at(self.temperatures[model])
                )
            return self._sessions[model, vocabulary]

        return opened

    def _decode(self, setting: Setting, prompt: int) -> Ending:
        """A text whose end depends on the verifier."""
        if (setting, prompt) not in self._decoded:
            order = order_of(setting.draft, len(self.models))
            decoder = CoSDDecoder(
                self.models[order[0]],
                [self.models[at] for at in order[1:]],
                verifier=setting.verifier,
                calibration=[self.temperatures[at][setting.temperature_index] for at in order],
            )
            written = decoder.generate(self._roles[0].prompts[prompt], **self._options)
            self._decoded[setting, prompt] = Ending(written.text, written.finish_reason, len(written.tokens))
            self.decoded += 1
        return self._decoded[setting, prompt]


def _batches(pending: Sequence[Recorder]) -> Iterator[list[Recorder]]:
    """Texts that are written together: of one draft, and of different prompts."""
    batches: defaultdict[tuple[int, int], list[Recorder]] = defaultdict(list)
    count: defaultdict[tuple[int, int], int] = defaultdict(int)
    for each in pending:
        here = each.setting.draft, each.prompt
        batches[each.setting.draft, count[here]].append(each)
        count[here] += 1
    yield from batches.values()
