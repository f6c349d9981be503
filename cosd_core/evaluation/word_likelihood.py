"""How probable a given text is under CoSD where models have different tokens: word by word.

At every word of the text, after the true text before it, the draft writes its next word, and the verifier
decides as in decoding. The model that writes there scores the true word: the draft, or the assistant whose
replacement the verifier accepts. The score is the logarithm of the probability of that model's own tokens of
the word, after those of the true text before it.

Only the next token tells that a word has ended. So where the writer changes, the probability that the next
token begins a word counts: the former writer's is a factor, because its word ends there, and the next
writer's a divisor, because a word begins there in any case. Without them a model that is certain of "Par" and
then of "is" would give both words the probability one; with them those of all texts add up to one at most.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch

from cosd_core.cross_tokenizer.row_factory import CrossTokenizerRowFactory
from cosd_core.cross_tokenizer.verification import BlockVerification, ReplacementCandidate, Verification
from cosd_core.cross_tokenizer.word_boundaries import LONGEST, word_ends, word_starts
from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import (
    ContextOverflowError,
    InvalidOptionError,
    InvalidPromptError,
    VerifierError,
    quoted,
)
from cosd_core.evaluation.likelihood import LOGITS_AT_ONCE, Likelihood, pass_width
from cosd_core.generation.loop import Batch
from cosd_core.generation.requests import Request, check_ids
from cosd_core.generation.row import Row
from cosd_core.generation.row_factory import MakeRow
from cosd_core.generation.scheduling import FixedSchedule
from cosd_core.generation.text_state import RowConfig
from cosd_core.models.logits_session import open_logits_session
from cosd_core.models.vocabulary_alignment import align
from cosd_core.options import GenerationOptions
from cosd_core.outputs import Step
from cosd_core.prediction import Prediction
from cosd_core.training.windows import windows
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers import Position

_DRAFT_LENGTH = 1
"""Tokens drafted behind the word are lost."""

_SPARE_TOKENS = 2 * LONGEST
"""How many tokens more than a text has bytes the draft may write."""

_Walk = Generator[Row, Step, None]
"""Yields the row that decodes next, gets its step, and ends."""


@dataclass(frozen=True, slots=True)
class TextContinuation:
    """A text, and the token ids of its prompt for every model, the draft's first; none is empty."""

    prompts: tuple[tuple[int, ...], ...]
    text: str


def word_likelihoods(
    decoder: CoSDDecoder,
    texts: Sequence[TextContinuation],
    *,
    logits_at_once: int = LOGITS_AT_ONCE,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Likelihood]:
    """The likelihood of every text under the decoder's models, which may have different tokens.

    A prompt that does not fit a model's context window with the text is cut from the left. The other
    arguments are those of :func:`log_likelihoods`.

    Raises:
        InvalidOptionError: The verifier mixes distributions, or defines no likelihoods.
        InvalidPromptError: A text or a prompt is empty, or holds what is no text or no token id.
        ContextOverflowError: A text alone fills a context window.
        GenerationError: A model failed.
    """
    scorer = _WordScorer(decoder, logits_at_once)
    read = [scorer.read(text) for text in texts]
    # The longest first, so that a lack of memory shows at once.
    order = sorted(range(len(read)), key=lambda at: -len(read[at].ids(0)))
    found: dict[int, Likelihood] = {}
    for start in range(0, len(order), decoder.batch_size):
        batch = order[start : start + decoder.batch_size]
        found.update(zip(batch, scorer.score([read[at] for at in batch]), strict=True))
        progress(len(batch))
    return [found[at] for at in range(len(texts))]


@dataclass(frozen=True, slots=True)
class _Words:
    """A text as words: their bytes, and the ids of the prompt and of every word, ``[model][word][token]``."""

    words: tuple[bytes, ...]
    prompts: tuple[tuple[int, ...], ...]
    tokens: tuple[tuple[tuple[int, ...], ...], ...]

    def ids(self, model: int, words: int | None = None) -> list[int]:
        """The prompt and the first words in a model's tokens; None: all words."""
        return [*self.prompts[model], *chain.from_iterable(self.tokens[model][:words])]


class _FirstWord(BlockVerification):
    """Decides about the first word of a text alone: the next one is decided after the true text."""

    def _decide(self, candidates: Sequence[ReplacementCandidate], word: range) -> Verification:
        return None if word.start else (yield from super()._decide(candidates, word))


class _WordScorer:
    """Scores batches of texts with the models and the verifier of a decoder."""

    def __init__(self, decoder: CoSDDecoder, logits_at_once: int) -> None:
        self._models = decoder.models
        self._verifier = decoder.verifier
        self._chunk_size = decoder.prefill_chunk_size
        self._logits_at_once = logits_at_once
        names = tuple(model.name for model in self._models)
        self._config = RowConfig(self._verifier, _DRAFT_LENGTH, True, names, decoder.calibration)
        alignment = align(self._models)
        decoding, deciding = (
            CrossTokenizerRowFactory(self._models, alignment, self._config, verification)
            for verification in (BlockVerification, _FirstWord)
        )
        self._views = decoding.views
        self._make_text = decoding.for_call(GenerationOptions())
        self._make_word = deciding.for_call(GenerationOptions())
        self._first_bytes: dict[int, torch.Tensor] = {}
        self._writer_if_kept(())  # so that a verifier is refused at once

    def read(self, text: TextContinuation) -> _Words:
        """Encode a text word by word, cut its prompts, and refuse what cannot be scored."""
        if not text.text or not all(text.prompts) or len(text.prompts) != len(self._models):
            raise InvalidPromptError(
                f"{quoted(text)} should hold text to score, and one not empty prompt per model: "
                f"{len(self._models)}"
            )
        try:
            whole = text.text.encode()
        except UnicodeEncodeError as error:
            raise InvalidPromptError(f"{quoted(text.text)} is no text: {error.reason}") from error
        words = tuple(whole[start:end] for start, end in pairwise([0, *word_ends(whole, 0), len(whole)]))
        prompts, tokens = [], []
        for model, view, prompt in zip(self._models, self._views, text.prompts, strict=True):
            check_ids("a prompt", prompt, view.size)
            tokens.append(tuple(view.encode(word.decode())[0] for word in words))
            length = sum(map(len, tokens[-1]))
            room = len(prompt) if view.window is None else view.window - length
            if room < 1:
                raise ContextOverflowError(
                    f"a text of {length} tokens is to be scored, which leaves no room for a prompt in the "
                    f"context window of {view.window} tokens of model {quoted(model.name)}"
                )
            prompts.append(prompt[-room:])
        return _Words(words, tuple(prompts), tuple(tokens))

    def score(self, texts: Sequence[_Words]) -> list[Likelihood]:
        """Score some texts together."""
        writers: list[list[int]] = [[] for _ in texts]
        written = [""] * len(texts)
        self._decode([self._find_writers(text, each) for text, each in zip(texts, writers, strict=True)])
        self._decode([self._write(text, at, written) for at, text in enumerate(texts)])
        logs = [0.0] * len(texts)
        for model in range(len(self._models)):
            self._add_scores(model, texts, writers, logs)
        truths = [b"".join(text.words).decode() for text in texts]
        return [
            Likelihood(-math.inf if math.isnan(log) else log, each.startswith(truth))  # nan: zero by zero
            for log, each, truth in zip(logs, written, truths, strict=True)
        ]

    # Decoding

    def _decode(self, walks: Sequence[_Walk]) -> None:
        """Run walks to their ends, in one batch."""
        batch = Batch(
            [next(walk) for walk in walks],
            models=self._models,
            vocabularies=[view.size for view in self._views],
            config=self._config,
            schedule=FixedSchedule(),
            prefill_chunk_size=self._chunk_size,
        )
        while batch.rows:
            if not (steps := batch.round()):
                continue  # it has read a chunk of the prompts
            following = [_next_row(*each) for each in zip(walks, steps, strict=True)]
            walks = [walk for walk, row in zip(walks, following, strict=True) if row]
            batch.remove([old for old, row in zip(batch.rows, following, strict=True) if not row])
            batch.rows = [row for row in following if row]

    def _find_writers(self, text: _Words, writers: list[int]) -> _Walk:
        """Decode every word behind the true text, and add the model that writes it to a list."""
        for at, word in enumerate(text.words):
            row = self._row(self._make_word, text, at, _SPARE_TOKENS)
            step = yield row
            while not (step.tokens or step.generation):
                step = yield row
            # Where the next byte does not tell that a word has ended, its writer goes on.
            goes_on = at and not word_starts(text.words[at - 1])[word[0]]
            writers.append(writers[-1] if goes_on else self._writer(step))

    def _write(self, text: _Words, at: int, written: list[str]) -> _Walk:
        """Decode from the prompt while the true text is written, and add what is written to that text."""
        truth = b"".join(text.words)
        row = self._row(self._make_text, text, 0, len(truth) + _SPARE_TOKENS)
        while truth.decode().startswith(written[at]):
            step = yield row
            written[at] += step.text
            if step.generation or written[at] == truth.decode():
                return

    def _row(self, make: MakeRow, text: _Words, words: int, room: int) -> Row:
        """A row behind the first words, for as many tokens of the draft as its window admits."""
        prompts = tuple(tuple(text.ids(model, words)) for model in range(len(self._models)))
        if (window := self._views[0].window) is not None:
            room = max(1, min(room, window - len(prompts[0])))
        return make(0, Request("", prompts, GenerationOptions(max_new_tokens=room)))

    def _writer(self, step: Step) -> int:
        """The model that writes a word, 0 for the draft."""
        if replacement := step.verdict.replacement:
            return 1 + replacement.assistant_index
        return self._writer_if_kept((step.opinions and step.opinions[0]) or ())

    def _writer_if_kept(self, opinions: Sequence[Prediction]) -> int:
        """The model whose distribution the verifier uses where no token is replaced."""
        marks = [torch.zeros(1) for _ in self._models]
        confidences = [each.confidence for each in opinions] + [0.0] * len(marks)
        agreeing = tuple(Prediction(0, q, mark) for q, mark in zip(confidences, marks[1:], strict=False))
        with guarded(VerifierError, self._verifier):
            used = self._verifier.fused_logits(Position(Prediction(0, 1.0, marks[0]), agreeing))
        found = [at for at, mark in enumerate(marks) if mark is used]
        if self._verifier.needs_logits or not found:
            raise InvalidOptionError(
                f"verifier={quoted(self._verifier)}: likelihoods word by word are defined for verifiers that "
                "let one model write a token"
            )
        return found[0]

    # Scoring

    @torch.inference_mode()
    def _add_scores(
        self, model: int, texts: Sequence[_Words], writers: Sequence[list[int]], logs: list[float]
    ) -> None:
        """Add one model's share to the scores: the words that it writes, and where they begin and end."""
        read = [at for at, each in enumerate(writers) if model in each and any(texts[at].tokens[model])]
        if not read:
            return
        size = self._views[model].size
        rows = [texts[at].ids(model)[:-1] for at in read]
        targets = [
            [(word, not number, token) for word, ids in enumerate(texts[at].tokens[model])
             for number, token in enumerate(ids)]
            for at in read
        ]  # fmt: skip
        counts = list(map(len, targets))
        width = pass_width([self._models[model]], max(counts), self._logits_at_once // (len(rows) * size))
        session = open_logits_session(self._models[model], vocabulary=size)
        for window in windows(counts, max(counts), width):
            logits = session.read_logits(window.prefixes(rows), last=window.last)
            for row, column, target in window.positions:
                (word, first, token), at = targets[row][target], read[row]
                writes = writers[at][word] == model
                wrote = writers[at][word - 1] == model if first and word else writes
                if not (writes or wrote):
                    continue
                each = logits[row, column]
                shares = torch.log_softmax(each.to(torch.promote_types(each.dtype, torch.float32)), -1)
                if writes:
                    logs[at] += float(shares[token])
                if writes != wrote:
                    begins = shares[self._begins(model, texts[at].words[word - 1])].logsumexp(-1)
                    logs[at] += (wrote - writes) * float(begins)

    def _begins(self, model: int, word: bytes) -> torch.Tensor:
        """Which of a model's tokens begin another word behind one, bool, ``[vocabulary]``."""
        if model not in self._first_bytes:
            view = self._views[model]
            first = [(view.comparable_bytes(token) or [256])[0] for token in range(view.size)]
            self._first_bytes[model] = torch.tensor(first)
        starts = torch.tensor((*word_starts(word), False))
        return starts[self._first_bytes[model]].to(self._models[model].device)


def _next_row(walk: _Walk, step: Step) -> Row | None:
    """The row with which a walk goes on after a step; None at its end."""
    try:
        return walk.send(step)
    except StopIteration:
        return None
