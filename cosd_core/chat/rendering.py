"""Renders a chat for every model: by its own chat template, or with plain headings if it has none.

The prompt of a model without a chat template is ::

    ### System
    Be brief.

    ### User
    Hello

    ### Assistant

and a further heading in the answer ends it. A line in a message that is such a heading, of any role, gets a
backslash before it, so that no message begins a turn.

A template is a program. It has :data:`TEMPLATE_SECONDS` to end, and its output is not encoded if it cannot
fit the context window. Its memory is not bounded: ``'x' * 10**10`` allocates 10 GB, as in transformers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, get_args
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from cosd_core.chat.formats import ToolFormat, tool_format
from cosd_core.chat.messages import Chat, Role
from cosd_core.chat.template_messages import Messages, message_forms, with_call_ids, with_tools_as_text
from cosd_core.errors import InvalidPromptError, quoted
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.token_bound import check_text_length
from cosd_core.utils.threads import TimeLimit, TimeLimitError, run_in_thread

TEMPLATE_SECONDS = 5.0
"""For the templates of all models, in all forms of one chat; encoding what they render is not counted."""

_ENCODING_SECONDS = 2e-5
"""Per character; about ten times what tokenizers need."""

_PLAIN_TEMPLATE = """\
{%- for message in messages -%}
{{- '### ' + message.role | capitalize + '\\n' + message.content + '\\n\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '### Assistant\\n' -}}{%- endif -%}
"""
_HEADING = re.compile(
    rf"(^|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])([^\S\n]*)(###[^\S\n]*(?:{'|'.join(get_args(Role))})\b)(?![^\S\n]*\w)",
    re.IGNORECASE,
)
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


def render(chat: Chat, models: Sequence[BaseLanguageModel], *, truncation: bool = False) -> ChatPrompt:
    """Render a chat for every model, the draft first.

    Args:
        chat: The chat.
        models: The draft, then its assistants.
        truncation: Whether the prompt may be longer than the context windows, because it will be cut.

    Raises:
        InvalidPromptError: A template accepts no form of the messages, or does not end.
        ContextOverflowError: What a template renders is too long for its model.
    """
    renderer = _Renderer(chat, models, truncation)
    try:
        return run_in_thread(renderer.prompt, limit=renderer.limit)
    except TimeLimitError:
        raise InvalidPromptError(
            f"the chat template of model {renderer.model.name!r} did not end within {TEMPLATE_SECONDS:g} "
            "seconds, which the templates of all models have together"
        ) from None


class _Renderer:
    """Renders one chat.

    Attributes:
        limit: The time that is left.
        model: The model whose template is at work.
    """

    def __init__(self, chat: Chat, models: Sequence[BaseLanguageModel], truncation: bool) -> None:
        self.limit = TimeLimit(TEMPLATE_SECONDS)
        self.model = models[0]
        self._chat = chat
        self._models = models
        self._truncation = truncation

    def prompt(self) -> ChatPrompt:
        """The prompts of all models."""
        formats = [self._format(model) for model in self._models]
        answer_format = _shared_format(formats)
        # Models with one tokenizer share a prompt. Two tokenizers with one template may differ in special
        # tokens.
        prompts: dict[int, tuple[str, tuple[int, ...]]] = {}
        for model, own_format in zip(self._models, formats, strict=True):
            if id(model.tokenizer) not in prompts:
                self.model = model
                prompts[id(model.tokenizer)] = self._render(own_format, answer_format)
        rendered = [prompts[id(model.tokenizer)] for model in self._models]
        return ChatPrompt(
            text=rendered[0][0],
            ids=tuple(ids for _, ids in rendered),
            format=answer_format,
            stop=_PLAIN_STOP if None in map(self._template, self._models) else (),
        )

    def _format(self, model: BaseLanguageModel) -> ToolFormat:
        self.model = model
        return _tool_format(model.tokenizer, self._chat.chat_template)

    def _template(self, model: BaseLanguageModel) -> Any:
        """The template of a model, or None: plain headings."""
        given = self._chat.chat_template
        return model.tokenizer.chat_template or None if given is None else given

    def _render(self, own_format: ToolFormat, answer_format: ToolFormat) -> tuple[str, tuple[int, ...]]:
        """The text and ids of one model's prompt."""
        chat, is_plain = self._chat, self._template(self.model) is None
        if own_format.takes_tools:
            messages, tools = with_call_ids(chat.messages, own_format), [*map(dict, chat.tools)]
        else:
            messages, tools = with_tools_as_text(chat, answer_format), []
        if is_plain:
            messages = [{**each, "content": _without_headings(each["content"])} for each in messages]
        options = {
            **chat.chat_template_kwargs,
            "chat_template": _PLAIN_TEMPLATE if is_plain else chat.chat_template,
            "tools": tools or None,
            "add_generation_prompt": not chat.continue_final_message,
            "continue_final_message": chat.continue_final_message,
        }
        text, ids = self._apply(messages, options)
        return text, (*(self.model.added_prefix() if is_plain else ()), *ids)

    def _apply(self, messages: Messages, options: dict[str, Any]) -> tuple[str, Sequence[int]]:
        """The text and ids of the first form of the messages that the template renders in full."""
        apply: Any = partial(self.model.tokenizer.apply_chat_template, **options)
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
            raise _template_error(self.model, first_error) from first_error
        if not self._truncation:
            check_text_length(text, self.model, self.model.context_length or inf)
        self.limit.extend(len(text) * _ENCODING_SECONDS)
        try:
            return text, apply(form, sanitize_control_tokens=True, return_dict=False)
        except Exception as error:
            raise _template_error(self.model, error) from error


def _without_headings(content: str) -> str:
    """A message's content in which no line is a heading of a turn."""
    return _HEADING.sub(r"\1\2\\\3", content)


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
