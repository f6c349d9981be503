"""From what a user hands over to checked requests: prompts as text or ids, the context window, processors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from cosd_core.errors import ContextOverflowError, InvalidPromptError, quoted
from cosd_core.models.language_model import LanguageModel
from cosd_core.options import GenerationOptions
from cosd_core.sampling import check_processors

Prompt = str | Sequence[int]


@dataclass(frozen=True, slots=True)
class Request:
    """A checked prompt.

    Attributes:
        prompt: The prompt as text.
        ids: Its token ids, at least one.
        options: How its text is to be written.
    """

    prompt: str
    ids: tuple[int, ...]
    options: GenerationOptions


def is_one_prompt(prompts: object) -> bool:
    """Whether this is one prompt, text or token ids, and no list of prompts."""
    if isinstance(prompts, str):
        return True
    return isinstance(prompts, (list, tuple)) and bool(prompts) and all(_is_id(entry) for entry in prompts)


def read_prompts(
    prompts: Prompt | Sequence[Prompt],
    options: GenerationOptions,
    models: Sequence[LanguageModel],
    vocabulary: int,
) -> list[Request]:
    """Check one prompt or a list of them before any work is done. The first model's tokenizer reads text.

    Raises:
        InvalidPromptError: A prompt is empty, of a wrong type, or holds ids outside the vocabulary.
        ContextOverflowError: Prompt and ``max_new_tokens`` exceed a model's context window.
        InvalidOptionError: A logits processor cannot be rolled back.
    """
    if is_one_prompt(prompts):
        prompts = [cast(Prompt, prompts)]
    if not isinstance(prompts, (list, tuple)):
        raise InvalidPromptError(
            f"a prompt should be text, a list of token ids, or a list of either, not {type(prompts).__name__}"
        )
    if not prompts:
        raise InvalidPromptError(
            "the prompt is empty: give text, token ids, or a list with at least one prompt"
        )
    requests = [_read(prompt, options, models, vocabulary) for prompt in prompts]
    check_processors(options.logits_processor, requests[0].ids, vocabulary, models[0].device)
    return requests


def _read(
    prompt: object, options: GenerationOptions, models: Sequence[LanguageModel], vocabulary: int
) -> Request:
    reader = models[0]
    if isinstance(prompt, str):
        text, ids = prompt, _encode(prompt, options, reader)
    elif isinstance(prompt, (list, tuple)) and all(_is_id(entry) for entry in prompt):
        ids = list(prompt)
        text = None
    else:
        raise InvalidPromptError(f"a prompt should be text or a list of token ids, not {quoted(prompt)}")
    if not ids:
        raise InvalidPromptError(f"prompt {quoted(prompt)} is empty: it should hold at least one token")
    _check_ids(ids, vocabulary)
    fitting = _fit(ids, options, models)
    _check_rope(len(fitting), options.max_new_tokens, models)
    return Request(reader.decode(ids) if text is None else text, tuple(fitting), options)


def _encode(prompt: str, options: GenerationOptions, reader: LanguageModel) -> list[int]:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidPromptError(
            f"prompt {quoted(prompt)} is no text: it holds half a surrogate pair"
        ) from error
    return reader.encode(prompt, add_special_tokens=options.add_special_tokens) if prompt else []


def _check_ids(ids: Sequence[int], vocabulary: int) -> None:
    if unknown := [token for token in ids if not 0 <= token < vocabulary]:
        raise InvalidPromptError(
            f"the prompt holds token id {quoted(unknown[0])}, outside the vocabulary of {vocabulary} tokens"
        )


def _check_rope(length: int, max_new_tokens: int, models: Sequence[LanguageModel]) -> None:
    """Refuse to cross the length at which a model encodes anew the positions that it has cached."""
    for model in models:
        switch = model.rope_switch
        if switch is not None and length <= switch < length + max_new_tokens:
            raise ContextOverflowError(
                f"prompt ({length} tokens) and max_new_tokens={max_new_tokens} cross the length of {switch} "
                f"tokens at which model {model.name!r} changes its rotary embedding; stay on one side of it"
            )


def _fit(ids: list[int], options: GenerationOptions, models: Sequence[LanguageModel]) -> list[int]:
    """Cut a prompt from the left to what every context window takes, if that was asked for."""
    limits = [(model.context_length, model.name) for model in models if model.context_length is not None]
    if not limits:
        return ids
    limit, name = min(limits)
    room = limit - options.max_new_tokens
    if room < 1:
        raise ContextOverflowError(
            f"max_new_tokens={options.max_new_tokens} leaves no room for a prompt in the context window of "
            f"{limit} tokens of model {name!r}"
        )
    if len(ids) <= room:
        return ids
    if options.truncation:
        return ids[-room:]
    raise ContextOverflowError(
        f"the prompt has {len(ids)} tokens and max_new_tokens={options.max_new_tokens}, together more than "
        f"the context window of {limit} tokens of model {name!r}; shorten either, or set truncation=True"
    )


def _is_id(entry: object) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool)
