"""From prompts to checked requests: text, token ids or chats that fit every context window."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import cast

from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import ChatPrompt, render
from cosd_core.errors import ContextOverflowError, InvalidPromptError, quoted
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.vocabulary_alignment import Alignment
from cosd_core.options import GenerationOptions
from cosd_core.sampling.logits_processors import check_processors

Prompt = str | Sequence[int] | Chat | ChatPrompt
"""Text, the draft's token ids, or a chat, which is rendered by every model's own template."""

Prompts = Prompt | Sequence[Prompt]


@dataclass(frozen=True, slots=True)
class Request:
    """A checked prompt.

    Attributes:
        prompt: The prompt as text.
        prompts: Its token ids for every model, the draft's first; none is empty.
        options: How its text is written.
        visible: Special tokens of the draft that are part of the text.
        names: The names of such tokens in other models' tokenizers.
    """

    prompt: str
    prompts: tuple[tuple[int, ...], ...]
    options: GenerationOptions
    visible: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids for the draft."""
        return self.prompts[0]


def is_one_prompt(prompts: object) -> bool:
    """Whether this is one prompt and not a list of prompts."""
    if isinstance(prompts, str | Chat | ChatPrompt):
        return True
    return isinstance(prompts, (list, tuple)) and bool(prompts) and all(_is_id(entry) for entry in prompts)


def read_prompts(
    prompts: Prompts,
    options: GenerationOptions,
    models: Sequence[BaseLanguageModel],
    alignment: Alignment,
) -> list[Request]:
    """Check one prompt or a list of them before any work is done.

    The draft's tokenizer encodes text for all models that share its vocabulary; token ids are the draft's.

    Raises:
        InvalidPromptError: A prompt is empty, of a wrong type, or holds ids outside the vocabulary.
        ContextOverflowError: Prompt and ``max_new_tokens`` exceed a model's context window.
        InvalidOptionError: A logits processor cannot be rolled back.
    """
    if is_one_prompt(prompts):
        prompts = [cast(Prompt, prompts)]
    if not isinstance(prompts, (list, tuple)):
        raise InvalidPromptError(
            "a prompt should be text, a list of token ids, a Chat, or a list of such, not "
            f"{type(prompts).__name__}"
        )
    if not prompts:
        raise InvalidPromptError(
            "the prompt is empty: give text, token ids, or a list with at least one prompt"
        )
    requests = [_checked(prompt, options, models, alignment) for prompt in prompts]
    for model, ids, vocabulary in zip(models, requests[0].prompts, alignment.vocabularies, strict=True):
        check_processors(options.logits_processor, ids, vocabulary, model.device)
        if alignment.shared:
            break
    return requests


def _checked(
    prompt: object, options: GenerationOptions, models: Sequence[BaseLanguageModel], alignment: Alignment
) -> Request:
    if isinstance(prompt, Chat):
        prompt = render(prompt, models)
    if isinstance(prompt, ChatPrompt):
        if len(prompt.ids) != len(models):
            raise InvalidPromptError(
                f"a chat that was rendered for {len(prompt.ids)} models is no prompt for {len(models)}"
            )
        options = options.model_copy(update={"stop": (*options.stop, *prompt.stop)})
        form = prompt.format
        request = Request(prompt.text, prompt.ids, options, form.visible_tokens, form.spelt)
    elif isinstance(prompt, str):
        request = Request(prompt, _encode(prompt, options, models, alignment), options)
    elif isinstance(prompt, (list, tuple)) and all(_is_id(entry) for entry in prompt):
        _check_ids(prompt, alignment.vocabularies[0])
        text = models[0].decode(prompt)
        request = Request(text, (tuple(prompt),) * len(models), options)
        if not alignment.shared:
            others = _encode(models[0].decode(prompt, skip_special_tokens=True), options, models, alignment)
            request = replace(request, prompts=(tuple(prompt), *others[1:]))
    else:
        raise InvalidPromptError(f"a prompt should be text or a list of token ids, not {quoted(prompt)}")
    for model, ids in zip(models, request.prompts, strict=True):
        if not ids and request.ids:
            raise InvalidPromptError(
                f"prompt {quoted(prompt)} is empty for model {model.name!r}, whose tokenizer is another than "
                "the draft's: it should hold text that it has tokens for, not special tokens alone"
            )
        if not ids:
            raise InvalidPromptError(f"prompt {quoted(prompt)} is empty: it should hold at least one token")
    for ids, vocabulary in zip(request.prompts, alignment.vocabularies, strict=True):
        _check_ids(ids, vocabulary)
    return replace(request, prompts=_fit(request.prompts, options, models))


def _encode(
    prompt: str, options: GenerationOptions, models: Sequence[BaseLanguageModel], alignment: Alignment
) -> tuple[tuple[int, ...], ...]:
    """A text in every model's tokens; models that share the draft's vocabulary get the draft's.

    A text may begin with the BOS of one model, whose chat template has written it. It is no text for models
    that have another BOS, unless nothing else is there.
    """
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InvalidPromptError(
            f"prompt {quoted(prompt)} is no text: it holds half a surrogate pair"
        ) from error
    if not prompt:
        return ((),) * len(models)
    encoders = [
        model if difference else models[0]
        for model, difference in zip(models, (None, *alignment.differences), strict=True)
    ]
    begin = {model: str(model.tokenizer.bos_token or "") for model in encoders}
    foreign = next((each for each in begin.values() if each and prompt.startswith(each)), "")
    special = options.add_special_tokens
    encoded = {}
    for model, own in begin.items():
        text = prompt if own == foreign else prompt.removeprefix(foreign) or prompt
        encoded[model] = tuple(model.encode(text, add_special_tokens=special))
    return tuple(encoded[each] for each in encoders)


def _check_ids(ids: Sequence[int], vocabulary: int) -> None:
    if unknown := [token for token in ids if not 0 <= token < vocabulary]:
        raise InvalidPromptError(
            f"the prompt holds token id {quoted(unknown[0])}, outside the vocabulary of {vocabulary} tokens"
        )


def _fit(
    prompts: Sequence[tuple[int, ...]], options: GenerationOptions, models: Sequence[BaseLanguageModel]
) -> tuple[tuple[int, ...], ...]:
    """Cut prompts from the left to fit the context windows, if the options admit that.

    A prompt that is the same for all models stays the same and must fit every window; of a chat each model's
    prompt must fit its own window.
    """
    limits = [(model.context_length or inf, model.name) for model in models]
    if all(ids == prompts[0] for ids in prompts):
        limits = [min(limits)] * len(models)
    fitting = []
    for ids, (limit, name) in zip(prompts, limits, strict=True):
        room = limit - options.max_new_tokens
        if room < 1:
            raise ContextOverflowError(
                f"max_new_tokens={options.max_new_tokens} leaves no room for a prompt in the context window "
                f"of {limit} tokens of model {name!r}"
            )
        if len(ids) > room and not options.truncation:
            raise ContextOverflowError(
                f"the prompt has {len(ids)} tokens and max_new_tokens={options.max_new_tokens}, together "
                f"more than the context window of {limit} tokens of model {name!r}; shorten either, or set "
                "truncation=True"
            )
        fitting.append(ids[-int(min(room, len(ids))) :])
    return tuple(fitting)


def _is_id(entry: object) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool)
