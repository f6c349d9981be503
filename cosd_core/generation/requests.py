"""From prompts to checked requests: text, token ids or chats that fit every context window."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, cast

from cosd_core.chat.messages import Chat
from cosd_core.chat.rendering import ChatPrompt, render
from cosd_core.errors import ContextOverflowError, InvalidPromptError, quoted
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.token_bound import check_text_length
from cosd_core.models.vocabulary_alignment import Alignment
from cosd_core.options import GenerationOptions
from cosd_core.sampling.logits_processors import check_processors

Prompt = str | Sequence[int] | Chat | ChatPrompt
"""Text, the draft's token ids, or a chat, which is rendered by every model's own template."""

Prompts = Prompt | Sequence[Prompt]


_MARGIN = 1000
"""Tokens between the place at which a text is cut and those that are used."""
_CHARACTERS_PER_TOKEN = 8


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
    return isinstance(prompts, (list, tuple)) and bool(prompts) and _is_id(prompts[0])


def read_prompts(
    prompts: Prompts,
    options: GenerationOptions,
    models: Sequence[BaseLanguageModel],
    alignment: Alignment,
) -> list[Request]:
    """Check one prompt or a list of them before any work is done.

    The draft's tokenizer encodes text for all models that share its vocabulary; token ids are the draft's.
    A prompt that is too long by its number of characters alone is not encoded.

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
        prompt = render(prompt, models, truncation=options.truncation)
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
    elif isinstance(prompt, (list, tuple)) and (not prompt or _is_id(prompt[0])):
        request = _of_ids(prompt, options, models, alignment)
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
        check_ids("the prompt", ids, vocabulary)
    return replace(request, prompts=_fit(request.prompts, options, models))


def _of_ids(
    ids: Sequence[Any],
    options: GenerationOptions,
    models: Sequence[BaseLanguageModel],
    alignment: Alignment,
) -> Request:
    """The request of a prompt in the draft's token ids; its length is checked first."""
    if len(ids) > _rooms(options, models)[0] and not options.truncation:
        raise _too_long(len(ids), options, models[0])
    if not all(map(_is_id, ids)):
        raise InvalidPromptError(f"a prompt should be text or a list of token ids, not {quoted(ids)}")
    check_ids("the prompt", ids, alignment.vocabularies[0])
    request = Request(models[0].decode(ids), (tuple(ids),) * len(models), options)
    if alignment.shared:
        return request
    others = _encode(models[0].decode(ids, skip_special_tokens=True), options, models, alignment)
    return replace(request, prompts=(request.ids, *others[1:]))


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
    readers = [*zip(models, encoders, _rooms(options, models), strict=True)]
    encoded = {}
    for model, own in begin.items():
        text = prompt if own == foreign else prompt.removeprefix(foreign) or prompt
        rooms = {reader: room for reader, encoder, room in readers if encoder is model}
        if options.truncation:
            encoded[model] = _encode_end(text, model, max(rooms.values()), special)
            continue
        for reader, room in rooms.items():
            check_text_length(text, reader, room, tokenizer=model.tokenizer)
        encoded[model] = tuple(model.encode(text, add_special_tokens=special))
    return tuple(encoded[each] for each in encoders)


def _encode_end(text: str, model: BaseLanguageModel, room: float, special: bool) -> tuple[int, ...]:
    """The tokens of a text of which the last ``room`` are used; of a long text, those of its end alone.

    The place of the cut changes the tokens next to it, so more are encoded than are used.
    """
    wanted = room + _MARGIN
    characters = wanted * _CHARACTERS_PER_TOKEN
    while characters < len(text):
        ids = model.encode(text[-int(characters) :], add_special_tokens=special)
        if len(ids) >= wanted:
            return tuple(ids)
        characters *= 4
    return tuple(model.encode(text, add_special_tokens=special))


def check_ids(what: str, ids: Sequence[int], vocabulary: int) -> None:
    """Check that token ids lie in a vocabulary; the message says that ``what`` holds another.

    Raises:
        InvalidPromptError: One does not.
    """
    if unknown := [token for token in ids if not 0 <= token < vocabulary]:
        raise InvalidPromptError(
            f"{what} holds token id {quoted(unknown[0])}, outside the vocabulary of {vocabulary} tokens"
        )


def _rooms(options: GenerationOptions, models: Sequence[BaseLanguageModel]) -> list[float]:
    """How many tokens of a prompt fit into every model's context window, infinity where it has none.

    Raises:
        ContextOverflowError: None does.
    """
    rooms = [(model.context_length or inf) - options.max_new_tokens for model in models]
    for model, room in zip(models, rooms, strict=True):
        if room < 1:
            raise ContextOverflowError(
                f"max_new_tokens={options.max_new_tokens} leaves no room for a prompt in the context window "
                f"of {model.context_length} tokens of model {model.name!r}"
            )
    return rooms


def _fit(
    prompts: Sequence[tuple[int, ...]], options: GenerationOptions, models: Sequence[BaseLanguageModel]
) -> tuple[tuple[int, ...], ...]:
    """Cut prompts from the left to fit the context windows, if the options admit that.

    A prompt that is the same for all models stays the same and must fit every window; of a chat each model's
    prompt must fit its own window.
    """
    readers = [*zip(_rooms(options, models), range(len(models)), strict=True)]
    if all(ids == prompts[0] for ids in prompts):
        readers = [min(readers)] * len(models)
    for ids, (room, at) in zip(prompts, readers, strict=True):
        if len(ids) > room and not options.truncation:
            raise _too_long(len(ids), options, models[at])
    return tuple(ids[-int(min(room, len(ids))) :] for ids, (room, _) in zip(prompts, readers, strict=True))


def _too_long(tokens: int, options: GenerationOptions, model: BaseLanguageModel) -> ContextOverflowError:
    return ContextOverflowError(
        f"the prompt has {tokens} tokens and max_new_tokens={options.max_new_tokens}, together more than the "
        f"context window of {model.context_length} tokens of model {model.name!r}; shorten either, or set "
        "truncation=True"
    )


def _is_id(entry: object) -> bool:
    return isinstance(entry, int) and not isinstance(entry, bool)
