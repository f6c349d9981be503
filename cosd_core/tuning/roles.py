"""What texts need in which one of the models drafts."""

import hashlib
import json
from collections.abc import Sequence

from cosd_core.chat.messages import Chat
from cosd_core.cross_tokenizer.row_factory import CrossTokenizerRowFactory
from cosd_core.generation.requests import Request, read_prompts
from cosd_core.generation.row_factory import MakeRow, SharedRowFactory
from cosd_core.generation.scheduling import FixedSchedule
from cosd_core.generation.text_state import RowConfig
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import Alignment, align
from cosd_core.options import GenerationOptions
from cosd_core.tuning.decision_trie import Temperatures, order_of
from cosd_core.tuning.recorder import RecordedVerification
from cosd_core.verifiers import DraftVerifier


class Roles:
    """What texts need in which one of the models drafts.

    Attributes:
        prompts: The prompts.
        requests: The same, checked and encoded.
        alignment: Of the models in their roles.
        make_row: Makes the rows.
        config: Their settings.
    """

    def __init__(
        self,
        models: Sequence[BaseLanguageModel],
        draft: int,
        options: GenerationOptions,
        prompts: list[str | Chat],
        draft_length: int,
    ) -> None:
        self._order = order_of(draft, len(models))
        ordered = [models[at] for at in self._order]
        self.prompts = prompts
        self.alignment: Alignment = align(ordered)
        self.config = RowConfig(
            verifier=DraftVerifier(),
            draft_length=draft_length,
            lazy=FixedSchedule.lazy,
            models=tuple(model.name for model in ordered),
            calibration=(1.0,) * len(models),
        )
        self.make_row: MakeRow = (
            SharedRowFactory(ordered, self.alignment, self.config)
            if self.alignment.shared
            else CrossTokenizerRowFactory(ordered, self.alignment, self.config, RecordedVerification)
        ).for_call(options)
        self.requests = read_prompts(prompts, options, ordered, self.alignment)

    def keys(self, models: Sequence[BaseLanguageModel], temperatures: Temperatures) -> list[list[str]]:
        """Per prompt and model, in their roles, a hash of what the model's predictions depend on.

        Models of one vocabulary predict the same in every role. Others see in each role other tokens masked.
        """
        prints = [model.fingerprint for model in models]
        roles = [] if self.alignment.shared else self._order
        return [
            [
                _key(prints, roles, at, temperatures[at], list(ids), request)
                for at, ids in zip(self._order, request.prompts, strict=True)
            ]
            for request in self.requests
        ]


def _key(
    prints: Sequence[str],
    roles: Sequence[int],
    model: int,
    temperatures: Sequence[float],
    ids: list[int],
    request: Request,
) -> str:
    options = request.options.model_dump(mode="python", exclude={"truncation", "add_special_tokens", "seed"})
    parts = [
        prints,
        list(roles),
        model,
        temperatures,
        ids,
        sorted(request.visible),
        sorted(request.names),
        options,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()
