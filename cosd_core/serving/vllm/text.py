"""One request's text in the worker: its tokens, its verifier, and the draft's block behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cosd_core.prediction import Prediction
from cosd_core.sampling.sampler import RandomNumbers, Sampler, SamplingPosition
from cosd_core.serving.vllm.requests import generation_options
from cosd_core.serving.vllm.settings import ServerSettings
from cosd_core.verifiers import ConfidenceVerifier


@dataclass(slots=True)
class RequestText:
    """A text that grows by what is decided, and the block that the draft has proposed behind it.

    Attributes:
        request: vLLM's state of the request, in the worker.
        verifier: It decides which tokens stand.
        calibration: The temperatures of the draft's and the assistant's confidences.
        sampler: How both models pick tokens.
        ids: Prompt and text, then the proposed block.
        prompt_length: How many of them are the prompt.
        length: How many of them are prompt and text.
        block: The draft's predictions behind the text.
    """

    request: Any
    verifier: ConfidenceVerifier
    calibration: tuple[float, ...]
    sampler: Sampler
    ids: list[int]
    prompt_length: int
    length: int
    block: list[Prediction] = field(default_factory=list)

    @classmethod
    def of(
        cls, request: Any, settings: ServerSettings, allowed: torch.Tensor | None, matcher: Any
    ) -> "RequestText":
        """The text of a request that is new to the worker.

        Args:
            request: vLLM's ``CachedRequestState``.
            settings: Those of the server.
            allowed: Which tokens may be generated at all, bool, ``[vocabulary]``; None: all.
            matcher: The grammar of the request, at the start of the text; None if it has none.
        """
        params = request.sampling_params
        verifier = settings.verifier_for(params.extra_args)
        sampler = Sampler(
            generation_options(params),
            frozenset(params.all_stop_token_ids),
            RandomNumbers(params.seed),
            matcher=matcher,
            allowed=allowed,
        )
        prompt = list(request.prompt_token_ids)
        ids = [*prompt, *request.output_token_ids]
        calibration = settings.calibration_for(verifier)
        return cls(request, verifier, calibration, sampler, ids, len(prompt), len(ids))

    def position(self, index: int) -> SamplingPosition:
        """The position of the block's token ``index``; 0 is the first behind the text."""
        length = self.length + index
        return SamplingPosition(
            self.sampler, self.ids, self.prompt_length, length, length - self.prompt_length
        )

    def propose(self, prediction: Prediction) -> None:
        """Append a prediction of the draft to the block."""
        self.block.append(prediction)
        self.ids.append(prediction.id)

    def commit(self, tokens: Sequence[int]) -> None:
        """Append decided tokens to the text, and drop the block."""
        self.ids[self.length :] = tokens
        self.length += len(tokens)
        self.block = []

    @property
    def in_step(self) -> bool:
        """Whether vLLM's state of the request has the same text, so that the block continues it."""
        return self.length == len(self.request.prompt_token_ids) + len(self.request.output_token_ids)
