"""The time to beat: a model alone, generating as people do without this package."""

from collections.abc import Callable

import torch

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.gguf.model import GGUFModel
from cosd_core.models.language_model import LanguageModel

Generate = Callable[[str, int], int]
"""Writes at most so many tokens after a prompt, greedily, and returns how many it wrote."""


def baseline(model: BaseLanguageModel) -> tuple[str, Generate]:
    """The name of the usual way to generate with a model, and a function that does it.

    Raises:
        InvalidOptionError: There is none for the model's backend.
    """
    if isinstance(model, LanguageModel):
        return "transformers generate, draft model", _with_transformers(model)
    if isinstance(model, GGUFModel):
        return "llama-cpp-python generate, draft model", _with_llama_cpp(model)
    raise InvalidOptionError(
        f"draft {quoted(model.name)} is of neither transformers nor llama.cpp, whose generate is timed"
    )


def _with_transformers(model: LanguageModel) -> Generate:
    def generate(prompt: str, max_new_tokens: int) -> int:
        ids = torch.tensor([model.encode(prompt)], device=model.device)
        padding = model.tokenizer.pad_token_id
        written = model.model.generate(
            ids,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=0 if padding is None else padding,
        )
        return int(written.shape[1] - ids.shape[1])

    return generate


def _with_llama_cpp(model: GGUFModel) -> Generate:
    llama = model.open_llama()

    def generate(prompt: str, max_new_tokens: int) -> int:
        llama.reset()  # otherwise it keeps what it has read of an earlier prompt
        count = 0
        for token in llama.generate(model.encode(prompt), temp=0.0):
            count += 1
            if count == max_new_tokens or token in model.eos_token_ids:
                break
        return count

    return generate
