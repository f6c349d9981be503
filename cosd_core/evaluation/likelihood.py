"""How probable a given text is under CoSD: teacher forcing, in batches, with bounded memory.

CoSD picks whole tokens from one of two distributions, so there is no fused distribution to read off. Instead,
every true token is scored by the distribution of the token that the verifier keeps or puts at its position,
after the true tokens before it (:meth:`Verifier.fused_logits`):

* ``rule``, trees and other verifiers over confidences: the draft's where its token is kept, also where
  both agree; the assistant's where it replaces.
* ``draft``, ``assistant``: that model's.
* ``speculative``: the assistant's, which is what it samples from (Leviathan et al., 2023).
* ``average``: the mixture of both.

The choice depends on the prefix alone, so this is a proper distribution over texts, and at every position its
most probable next token is the one that CoSD writes greedily. Where tokens are sampled, CoSD's own choice
also depends on the drawn token; that distribution is another one, and has no closed form.

``word_likelihood.py`` does the same for models with different tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidPromptError, VerifierError, quoted
from cosd_core.generation.requests import check_ids
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.logits_session import LogitsSession, open_logits_session
from cosd_core.models.vocabulary_alignment import require_one_vocabulary
from cosd_core.options import GenerationOptions
from cosd_core.prediction import Opinions, Prediction
from cosd_core.sampling.predict import predict
from cosd_core.sampling.sampler import RandomNumbers, Sampler, SamplingPosition
from cosd_core.training.windows import Window, windows
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers import Position
from cosd_core.verifiers.base import can_replace

LOGITS_AT_ONCE = 2**25
"""How many logits a pass may return, over all models; about four arrays of that size exist at a time."""

_GREEDY = SamplingPosition(Sampler(GenerationOptions(), frozenset(), RandomNumbers(0)), (), 0, 0, 0)
"""A position without masks, where the most probable token is picked."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """The token ids of a text and of its prompt for every model, the draft's first; none is empty."""

    prompts: tuple[tuple[int, ...], ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The logarithm of a text's probability, in nats, and whether greedy decoding would write the text."""

    log: float
    greedy: bool


def log_likelihoods(
    decoder: CoSDDecoder,
    texts: Sequence[Continuation],
    *,
    logits_at_once: int = LOGITS_AT_ONCE,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Likelihood]:
    """The likelihood of every text under the decoder's models and verifier.

    Texts that differ in their last token only, such as the letters of a multiple choice, are read once. The
    decoder's ``batch_size`` is the most texts that are read together. ``logits_at_once`` bounds the memory
    for logits: a batch of longer texts is read in several passes. ``progress`` gets the number of newly
    scored texts.

    Raises:
        InvalidOptionError: The verifier defines no :meth:`Verifier.fused_logits`.
        InvalidPromptError: A text is empty, or holds a token id outside the vocabulary.
        GenerationError: A model failed.
    """
    scorer = _Scorer(decoder, logits_at_once)
    groups: dict[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]], list[int]] = {}
    for number, text in enumerate(texts):
        scorer.check(text)
        groups.setdefault((text.prompts, text.ids[:-1]), []).append(number)
    # The longest first, so that a lack of memory shows at once.
    order = sorted(groups, key=lambda read: -max(map(len, read[0])) - len(read[1]))
    found: dict[int, Likelihood] = {}
    for start in range(0, len(order), decoder.batch_size):
        batch = [groups[read] for read in order[start : start + decoder.batch_size]]
        scored = scorer.score([[texts[number] for number in group] for group in batch])
        for group, likelihoods in zip(batch, scored, strict=True):
            found.update(zip(group, likelihoods, strict=True))
            progress(len(likelihoods))
    return [found[number] for number in range(len(texts))]


class _Scorer:
    """Scores batches of texts with the models and the verifier of a decoder."""

    def __init__(self, decoder: CoSDDecoder, logits_at_once: int) -> None:
        self._decoder = decoder
        self._logits_at_once = logits_at_once
        self._alignment = require_one_vocabulary(decoder.models, "scoring texts token by token")
        self._vocabulary = self._alignment.vocabularies[0]

    def check(self, text: Continuation) -> None:
        """Refuse a text that cannot be scored."""
        if not text.ids or not all(text.prompts) or len(text.prompts) != len(self._decoder.models):
            raise InvalidPromptError(
                f"{quoted(text)} should hold a token to score, and one not empty prompt per model: "
                f"{len(self._decoder.models)}"
            )
        for ids in (text.ids, *text.prompts):
            check_ids("a text", ids, self._vocabulary)

    @torch.inference_mode()
    def score(self, batch: Sequence[Sequence[Continuation]]) -> list[list[Likelihood]]:
        """Score groups of texts; the texts of a group differ in their last token only."""
        models, firsts = self._decoder.models, [group[0] for group in batch]
        sessions = [open_logits_session(model, vocabulary=self._vocabulary) for model in models]
        rows = [[[*each.prompts[at], *each.ids[:-1]] for each in firsts] for at in range(len(models))]
        logs = [[0.0] * len(group) for group in batch]
        greedy = [[True] * len(group) for group in batch]
        targets = [len(each.ids) for each in firsts]
        logits_each = len(batch) * self._vocabulary * len(models)
        width = pass_width(models, max(targets), self._logits_at_once // logits_each)
        for window in windows(targets, max(targets), width):
            logits = self._fused_logits(sessions, rows, window)
            wanted = [
                (position, row, index, text.ids[target])
                for position, (row, _, target) in enumerate(window.positions)
                for index, text in enumerate(batch[row])
            ]
            positions, _, _, tokens = zip(*wanted, strict=True)
            top = logits.argmax(-1).tolist()
            scores = torch.log_softmax(logits, -1)[positions, tokens].tolist()
            for (position, row, index, token), score in zip(wanted, scores, strict=True):
                logs[row][index] += score
                greedy[row][index] &= token == top[position]
        return [list(map(Likelihood, *each)) for each in zip(logs, greedy, strict=True)]

    def _fused_logits(
        self, sessions: Sequence[LogitsSession], rows: Sequence[Sequence[list[int]]], window: Window
    ) -> torch.Tensor:
        """The verifier's logits at every position of a window, ``[positions, vocabulary]``."""
        row_of = [row for row, _, _ in window.positions]
        column_of = [column for _, column, _ in window.positions]

        def run(model: int) -> list[Prediction]:
            logits = sessions[model].read_logits(window.prefixes(rows[model]), last=window.last)
            logits = self._alignment.bar(logits[row_of, column_of])
            role = "draft" if model == 0 else f"assistant {model - 1}"
            calibration = self._decoder.calibration[model]
            return predict(logits, [_GREEDY] * len(logits), role, keep_logits=True, calibration=calibration)

        verifier = self._decoder.verifier
        drafts = run(0)
        opinions: list[Opinions | None] = [None] * len(drafts)
        if any(can_replace(verifier, draft.confidence) for draft in drafts):
            opinions = list(zip(*map(run, range(1, len(sessions))), strict=True))
        with guarded(VerifierError, verifier):
            logits = [verifier.fused_logits(Position(*each)) for each in zip(drafts, opinions, strict=True)]
            return torch.stack([each.to(logits[0].device) for each in logits])


def pass_width(models: Sequence[BaseLanguageModel], targets: int, most: int) -> int:
    """How many positions a pass has over rows with so many targets: about ``most``, or all of them."""
    if not all(model.batchable for model in models):
        return targets  # the cache of such models would depend on the number of passes
    return max(1, most)
