"""The times to beat: models that generate as people do without this package."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.models.gguf.model import GGUFModel
from cosd_core.models.language_model import LanguageModel

Written = Callable[[int], None]
"""Called with the number of new tokens as they are written."""

Generate = Callable[[str, int, Written], None]
"""Writes at most so many tokens after a prompt, greedily."""

_LOOKUP_TOKENS = 10
"""The candidates of transformers' prompt lookup decoding, as its documentation has it."""


def baselines(decoder: CoSDDecoder) -> Iterator[tuple[str, Generate]]:
    """Names and functions; the first is the draft alone in its own library.

    Raises:
        InvalidOptionError: The draft's backend has no such function.
    """
    draft, assistants = decoder.draft, decoder.assistants
    if isinstance(draft, GGUFModel):
        yield "llama-cpp-python generate, draft model", _with_llama_cpp(draft)
    elif isinstance(draft, LanguageModel):
        yield "transformers generate, draft model", _with_transformers(draft)
        lookup = _with_transformers(draft, prompt_lookup_num_tokens=_LOOKUP_TOKENS)
        yield "transformers prompt lookup, draft model", lookup
        if len(assistants) == 1 and isinstance(assistants[0], LanguageModel):
            assisted = _assisted(draft, assistants[0], decoder.shares_vocabulary)
            yield "transformers assisted generation", assisted
    else:
        raise InvalidOptionError(
            f"draft {quoted(draft.name)} is of neither transformers nor llama.cpp, whose generate is timed"
        )


def _assisted(draft: LanguageModel, assistant: LanguageModel, shares_vocabulary: bool) -> Generate:
    """The assistant writes, the draft proposes: transformers calls the draft ``assistant_model``."""
    tokenizers = {"tokenizer": assistant.tokenizer, "assistant_tokenizer": draft.tokenizer}
    return _with_transformers(
        assistant, assistant_model=draft.model, **({} if shares_vocabulary else tokenizers)
    )


def _with_transformers(model: LanguageModel, **options: Any) -> Generate:
    def generate(prompt: str, max_new_tokens: int, written: Written) -> None:
        padding = model.tokenizer.pad_token_id
        model.model.generate(
            torch.tensor([model.encode(prompt)], device=model.device),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=0 if padding is None else padding,
            streamer=_Counter(written),
            **options,
        )

    return generate


class _Counter(BaseStreamer):
    """Counts the tokens that ``generate`` writes; the first ones that it gets are the prompt."""

    def __init__(self, written: Written) -> None:
        self._written = written
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        if not self._is_prompt:
            self._written(value.numel())
        self._is_prompt = False

    def end(self) -> None:
        pass


def _with_llama_cpp(model: GGUFModel) -> Generate:
    llama = model.open_llama()

    def generate(prompt: str, max_new_tokens: int, written: Written) -> None:
        llama.reset()  # otherwise it keeps what it has read of an earlier prompt
        for count, token in enumerate(llama.generate(model.encode(prompt), temp=0.0), 1):
            written(1)
            if count == max_new_tokens or token in model.eos_token_ids:
                break

    return generate
