"""The texts of a worker: predictions and decisions, in the rows of vLLM's batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from cosd_core.prediction import Prediction
from cosd_core.sampling.predict import predict
from cosd_core.sampling.sampler import SamplingPosition
from cosd_core.serving.vllm.provenance import DecidedToken
from cosd_core.serving.vllm.settings import ServerSettings
from cosd_core.serving.vllm.text import RequestText
from cosd_core.utils import agreed_prefix
from cosd_core.verifiers import Position, verify_block
from cosd_core.verifiers.types import Verdict

_Place = tuple[RequestText, int]
"""A text, and an index in its block."""


class Batch:
    """The texts of all requests of a worker, and the rows of the current step.

    Attributes:
        rows: Per row of vLLM's batch its text, or None where no token is due: a part of a prompt.
    """

    def __init__(
        self,
        settings: ServerSettings,
        vocabulary: int,
        allowed: torch.Tensor | None,
        make_matcher: Callable[[Any], Any],
    ) -> None:
        """Begin without texts.

        Args:
            settings: Those of the server.
            vocabulary: How many token ids take part: embedding matrices may be padded.
            allowed: Which of them may be generated at all, bool, ``[vocabulary]``; None: all.
            make_matcher: Makes the grammar of vLLM's state of a request; None if it has none.
        """
        self._settings = settings
        self._vocabulary = vocabulary
        self._allowed = allowed
        self._make_matcher = make_matcher
        self._texts: dict[str, RequestText] = {}
        self.rows: list[RequestText | None] = []

    def begin_step(self, requests: Mapping[str, Any], row_ids: Sequence[str], is_due: Sequence[bool]) -> None:
        """Set the rows of a step.

        Args:
            requests: All of vLLM's requests in the worker, by id.
            row_ids: The ids of the batch's rows.
            is_due: Per row whether it is read to its end, so that its next token is due.
        """
        for gone in self._texts.keys() - requests.keys():
            del self._texts[gone]
        self.rows = [
            self._text(each, requests[each]) if due else None
            for each, due in zip(row_ids, is_due, strict=True)
        ]

    def _text(self, request_id: str, request: Any) -> RequestText:
        text = self._texts.get(request_id)
        if text is None or text.request is not request or not text.in_step:
            text = RequestText.of(request, self._settings, self._allowed, self._make_matcher(request))
            self._texts[request_id] = text
        return text

    def decide(
        self, logits: torch.Tensor, starts: Sequence[int], scheduled: Sequence[list[int]]
    ) -> list[list[DecidedToken]]:
        """Judge the blocks, append what stands to the texts, and return it per row.

        A row without a block gets no token.

        Args:
            logits: The assistant's, ``[rows of all requests, vocabulary or more]``.
            starts: Per row its first line of ``logits``: the position behind the text. The positions behind
                its scheduled tokens follow.
            scheduled: Per row the proposed tokens that vLLM ran.
        """
        places, lines = [], []
        for text, start, ids in zip(self.rows, starts, scheduled, strict=True):
            if text is None:
                continue
            # The line behind the last agreed token judges one more. vLLM runs fewer tokens than were proposed
            # where its budget or the context ends, and placeholders where a request is resumed.
            agreed = agreed_prefix(ids, [each.id for each in text.block])
            for index in range(min(len(text.block), agreed + 1)):
                places.append((text, index))
                lines.append(start + index)
        opinions = self._predict(logits[lines], places, "assistant 0", model=1)
        judged: dict[int, list[Prediction]] = {}
        for (text, _), opinion in zip(places, opinions, strict=True):
            judged.setdefault(id(text), []).append(opinion)
        return [[] if text is None else _take(text, judged.get(id(text), ())) for text in self.rows]

    def draft(self, logits: torch.Tensor) -> torch.Tensor:
        """Append the draft's prediction to the block of every row with a text; ids ``[rows]``, others 0.

        Args:
            logits: The draft's, ``[rows, vocabulary or more]``.
        """
        lines = [line for line, text in enumerate(self.rows) if text is not None]
        places = [(text, len(text.block)) for text in self.rows if text is not None]
        predictions = self._predict(logits[lines], places, "draft", model=0)
        ids = torch.zeros(len(self.rows), dtype=torch.int64)
        for line, (text, _), prediction in zip(lines, places, predictions, strict=True):
            text.propose(prediction)
            ids[line] = prediction.id
        return ids.to(logits.device)

    def _predict(
        self, logits: torch.Tensor, places: Sequence[_Place], purpose: str, *, model: int
    ) -> list[Prediction]:
        """What a model writes at places; ``logits`` is ``[places, vocabulary or more]``."""
        logits = logits[:, : self._vocabulary]
        groups: dict[float, list[int]] = {}
        for at, (text, _) in enumerate(places):
            groups.setdefault(text.calibration[model], []).append(at)
        found: dict[int, Prediction] = {}
        for temperature, group in groups.items():
            positions: list[SamplingPosition] = [places[at][0].position(places[at][1]) for at in group]
            chosen = logits if len(groups) == 1 else logits[group]
            predictions = predict(chosen, positions, purpose, keep_logits=False, calibration=temperature)
            found.update(zip(group, predictions, strict=True))
        return [found[at] for at in range(len(places))]


def _take(text: RequestText, opinions: Sequence[Prediction]) -> list[DecidedToken]:
    """Judge the positions with opinions, and append what stands."""
    block = text.block[: len(opinions)]
    verdict = verify_block(
        text.verifier, [Position(draft, (opinion,)) for draft, opinion in zip(block, opinions, strict=True)]
    )
    decided = _decided(block, opinions, verdict)
    text.commit([token.id for token in decided])
    return decided


def _decided(
    block: Sequence[Prediction], opinions: Sequence[Prediction], verdict: Verdict
) -> list[DecidedToken]:
    standing = verdict.kept + (verdict.replacement is not None)
    return [
        DecidedToken("draft" if index < verdict.kept else "assistant", x.confidence, y.confidence, x.id, y.id)
        for index, (x, y) in enumerate(zip(block[:standing], opinions, strict=False))
    ]
