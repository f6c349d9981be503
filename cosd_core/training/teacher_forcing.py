"""Teacher forcing: every model reads true texts, and what it would have written is noted at every position.

Texts are read in batches of like length. A batch is one pass, or it is one long text that is read in several
passes, so at most ``tokens_per_pass`` positions have logits at any time; of these only a few numbers per
position are kept.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosd_core.errors import InvalidOptionError, ModelOutputError, TrainingDataError, quoted
from cosd_core.models.language_model import LanguageModel
from cosd_core.models.vocabulary_alignment import Alignment, require_one_vocabulary
from cosd_core.training.checkpoint import Checkpoint
from cosd_core.training.examples import read_examples
from cosd_core.training.observation_buffer import ObservationBuffer
from cosd_core.training.tokenization import ExampleTokenizer, TokenizedExample
from cosd_core.verifiers.observations import TEMPERATURES, Observations

_NUMBERS_AT_ONCE = 2**22
"""How many logits are turned into float32 and reduced in one go; a handful of such arrays live at once."""

_FAR_BELOW = -1e4
"""Stands for the logit of an impossible token, relative to the best one: infinity times zero is no number."""


def observe(
    models: Sequence[LanguageModel],
    data: Any,
    *,
    end_token: bool = True,
    tokens_per_pass: int = 2048,
    checkpoint: str | PathLike[str] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Observations:
    """Let models read true texts; every one sees the true prefix of each position. Prompts are not observed.

    A text longer than the smallest context window is cut: the completion at its end, though never to less
    than half of the window, then the prompt at its start. ``Observations.truncated`` counts such texts.

    Args:
        models: The draft, then the assistants, all of one vocabulary.
        data: What :func:`read_examples` takes.
        end_token: Whether texts are meant to end after their completion, so that the token that ends them is
            the last position to be learned.
        tokens_per_pass: How many positions, padding included, a model reads at once. Memory for logits is
            bounded by this many times the vocabulary per model, memory for the cache by the longest text.
        checkpoint: A folder for what is done. A call that was interrupted and is made again goes on where it
            stopped. It belongs to these models, data and settings.
        progress: Told how many of all positions are done, first 0.

    Raises:
        TrainingDataError: A record is not as it should be, or there is none.
        InvalidOptionError: A model is none, ``tokens_per_pass`` no whole number of at least 1, or the
            checkpoint belongs to something else.
        VocabularyMismatchError: The models do not share one vocabulary.
        GenerationError: A model failed.
    """
    if not isinstance(tokens_per_pass, int) or isinstance(tokens_per_pass, bool) or tokens_per_pass < 1:
        raise InvalidOptionError(
            f"tokens_per_pass={quoted(tokens_per_pass)} should be a whole number of at least 1"
        )
    for model in models:
        if not isinstance(model, LanguageModel):
            raise InvalidOptionError(f"models should hold LanguageModels, not {quoted(model)}")
    alignment = require_one_vocabulary(models, "teacher forcing")
    reader = ExampleTokenizer(models, alignment.vocabularies[0], end_token=end_token)
    texts = [reader.read(number, lesson) for number, lesson in enumerate(read_examples(data))]
    if not texts:
        raise TrainingDataError("there is nothing to learn from: the data hold no example")
    total, done = sum(len(text.truth) for text in texts), 0
    notes = ObservationBuffer([model.name for model in models], texts)
    kept = None
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, _key(models, texts, tokens_per_pass))
    progress(done, total)
    for number, batch in enumerate(_batches(texts, models, tokens_per_pass)):
        known = kept.load(number) if kept else None
        if known is not None and number > 0:
            notes.take(known)
        else:  # the first batch is read each time: weights have no name, so it shows if they are the same
            _read(models, alignment, batch, tokens_per_pass, notes)
            if kept and known is None:
                kept.save(number, notes.of(batch))
            elif kept and known is not None:
                kept.check(known, notes.of(batch))
        done += sum(len(text.truth) for text in batch)
        progress(done, total)
    return notes.finished()


def _batches(
    texts: Sequence[TokenizedExample], models: Sequence[LanguageModel], tokens_per_pass: int
) -> Iterator[list[TokenizedExample]]:
    """Texts of like length, the longest first: what needs too much memory shows at once."""
    batchable = all(model.batchable for model in models)
    batch: list[TokenizedExample] = []
    for text in sorted(texts, key=lambda text: (-text.length, text.number)):
        if batch and (not batchable or (len(batch) + 1) * batch[0].length > tokens_per_pass):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


@torch.inference_mode()
def _read(
    models: Sequence[LanguageModel],
    alignment: Alignment,
    batch: Sequence[TokenizedExample],
    tokens_per_pass: int,
    notes: ObservationBuffer,
) -> None:
    """Read a batch from left to right. Rows are aligned at their right edge, as sessions keep them."""
    vocabulary = alignment.vocabularies[0]
    sessions = [model.open_session(vocabulary=vocabulary) for model in models]
    rows = list(zip(*(text.rows() for text in batch), strict=True))  # [models][rows]
    width = max(1, tokens_per_pass // len(batch))
    places = max(len(text.truth) for text in batch)
    longest = max(text.length for text in batch)
    for left_out in range((longest - 1) // width * width, -1, -width):
        last = min(max(places - left_out, 1), width)
        logits = [
            alignment.bar(session.logits([ids[: max(len(ids) - left_out, 1)] for ids in each], last=last))
            for session, each in zip(sessions, rows, strict=True)
        ]
        spots = [
            (at, place - first, place - indent)
            for first in [max(places - left_out - last, 0)]
            for at, text in enumerate(batch)
            for indent in [places - len(text.truth)]
            for place in range(max(first, indent), places - left_out)
        ]
        size = max(1, _NUMBERS_AT_ONCE // vocabulary)
        for start in range(0, len(spots), size):
            _measure(models, logits, batch, spots[start : start + size], notes)
        del logits  # before the next pass makes others


def _measure(
    models: Sequence[LanguageModel],
    logits: Sequence[torch.Tensor],
    batch: Sequence[TokenizedExample],
    spots: Sequence[tuple[int, int, int]],
    notes: ObservationBuffer,
) -> None:
    """Reduce the logits of some positions to numbers.

    Args:
        models: Whose they are.
        logits: Per model, ``[rows, columns, vocabulary]``.
        batch: The text of every row.
        spots: The positions, as (row, column, place of the true token in its text).
        notes: Where the numbers go.
    """
    rows, columns, places = (torch.tensor(each) for each in zip(*spots, strict=True))
    truth = torch.tensor([batch[row].truth[place] for row, _, place in spots])
    views = [
        _View(model, each[rows.to(each.device), columns.to(each.device)])
        for model, each in zip(models, logits, strict=True)
    ]
    curves = [view.curve() for view in views]
    notes.write(
        np.array([text.number for text in batch])[rows.numpy()],
        places.numpy(),
        picks=_columns([view.pick for view in views]),
        probabilities=np.stack([_columns([view.probability(x.pick) for x in views]) for view in views], 1),
        runners_up=_columns([view.runner_up() for view in views]),
        gaps=_columns([view.gap(truth) for view in views]),
        partitions=_columns([partitions for partitions, _ in curves]),
        slopes=_columns([slopes for _, slopes in curves]),
    )


class _View:
    """One model's logits at some positions, relative to the highest of each.

    Attributes:
        pick: The most probable token, ``[positions]``.
    """

    def __init__(self, model: LanguageModel, logits: torch.Tensor) -> None:
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        highest, self.pick = logits.max(-1)
        if not highest.isfinite().all():
            raise ModelOutputError(f"model {model.name!r} returned logits that are NaN or infinite")
        self._below = (logits - highest[:, None]).clamp_(min=_FAR_BELOW)
        self._partition = self._below.exp().sum(-1)

    def gap(self, tokens: torch.Tensor) -> torch.Tensor:
        """How far the logit of a token lies below the highest, ``[positions]``."""
        return self._below.gather(-1, tokens.to(self._below.device)[:, None])[:, 0]

    def probability(self, tokens: torch.Tensor) -> torch.Tensor:
        """The probability of a token at temperature 1, ``[positions]``."""
        return self.gap(tokens).exp() / self._partition

    def runner_up(self) -> torch.Tensor:
        """The probability of the second choice, ``[positions]``."""
        return self._below.topk(2).values[:, 1].exp() / self._partition

    def curve(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``log Z`` and its slope by 1/T at the grid of temperatures, both ``[positions, temperatures]``."""
        partitions, slopes = [], []
        for temperature in TEMPERATURES:
            weights = (self._below / temperature).exp_()
            partition = weights.sum(-1)
            partitions.append(partition.log())
            slopes.append(weights.mul_(self._below).sum(-1) / partition)
        return torch.stack(partitions, -1), torch.stack(slopes, -1)


def _columns(each: Sequence[torch.Tensor]) -> NDArray[Any]:
    """One tensor per model, ``[positions, ...]``, as an array ``[positions, models, ...]``."""
    return np.stack([one.cpu().numpy() for one in each], 1)


def _key(models: Sequence[LanguageModel], texts: Sequence[TokenizedExample], tokens_per_pass: int) -> str:
    """What observations depend on, weights aside, as a hash."""
    digest = hashlib.sha256(json.dumps([1, TEMPERATURES, tokens_per_pass]).encode())
    for model in models:
        digest.update(model.fingerprint.encode())
    for text in texts:
        digest.update(json.dumps([text.prompts, text.truth]).encode())
    return digest.hexdigest()
