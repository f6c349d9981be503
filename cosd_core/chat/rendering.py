"""Renders a chat for every model: by its own chat template, or with plain headings if it has none.

The prompt of a model without a chat template is ::

    ### System
    Be brief.

    ### User
    Hello

    ### Assistant

and a further heading in the answer ends it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from cosd_core.chat.formats import ToolFormat, tool_format
from cosd_core.chat.messages import Chat
from cosd_core.chat.template_messages import Messages, message_forms, with_call_ids, with_tools_as_text
from cosd_core.errors import InvalidPromptError, quoted
from cosd_core.models.base import BaseLanguageModel

_PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{{- '### ' + message.role | capitalize + '\\n' + message.content + '\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Assistant\\n' -}}{%- endif -%}
"""
_PLAIN_STOP = ("\n\n### ", "\n### ")  # the first excludes the empty line before a heading from the answer


@dataclass(frozen=True)
class ChatPrompt:
    """A chat, rendered for all models.

    Attributes:
        text: The draft's prompt.
        ids: The token ids of every model's prompt, the draft's first.
        format: The syntax of tool calls and reasoning in the answer.
        stop: Stop strings in addition to the user's.
    """

    text: str
    ids: tuple[tuple[int, ...], ...]
    format: ToolFormat
    stop: tuple[str, ...]


def render(chat: Chat, models: Sequence[BaseLanguageModel]) -> ChatPrompt:
    """Render a chat for every model, the draft first; it is an error if a template accepts no form of it."""
    formats = [_tool_format(model.tokenizer, chat.chat_template) for model in models]
    answer_format = _shared_format(formats)
    templates = [
        model.tokenizer.chat_template or None if chat.chat_template is None else chat.chat_template
        for model in models
    ]
    # Models with one tokenizer share a prompt. Two tokenizers with one template may differ in special tokens.
    prompts: dict[int, tuple[str, tuple[int, ...]]] = {}
    for model, template, own_format in zip(models, templates, formats, strict=True):
        if id(model.tokenizer) not in prompts:
            if own_format.takes_tools:
                messages, tools = with_call_ids(chat.messages, own_format), [*map(dict, chat.tools)]
            else:
                messages, tools = with_tools_as_text(chat, answer_format), []
            options = {
                **chat.chat_template_kwargs,
                "chat_template": _PLAIN_TEMPLATE if template is None else chat.chat_template,
                "tools": tools or None,
                "add_generation_prompt": not chat.continue_final_message,
                "continue_final_message": chat.continue_final_message,
            }
            text, ids = _apply_template(messages, model, options)
            prompts[id(model.tokenizer)] = text, (*(() if template else model.added_prefix()), *ids)
    rendered = [prompts[id(model.tokenizer)] for model in models]
    return ChatPrompt(
        text=rendered[0][0],
        ids=tuple(ids for _, ids in rendered),
        format=answer_format,
        stop=_PLAIN_STOP if None in templates else (),
    )


def _shared_format(formats: Sequence[ToolFormat]) -> ToolFormat:
    """The format of the answer: the first that a template renders, with tags that all tokenizers encode.

    A tag whose id differs between tokenizers is matched as characters, whether it is one token or several.
    """
    # The tags of reasoning are shared, too; the draft's prompt shows whether reasoning has begun.
    reasoning_tags = next((each.reasoning_tags for each in formats if each.reasoning_tags), None)
    rendered = next((each for each in formats if each.takes_tools), formats[0])
    shared = replace(rendered, reasoning_tags=reasoning_tags)
    extra_tags = [tag for tag, token in shared.tokens.items() if token.id in shared.extra_visible_tokens]
    tags = {*shared.tags, *(reasoning_tags or ()), *extra_tags}
    ids = [{tag: each.tokens[tag].id for tag in tags & each.tokens.keys()} for each in formats]
    if all(each == ids[0] for each in ids):
        return shared
    visible, spelt = frozenset(ids[0].values()), frozenset(tag for each in ids for tag in each)
    return replace(shared, tokens={}, extra_visible_tokens=visible, spelt=spelt)


def _apply_template(
    messages: Messages, model: BaseLanguageModel, options: dict[str, Any]
) -> tuple[str, Sequence[int]]:
    """The text and ids of the first form of the messages that the template accepts and renders in full."""

    def apply(form: Messages, **more: Any) -> Any:
        return model.tokenizer.apply_chat_template(form, **options, **more)

    first_error: Exception | None = None
    for form in message_forms(messages):
        try:
            text = apply(form, tokenize=False)
        except Exception as error:  # a template is a program of its own and can raise anything
            first_error = first_error or error
            continue
        contents = [message["content"] for message in form if message["role"] in ("system", "user")]
        if all(each.strip() in text for each in contents):
            break
    else:
        raise _template_error(model, first_error) from first_error
    try:
        return text, apply(form, sanitize_control_tokens=True, return_dict=False)
    except Exception as error:
        raise _template_error(model, error) from error


def _template_error(model: BaseLanguageModel, error: Exception | None) -> InvalidPromptError:
    why = "its template leaves out a message" if error is None else quoted(error, 240)
    return InvalidPromptError(
        f"the chat template of model {model.name!r} does not take these messages: {why}"
    )


_formats: WeakKeyDictionary[Any, dict[str, ToolFormat]] = WeakKeyDictionary()


def _tool_format(tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> ToolFormat:
    """A cached :func:`tool_format`, which parses the template."""
    known = _formats.setdefault(tokenizer, {})
    template = chat_template or tokenizer.chat_template
    if str(template) not in known:
        known[str(template)] = tool_format(tokenizer, template)
    return known[str(template)]
