"""Teacher forcing for models with different tokens: they decode with the true text in place of a verifier.

The draft writes its next word from the true text before it, the assistants predict where their tokens begin
in it, and both are compared as decoding compares them. Where the draft's text differs from the true one, the
true text replaces it to the end of the word, as a replacement would that is always right.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from cosd_core.cross_tokenizer.row_factory import CrossTokenizerRowFactory
from cosd_core.cross_tokenizer.vocabulary import vocabulary_of
from cosd_core.cross_tokenizer.word_boundaries import END
from cosd_core.errors import ContextOverflowError, InvalidPromptError, TrainingDataError
from cosd_core.generation.loop import Batch
from cosd_core.generation.measured import KeptSession, MeasuredConfidence, MeasuredModel
from cosd_core.generation.requests import Request, read_prompts
from cosd_core.generation.scheduling import FixedSchedule
from cosd_core.generation.text_state import RowConfig
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import Alignment
from cosd_core.options import GenerationOptions
from cosd_core.training.confidence_curves import FAR_BELOW, curves
from cosd_core.training.examples import Example
from cosd_core.training.true_text import RIGHT, TrueText, TrueVerification
from cosd_core.verifiers.observations import NOT_ASKED, TEMPERATURES, Observations

_DRAFT_LENGTH = 1
"""Tokens drafted behind a wrong one are lost."""

_SPARE_TOKENS = 64
"""How many more tokens than its tokenizer the draft may write for a text."""


def observe_texts(
    models: Sequence[BaseLanguageModel],
    alignment: Alignment,
    examples: Sequence[Example],
    *,
    end_token: bool,
    batch_size: int,
    read: Callable[[int], Observations | None],
    write: Callable[[int, Observations], None],
    progress: Callable[[int, int], None],
) -> Observations:
    """What models with different tokens would write in true texts, as :class:`Observations` describe it.

    Args:
        models: The draft, then its assistants.
        alignment: Of these.
        examples: The texts.
        end_token: Whether texts end after their completion.
        batch_size: How many texts are decoded together.
        read: Returns the stored result of a batch, or None.
        write: Stores it.
        progress: Called with the number of finished texts, and of all texts.

    Raises:
        TrainingDataError: A prompt is invalid, or the draft's tokenizer cannot represent a completion.
        GenerationError: A model failed.
    """
    texts = [_true_text(models, alignment, *each, end_token) for each in enumerate(examples)]
    texts.sort(key=lambda each: -len(each.request.ids) - len(each.text))
    config = RowConfig(
        TrueText(0, texts[0].request, b"", cut=False),
        _DRAFT_LENGTH,
        FixedSchedule.lazy,
        tuple(model.name for model in models),
        (1.0,) * len(models),
    )
    make_row = CrossTokenizerRowFactory(models, alignment, config, TrueVerification).for_call(
        GenerationOptions()
    )
    sizes = alignment.vocabularies
    sessions = [KeptSession(*each, _measure) for each in zip(models, sizes, strict=True)]
    parts: list[Observations] = []
    for start in range(0, len(texts), batch_size):
        progress(start, len(texts))
        part = read(len(parts))
        if part is None:
            batch = texts[start : start + batch_size]
            rows = [make_row(at, text.request, text) for at, text in enumerate(batch)]
            for step in Batch(
                rows,
                models=[MeasuredModel(session, len(rows)) for session in sessions],
                vocabularies=sizes,
                config=config,
                schedule=FixedSchedule(),
            ).rounds():
                if step.generation and step.generation.finish_reason == "length":
                    batch[step.index].cut = True
            part = _observations(batch, config.models)
            write(len(parts), part)
        parts.append(part)
    progress(len(texts), len(texts))
    return Observations.joined(parts)


def _true_text(
    models: Sequence[BaseLanguageModel], alignment: Alignment, number: int, example: Example, end_token: bool
) -> TrueText:
    vocabulary = vocabulary_of(models[0].tokenizer, alignment.vocabularies[0])
    try:
        if isinstance(example.completion, str):
            text = example.completion.encode()
        else:
            text = b"".join(map(vocabulary.bytes_of, example.completion))
        tokens = len(vocabulary.encode(text.decode())[0])
        checked, cut = _request(models, alignment, example, tokens)
    except (InvalidPromptError, UnicodeError) as error:
        raise TrainingDataError(f"{example.place}: {error}") from error
    if not text and not end_token:
        raise TrainingDataError(
            f"the completion of {example.place} is empty: it should hold a token at least"
        )
    return TrueText(number, checked, text + END if end_token else text, cut)


def _request(
    models: Sequence[BaseLanguageModel], alignment: Alignment, example: Example, tokens: int
) -> tuple[Request, bool]:
    """The prompt with room for so many tokens or more, and whether it had to be cut to fit the windows."""

    def read(room: int, *, truncation: bool = False) -> Request:
        options = GenerationOptions(max_new_tokens=max(room, 1), truncation=truncation)
        [request] = read_prompts([example.prompt], options, models, alignment)
        return request

    with suppress(ContextOverflowError):
        return read(tokens + _SPARE_TOKENS), False
    window = min(model.context_length or sys.maxsize for model in models)
    longest = max(map(len, read(1, truncation=True).prompts))
    if longest + tokens < window:
        return read(window - longest), False
    return read(min(tokens, max(window // 2, window - longest)), truncation=True), True


def _measure(logits: torch.Tensor, token: int, confidence: float) -> MeasuredConfidence:
    """A confidence with its logarithms and their slopes at all temperatures."""
    relative = (logits - logits[token]).clamp_(min=FAR_BELOW)
    return MeasuredConfidence(confidence, torch.cat(list(curves(relative).values())).cpu().numpy())


def _observations(batch: Sequence[TrueText], names: tuple[str, ...]) -> Observations:
    rows = [(text, *seen) for text in batch for seen in text.seen]
    shape = (len(rows), len(names))
    predicted = np.full(shape, NOT_ASKED, np.int32)
    numbers = np.zeros((*shape, 2, len(TEMPERATURES)), np.float32)
    for at, (_, assistant, p, q, x, y) in enumerate(rows):
        for model, confidence, outcome in ((0, p, x), (1 + assistant, q, y)):
            predicted[at, model] = outcome
            numbers[at, model] = np.reshape(_numbers(confidence), (2, -1))
    return Observations(
        names=names,
        example=np.array([text.number for text, *_ in rows], np.int32),
        truth=np.full(len(rows), RIGHT, np.int32),
        predicted=predicted,
        gaps=np.full(shape, np.nan, np.float32),
        partitions=numbers[:, :, 0],
        slopes=numbers[:, :, 1],
        cut=np.array([text.cut for text, *_ in rows], np.bool_),
    )


def _numbers(confidence: float) -> Any:
    if isinstance(confidence, MeasuredConfidence):
        return confidence.numbers
    return np.zeros(2 * len(TEMPERATURES))  # a product of none
