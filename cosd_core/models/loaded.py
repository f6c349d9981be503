"""Loaded transformers objects as models."""

import sys
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from cosd_core.errors import InvalidOptionError
from cosd_core.models.language_model import LanguageModel


def is_pair(source: object) -> bool:
    """Whether this is a loaded model with its tokenizer, as a tuple."""
    return isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], torch.nn.Module)


def wrap_loaded(option: str, source: Any) -> Any:
    """A transformers model with its tokenizer, or a pipeline, as a :class:`LanguageModel`; else unchanged.

    Raises:
        InvalidOptionError: The tokenizer is missing, or the pipeline is for another task; the message names
            the option.
        CoSDError: As :class:`LanguageModel`.
    """
    pipelines = sys.modules.get("transformers.pipelines.base")  # a pipeline exists only if it is imported
    if is_pair(source):
        return LanguageModel(*source)
    if isinstance(source, torch.nn.Module | PreTrainedTokenizerBase):
        raise InvalidOptionError(
            f"{option}={type(source).__name__} is a model or a tokenizer alone: give both, (model, tokenizer)"
        )
    if pipelines is None or not isinstance(source, pipelines.Pipeline):
        return source
    if source.task != "text-generation":
        raise InvalidOptionError(f'{option} is a pipeline for {source.task}: it should be "text-generation"')
    return LanguageModel(source.model, source.tokenizer)
