"""How every model is shown a chat: by its own template where it has one, by plain headings where not.

A model without a chat template is shown ::

    ### System
    Be brief.

    ### User
    Hello

    ### Assistant

and a text that goes on with another heading ends there.

Templates differ in what they take. What one refuses, or silently leaves out, is told to it in another way:
neighbours of one role become one message, system messages move to the front, then into the first question.
A template that knows no tools is taught them in words.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from cosd_core.chat.formats import ToolFormat, tool_format
from cosd_core.chat.messages import Chat
from cosd_core.errors import InvalidPromptError, quoted
from cosd_core.models.base import BaseLanguageModel

_PLAIN = """\
{%- for message in messages -%}
{{- '### ' + message.role | capitalize + '\\n' + message.content + '\\n\\n' -}}
{%- endfor -%}
{{- '### Assistant\\n' -}}
"""
_PLAIN_STOP = ("\n\n### ", "\n### ")  # so that the empty line before a heading is not part of the answer
_LEAVES_OUT = "its template leaves out a message"

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class ChatPrompt:
    """A chat as the models are shown it.

    Attributes:
        text: What the draft is shown.
        ids: Per model the token ids of what it is shown, the draft's first.
        format: How the answer writes tool calls and reasoning.
        stop: Strings that end the answer besides those of the user.
    """

    text: str
    ids: tuple[tuple[int, ...], ...]
    format: ToolFormat
    stop: tuple[str, ...]


def render(chat: Chat, models: Sequence[BaseLanguageModel]) -> ChatPrompt:
    """Show a chat to every model; the first one is the draft.

    Raises:
        InvalidPromptError: A template takes these messages in no way.
    """
    formats = [_format(model.tokenizer, chat.chat_template) for model in models]
    # The models write one text, so they share one way to write calls: the first that a template knows.
    at = next((at for at, each in enumerate(formats) if each.takes_tools), 0)
    writing = formats[at]
    # So do they share the tags of thoughts, and the draft's prompt says whether one is open.
    writing = replace(writing, thinking=next((each.thinking for each in formats if each.reasoning), None))
    writing = _in_common(writing, at, [model.tokenizer for model in models])
    templates = [_template(model, chat) for model in models]
    # One tokenizer, one prompt. Two of one template may still differ in the special tokens it writes.
    shown: dict[int, tuple[str, tuple[int, ...]]] = {}
    for model, template, own in zip(models, templates, formats, strict=True):
        if id(model.tokenizer) not in shown:
            shown[id(model.tokenizer)] = _show(
                chat, model, template, own if own.takes_tools else None, writing
            )
    prompts = [shown[id(model.tokenizer)] for model in models]
    return ChatPrompt(
        text=prompts[0][0],
        ids=tuple(ids for _, ids in prompts),
        format=writing,
        stop=_PLAIN_STOP if None in templates else (),
    )


def _in_common(writing: ToolFormat, at: int, tokenizers: Sequence[PreTrainedTokenizerBase]) -> ToolFormat:
    """A way to write, that of one tokenizer, as all of them can follow it.

    Where a tag has not the same number in all, it is what its letters say, be it one token or several.
    """
    if all(each is tokenizers[0] for each in tokenizers):
        return writing
    hidden = [str(tokenizers[at].added_tokens_decoder[token].content) for token in writing.more_visible]
    names = {*writing.tags, *(writing.thinking or ()), *hidden}
    numbers = [
        {str(token.content): number for number, token in each.added_tokens_decoder.items()}
        for each in tokenizers
    ]
    own = [{name: each[name] for name in names if name in each} for each in numbers]
    if all(each == own[0] for each in own):
        return writing
    visible, spelt = frozenset(own[0].values()), frozenset(name for each in own for name in each)
    return replace(writing, tokens={}, more_visible=visible, spelt=spelt)


def _show(
    chat: Chat, model: BaseLanguageModel, template: str | None, own: ToolFormat | None, writing: ToolFormat
) -> tuple[str, tuple[int, ...]]:
    if own is None:
        messages, tools = _taught(chat, writing), None
    else:
        messages, tools = _numbered(chat.messages, own), [dict(tool) for tool in chat.tools] or None
    chosen = _PLAIN if template is None else chat.chat_template  # None leaves it to the tokenizer
    options = {**chat.chat_template_kwargs, "chat_template": chosen, "tools": tools}

    def apply(messages: Messages, **more: Any) -> Any:
        return model.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, **{**options, **more}
        )

    messages, text = _accepted(messages, lambda form: apply(form, tokenize=False), model)
    try:
        ids = apply(messages, sanitize_control_tokens=True, return_dict=False)
    except Exception as error:
        raise _refused(model, error) from error
    return text, (*(() if template else _first_tokens(model)), *ids)


def _first_tokens(model: BaseLanguageModel) -> list[int]:
    """What the tokenizer begins a text with (BOS); a chat template writes that itself."""
    plain = model.encode("a", add_special_tokens=False)
    whole = model.encode("a")
    return whole[: whole.index(plain[0])]


def _accepted(
    messages: Messages, show: Callable[[Messages], str], model: BaseLanguageModel
) -> tuple[Messages, str]:
    """The form of the messages closest to how they came that the template shows in full, and its text."""
    first: Exception | None = None
    for form in _forms(messages):
        try:
            text = show(form)
        except Exception as error:  # a template is a program of its own, and raises whatever it likes
            first = first or error
            continue
        spoken = [message["content"] for message in form if message["role"] in ("system", "user")]
        if all(each.strip() in text for each in spoken):
            return form, text
    raise _refused(model, first) from first


def _refused(model: BaseLanguageModel, error: Exception | None) -> InvalidPromptError:
    why = _LEAVES_OUT if error is None else quoted(error, 240)
    return InvalidPromptError(
        f"the chat template of model {model.name!r} does not take these messages: {why}"
    )


def _forms(messages: Messages) -> Iterator[Messages]:
    yield messages
    yield (merged := _merged(messages))
    system = [message for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    yield _merged([*system, *others])
    as_user = [{"role": "user", "content": message["content"]} for message in system]
    yield _merged([*as_user, *others])
    if merged[0]["role"] == "assistant":  # the assistant opens the chat where the user must
        yield [{"role": "user", "content": ""}, *merged]


def _merged(messages: Messages) -> Messages:
    """Neighbours of one role become one message; calls stay with theirs, tools' results stay apart."""
    merged: Messages = []
    for role, group in groupby(messages, lambda message: message["role"]):
        several = list(group)
        if role == "tool" or len(several) == 1:
            merged += several
            continue
        one = {**several[0], "content": "\n\n".join(each["content"] for each in several if each["content"])}
        if calls := [call for each in several for call in each.get("tool_calls", ())]:
            one["tool_calls"] = calls
        if thoughts := [each["reasoning_content"] for each in several if each.get("reasoning_content")]:
            one["reasoning_content"] = "\n\n".join(thoughts)
        merged.append(one)
    return merged


def _taught(chat: Chat, writing: ToolFormat) -> Messages:
    """The messages in words for a template that knows no tools, which are described to it."""
    messages: Messages = []
    for message in chat.messages:
        content = message["content"]
        if message["role"] == "tool":
            result = writing.render_result(message.get("name", "tool"), content, message.get("tool_call_id"))
            messages.append({"role": "user", "content": result})
        elif calls := message.get("tool_calls"):
            written = writing.render_calls(
                [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
            )
            messages.append({"role": "assistant", "content": f"{content}\n{written}".lstrip("\n")})
        else:
            messages.append(dict(message))
    if not chat.tools:
        return messages
    about = {"role": "system", "content": writing.instructions(chat.tools)}
    at = next((at for at, message in enumerate(messages) if message["role"] != "system"), len(messages))
    return _merged([*messages[:at], about]) + messages[at:]


def _numbered(messages: Sequence[Mapping[str, Any]], own: ToolFormat) -> Messages:
    """The messages with call ids as a template wants them."""
    copies = [dict(message) for message in messages]
    if not own.call_ids_have_nine_characters:
        return copies
    for message in copies:
        if "tool_call_id" in message:
            message["tool_call_id"] = _of_nine(message["tool_call_id"])
        if "tool_calls" in message:
            message["tool_calls"] = [
                {**call, "id": _of_nine(call.get("id", str(at)))}
                for at, call in enumerate(message["tool_calls"])
            ]
    return copies


def _of_nine(number: str) -> str:
    fits = len(number) == 9 and number.isascii() and number.isalnum()
    return number if fits else hashlib.sha256(number.encode()).hexdigest()[:9]


def _template(model: BaseLanguageModel, chat: Chat) -> str | None:
    """The template a model is shown this chat by; None if it has none."""
    if chat.chat_template is not None:
        return chat.chat_template
    own = model.tokenizer.chat_template
    return None if not own else str(own)


_formats: WeakKeyDictionary[Any, dict[str, ToolFormat]] = WeakKeyDictionary()


def _format(tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> ToolFormat:
    """:func:`tool_format`, found out once: it parses the template."""
    known = _formats.setdefault(tokenizer, {})
    template = chat_template or tokenizer.chat_template
    if str(template) not in known:
        known[str(template)] = tool_format(tokenizer, cast(Any, template))
    return known[str(template)]
