"""How probable a given text is under CoSD: teacher forcing, in batches, with bounded memory.

CoSD picks whole tokens from one of two distributions, so there is no fused distribution to read off. What is
scored instead: at every position, after the true tokens before it, the verifier judges what both models would
write there, and the distribution of whoever's token stands is the one that the true token is scored by.

* ``rule``, trees and other verifiers over confidences: the draft's where its token is kept, also where
  both agree; the assistant's where it replaces.
* ``draft``, ``assistant``: that model's.
* ``speculative``: the assistant's, which is what it samples from (Leviathan et al., 2023).
* ``average``: the mixture of both.

The choice depends on the prefix alone, so this is a proper distribution over texts, and its most probable
next token is at every position the one that CoSD writes greedily. Where tokens are sampled, CoSD's own choice
also depends on what was drawn; that distribution is another one, and has no closed form.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidOptionError, InvalidPromptError, quoted
from cosd_core.models.base import LogitsSession
from cosd_core.models.vocabulary_alignment import require_one_vocabulary
from cosd_core.options import GenerationOptions
from cosd_core.prediction import Opinions, Prediction
from cosd_core.sampling.predict import predict
from cosd_core.sampling.sampler import Sampler, SamplingPosition
from cosd_core.verifiers import (
    AssistantVerifier,
    AverageVerifier,
    ConfidenceVerifier,
    PairwiseVerifier,
    Position,
    SpeculativeVerifier,
    Verifier,
)

_LOGITS_AT_ONCE = 2**25
"""How many logits a pass may give, over all models; some four arrays of that size live at once."""

_ANYWHERE = SamplingPosition(Sampler(GenerationOptions(), frozenset(), 0), (), 0)
"""A place without masks, where the most probable token is picked."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text after a prompt.

    Attributes:
        prompts: The prompt's token ids as every model is shown them, the draft's first; none is empty.
        ids: The text's token ids, at least one.
    """

    prompts: tuple[tuple[int, ...], ...]
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How probable a text is.

    Attributes:
        log: The logarithm of its probability, in nats.
        greedy: Whether it is what would be written greedily, token by token.
    """

    log: float
    greedy: bool


def log_likelihoods(
    decoder: CoSDDecoder,
    texts: Sequence[Continuation],
    *,
    logits_at_once: int = _LOGITS_AT_ONCE,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Likelihood]:
    """The likelihood of every text under the decoder's models and verifier.

    Texts that differ in their last token only, such as the letters of a multiple choice, are read once.

    Args:
        decoder: Its ``batch_size`` is the most texts that are read together.
        texts: What to score.
        logits_at_once: Bounds the memory for logits; a batch of longer texts is read in several passes.
        progress: Told how many more texts are scored.

    Raises:
        InvalidOptionError: The verifier is none of those named above.
        InvalidPromptError: A text is empty, or holds an id that no model knows.
        GenerationError: A model failed.
    """
    if not isinstance(decoder.verifier, PairwiseVerifier | AverageVerifier | SpeculativeVerifier):
        raise InvalidOptionError(
            f"verifier={quoted(decoder.verifier)}: likelihoods are defined for verifiers over confidences, "
            "trees, average and speculative"
        )
    scorer = _Scorer(decoder, logits_at_once)
    reads: dict[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]], list[int]] = {}
    for at, text in enumerate(texts):
        scorer.check(text)
        reads.setdefault((text.prompts, text.ids[:-1]), []).append(at)
    # The longest first: what needs too much memory shows at once.
    order = sorted(reads, key=lambda read: -max(map(len, read[0])) - len(read[1]))
    found: dict[int, Likelihood] = {}
    for start in range(0, len(order), decoder.batch_size):
        batch = order[start : start + decoder.batch_size]
        members = [[texts[at] for at in reads[read]] for read in batch]
        for read, likelihoods in zip(batch, scorer.score(members), strict=True):
            found.update(zip(reads[read], likelihoods, strict=True))
            progress(len(likelihoods))
    return [found[at] for at in range(len(texts))]


class _Scorer:
    """The models and the verifier, ready to score batches."""

    def __init__(self, decoder: CoSDDecoder, logits_at_once: int) -> None:
        self._decoder = decoder
        self._logits_at_once = logits_at_once
        models = decoder.models
        self._alignment = require_one_vocabulary(models, "scoring given texts")
        self._vocabulary = self._alignment.vocabularies[0]

    def check(self, text: Continuation) -> None:
        """Refuse what cannot be scored."""
        if not text.ids or not all(text.prompts) or len(text.prompts) != len(self._decoder.models):
            raise InvalidPromptError(
                f"{quoted(text)} should hold a token to score, and one not empty prompt per model: "
                f"{len(self._decoder.models)}"
            )
        for ids in (text.ids, *text.prompts):
            if unknown := [token for token in ids if not 0 <= token < self._vocabulary]:
                raise InvalidPromptError(
                    f"a text holds token id {unknown[0]}, outside the vocabulary of {self._vocabulary} tokens"
                )

    @torch.inference_mode()
    def score(self, batch: Sequence[Sequence[Continuation]]) -> list[list[Likelihood]]:
        """Score texts, every entry those that differ in their last token only.

        Rows are aligned at their right ends, as sessions keep them, and read from left to right.
        """
        sessions = [model.open_session(vocabulary=self._vocabulary) for model in self._decoder.models]
        rows = [[[*same[0].prompts[at], *same[0].ids[:-1]] for same in batch] for at in range(len(sessions))]
        logs, greedy = [[0.0] * len(same) for same in batch], [[True] * len(same) for same in batch]
        places = max(len(same[0].ids) for same in batch)
        width = self._width(len(batch), places)
        for left_out in range((places - 1) // width * width, -1, -width):
            last = min(width, places - left_out)
            shown = [[ids[: max(len(ids) - left_out, 1)] for ids in each] for each in rows]
            spots = [
                (row, last - 1 - (behind - left_out), len(same[0].ids) - 1 - behind)
                for row, same in enumerate(batch)
                for behind in range(left_out, min(left_out + last, len(same[0].ids)))
            ]
            wanted = [[text.ids[place] for text in batch[row]] for row, _, place in spots]
            standing, scores = self._judge(sessions, shown, last, spots, wanted)
            for (row, _, _), token, tokens, found in zip(spots, standing, wanted, scores, strict=True):
                for at, (given, score) in enumerate(zip(tokens, found, strict=True)):
                    logs[row][at] += score
                    greedy[row][at] &= given == token
        return [list(map(Likelihood, *each)) for each in zip(logs, greedy, strict=True)]

    def _width(self, rows: int, places: int) -> int:
        """How many places are read at once."""
        if not all(model.batchable for model in self._decoder.models):
            return places  # what these models have cached would depend on how often they were asked
        return max(1, self._logits_at_once // (rows * self._vocabulary * len(self._decoder.models)))

    def _judge(
        self,
        sessions: Sequence[LogitsSession],
        shown: Sequence[Sequence[list[int]]],
        last: int,
        spots: Sequence[tuple[int, int, int]],
        wanted: Sequence[Sequence[int]],
    ) -> tuple[list[int], list[list[float]]]:
        """Per spot the token that stands, and the log-probability of every wanted token."""
        at_rows, columns = [row for row, _, _ in spots], [column for _, column, _ in spots]

        def read(at: int) -> torch.Tensor:
            logits = self._alignment.bar(sessions[at].logits(shown[at], last=last)[at_rows, columns])
            return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits

        verifier = self._decoder.verifier
        logits = [read(0)]
        drafts = self._predict(logits[0], 0)
        if isinstance(verifier, AverageVerifier | SpeculativeVerifier) or any(
            verifier.can_replace(draft.confidence) for draft in drafts
        ):
            logits += [read(at) for at in range(1, len(sessions))]
        answers = [self._predict(each, at) for at, each in enumerate(logits) if at]
        opinions: list[Opinions] = list(zip(*answers, strict=True)) or [()] * len(drafts)
        if isinstance(verifier, AverageVerifier):
            shares = [torch.softmax(each, -1).to(logits[0].device) for each in logits]
            mixture = verifier.weight * shares[0] + (1 - verifier.weight) * torch.stack(shares[1:]).mean(0)
            return mixture.argmax(-1).tolist(), list(_gathered(mixture.log(), wanted))
        voices = [_voice(verifier, *each) for each in zip(drafts, opinions, strict=True)]
        standing = [
            draft.id if voice == 0 else heard[voice - 1].id
            for voice, draft, heard in zip(voices, drafts, opinions, strict=True)
        ]
        scores: list[list[float]] = [[]] * len(spots)
        for voice in sorted(set(voices)):
            of_voice = [at for at, each in enumerate(voices) if each == voice]
            shares_of_voice = torch.log_softmax(logits[voice][of_voice], -1)
            for at, found in zip(
                of_voice, _gathered(shares_of_voice, [wanted[at] for at in of_voice]), strict=True
            ):
                scores[at] = found
        return standing, scores

    def _predict(self, logits: torch.Tensor, model: int) -> list[Prediction]:
        verifier = self._decoder.verifier
        return predict(
            logits,
            [_ANYWHERE] * len(logits),
            "draft" if model == 0 else f"assistant {model - 1}",
            keep_logits=isinstance(verifier, PairwiseVerifier) and verifier.needs_logits,
            calibration=self._decoder.calibration[model],
        )


def _voice(verifier: Verifier, draft: Prediction, opinions: Opinions) -> int:
    """Whose distribution counts: 0 is the draft's, 1 the first assistant's."""
    if isinstance(verifier, SpeculativeVerifier):
        return 1
    if replacement := verifier.judge(Position(draft, opinions)):
        return 1 + replacement.assistant_index
    if opinions and all(isinstance(each, AssistantVerifier) for each in _judges(verifier, len(opinions))):
        return 1 + max(range(len(opinions)), key=lambda at: opinions[at].confidence)
    return 0


def _judges(verifier: Verifier, assistants: int) -> list[Verifier]:
    if not isinstance(verifier, ConfidenceVerifier):
        return [verifier]
    return [verifier.for_assistant(at) for at in range(assistants)]


def _gathered(scores: torch.Tensor, wanted: Sequence[Sequence[int]]) -> Iterator[list[float]]:
    """Per row of ``[rows, vocabulary]`` the scores of the wanted tokens."""
    rows = [row for row, tokens in enumerate(wanted) for _ in tokens]
    flat = iter(scores[rows, [token for tokens in wanted for token in tokens]].tolist())
    for tokens in wanted:
        yield [next(flat) for _ in tokens]
