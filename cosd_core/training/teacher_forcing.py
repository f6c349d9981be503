"""Teacher forcing: every model reads true texts, and its prediction at every position is recorded.

Texts are read in batches of similar length. A batch is one pass, or it is one long text that is read in
several passes, so at most ``tokens_per_pass`` positions have logits at any time; of these only a few numbers
per position are kept.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import numpy as np
import torch

from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import ChatPrompt
from cosd_core.errors import InvalidOptionError, ModelOutputError, TrainingDataError, quoted
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.logits_session import open_logits_session
from cosd_core.models.vocabulary_alignment import Alignment, align
from cosd_core.options import check_counts
from cosd_core.training.checkpoint import Checkpoint
from cosd_core.training.confidence_curves import FAR_BELOW, curves
from cosd_core.training.examples import Example, read_examples
from cosd_core.training.observation_buffer import ObservationBuffer
from cosd_core.training.text_forcing import observe_texts
from cosd_core.training.tokenization import ExampleTokenizer, TokenizedExample
from cosd_core.training.windows import windows
from cosd_core.verifiers.observations import MEASURED, TEMPERATURES, Observations

_TEXTS_AT_ONCE = 16
"""Texts that models with different tokens read together."""

_NUMBERS_AT_ONCE = 2**22
"""How many logits are converted to float32 and reduced at once; a few such arrays exist at a time."""


def observe(
    models: Sequence[BaseLanguageModel],
    data: Any,
    *,
    end_token: bool = True,
    tokens_per_pass: int = 2048,
    checkpoint: str | PathLike[str] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Observations:
    """Run models over true texts; each predicts every token from the true prefix. Prompts are not observed.

    Models with different tokens are compared by text, as decoding compares them: the draft writes its next
    word from the true prefix, and the assistants predict where their tokens begin in it.

    A text longer than the smallest context window is cut: the completion at its end, though never to less
    than half of the window, then the prompt at its start. ``Observations.truncated`` counts such texts.

    Args:
        models: The draft, then the assistants.
        data: The input of :func:`read_examples`.
        end_token: Whether texts end after their completion, so that the end token is the last target.
        tokens_per_pass: How many positions, padding included, a model reads at once. Memory for logits is
            bounded by this many times the vocabulary per model, memory for the cache by the longest text.
        checkpoint: A folder for finished batches. An interrupted call that is repeated continues there; calls
            with other models, data or settings, also at the same time, use files of their own.
        progress: Called with the number of finished positions, first 0, and of all positions; with models of
            different tokens, of texts, which each model reads alone and then all together.

    Raises:
        TrainingDataError: A record is invalid, or there is none.
        InvalidOptionError: A model is no :class:`LanguageModel`, ``tokens_per_pass`` no whole number of at
            least 1, or the checkpoint cannot be used as a folder.
        VocabularyMismatchError: A tokenizer cannot be followed.
        GenerationError: A model failed.
    """
    check_counts(tokens_per_pass=tokens_per_pass)
    for model in models:
        if not isinstance(model, BaseLanguageModel):
            raise InvalidOptionError(f"models should hold LanguageModels, not {quoted(model)}")
    alignment, examples = align(models), list(read_examples(data))
    if not examples:
        raise TrainingDataError("there is nothing to learn from: the data hold no example")
    if not alignment.shared:
        return _observe_by_text(
            models,
            alignment,
            examples,
            end_token=end_token,
            tokens_per_pass=tokens_per_pass,
            checkpoint=checkpoint,
            progress=progress,
        )
    tokenizer = ExampleTokenizer(models, alignment.vocabularies[0], end_token=end_token)
    texts = [tokenizer.tokenize(number, example) for number, example in enumerate(examples)]
    total, done = sum(len(text.truth) for text in texts), 0
    buffer = ObservationBuffer([model.name for model in models], texts)
    read = [[text.prompts, text.truth] for text in texts]
    store = None if checkpoint is None else Checkpoint(checkpoint, _key(models, read, tokens_per_pass))
    progress(done, total)
    for number, batch in enumerate(_batches(texts, models, tokens_per_pass)):
        stored = store.load(number) if store else None
        if stored is not None:
            buffer.write_part(stored)
        else:
            _observe_batch(models, alignment, batch, tokens_per_pass, buffer)
            if store:
                store.save(number, buffer.part(batch))
        done += sum(len(text.truth) for text in batch)
        progress(done, total)
    return buffer.observations


def _observe_by_text(
    models: Sequence[BaseLanguageModel],
    alignment: Alignment,
    examples: Sequence[Example],
    *,
    end_token: bool,
    tokens_per_pass: int,
    checkpoint: str | PathLike[str] | None,
    progress: Callable[[int, int], None],
) -> Observations:
    """:func:`observe` for models with different tokens, and every model in its own for itself."""
    plain = [_as_text(each, models[0]) for each in examples]
    rows = min(_TEXTS_AT_ONCE, tokens_per_pass) if any(model.batchable for model in models) else 1
    key = _key(models, [[repr(each.prompt), each.completion] for each in examples], [rows, end_token])
    store = None if checkpoint is None else Checkpoint(checkpoint, key)
    texts = len(examples)
    total = (len(models) + 1) * texts
    alone = []
    for number, model in enumerate(models):
        progress(number * texts, total)
        alone.append(
            observe(
                [model], plain, end_token=end_token, tokens_per_pass=tokens_per_pass, checkpoint=checkpoint
            )
        )
    found = observe_texts(
        models,
        alignment,
        examples,
        end_token=end_token,
        batch_size=rows,
        read=store.load if store else lambda _: None,
        write=store.save if store else lambda *_: None,
        progress=lambda done, _: progress(total - texts + done, total),
    )
    return replace(found, alone=tuple(alone))


def _as_text(example: Example, draft: BaseLanguageModel) -> Example:
    """An example whose token ids, which are the draft's, are text for the other models."""
    prompt, completion = example.prompt, example.completion
    if not isinstance(prompt, str | Chat | ChatPrompt):
        prompt = draft.decode(prompt, skip_special_tokens=True)
    return replace(
        example,
        prompt=prompt,
        completion=completion if isinstance(completion, str) else draft.decode(completion),
    )


def _batches(
    texts: Sequence[TokenizedExample], models: Sequence[BaseLanguageModel], tokens_per_pass: int
) -> Iterator[list[TokenizedExample]]:
    """Texts of similar length, the longest first, so that a lack of memory shows at once."""
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
def _observe_batch(
    models: Sequence[BaseLanguageModel],
    alignment: Alignment,
    batch: Sequence[TokenizedExample],
    tokens_per_pass: int,
    buffer: ObservationBuffer,
) -> None:
    """Run all models over a batch, window by window."""
    vocabulary = alignment.vocabularies[0]
    sessions = [open_logits_session(model, vocabulary=vocabulary) for model in models]
    rows = list(zip(*(text.rows() for text in batch), strict=True))  # [models][rows]
    targets = [len(text.truth) for text in batch]
    width = max(1, tokens_per_pass // len(batch))
    size = max(1, _NUMBERS_AT_ONCE // vocabulary)
    for window in windows(targets, max(text.length for text in batch), width):
        logits = [
            alignment.bar(session.read_logits(window.prefixes(each), last=window.last, most=tokens_per_pass))
            for session, each in zip(sessions, rows, strict=True)
        ]
        for start in range(0, len(window.positions), size):
            _measure(models, logits, batch, window.positions[start : start + size], buffer)
        del logits  # before the next pass allocates others


def _measure(
    models: Sequence[BaseLanguageModel],
    logits: Sequence[torch.Tensor],
    batch: Sequence[TokenizedExample],
    positions: Sequence[tuple[int, int, int]],
    buffer: ObservationBuffer,
) -> None:
    """Reduce every model's logits, ``[rows, columns, vocabulary]``, at positions of a window to numbers."""
    rows, columns, targets = (torch.tensor(each) for each in zip(*positions, strict=True))
    truth = torch.tensor([batch[row].truth[target] for row, _, target in positions])
    measured = [
        _reduce(model, each[rows.to(each.device), columns.to(each.device)], truth)
        for model, each in zip(models, logits, strict=True)
    ]
    buffer.write(
        np.array([text.number for text in batch])[rows.numpy()],
        targets.numpy(),
        **{name: np.stack([each[name].cpu().numpy() for each in measured], 1) for name in MEASURED},
    )


def _reduce(model: BaseLanguageModel, logits: torch.Tensor, truth: torch.Tensor) -> dict[str, torch.Tensor]:
    """The arrays :data:`MEASURED` of one model from its logits, ``[positions, vocabulary]``."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    highest, predicted = logits.max(-1)
    if not highest.isfinite().all():
        raise ModelOutputError(f"model {model.name!r} returned logits that are NaN or infinite")
    relative = (logits - highest[:, None]).clamp_(min=FAR_BELOW)
    gaps = relative.gather(-1, truth.to(relative.device)[:, None])[:, 0]
    return {"predicted": predicted, "gaps": gaps, **curves(relative)}


def _key(models: Sequence[BaseLanguageModel], texts: Iterable[Any], options: Any) -> str:
    """A hash of everything that observations depend on."""
    digest = hashlib.sha256(json.dumps([1, TEMPERATURES, options]).encode())
    for model in models:
        digest.update(model.fingerprint.encode())
    for text in texts:
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()
