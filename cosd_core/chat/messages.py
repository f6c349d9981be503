"""A conversation as a prompt: messages and tools in the form that transformers' chat templates take."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

from cosd_core.chat.tools import as_tools
from cosd_core.errors import InvalidOptionError, InvalidPromptError, quoted

Role = Literal["system", "user", "assistant", "tool"]
Message = Mapping[str, Any]

_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
_NOT_OF_THE_TEMPLATE = (
    "conversation", "messages", "tools", "chat_template", "add_generation_prompt", "continue_final_message",
    "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors",
    "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
)  # fmt: skip
"""Arguments of ``apply_chat_template`` that are set here, or that would change what is made of the text."""


@dataclass(frozen=True)
class Chat:
    """A conversation that waits for the assistant's next turn.

    ::

        decoder.generate(Chat([{"role": "user", "content": "What is the capital of France?"}]))

    Every model is shown it by its own chat template; control tokens in messages are text there. A model
    without a template is shown plain headings (``cosd_core/chat/rendering.py``).

    Attributes:
        messages: Dictionaries with ``role`` (system, user, assistant, tool) and ``content``: text, or a list
            of text parts. An assistant's may have ``tool_calls`` and ``reasoning_content``, a tool's
            ``tool_call_id``, any a ``name``.
        tools: The tools on offer, as OpenAI describes functions.
        chat_template: A Jinja template instead of every model's own.
        chat_template_kwargs: What else the template asks for, such as ``{"enable_thinking": False}``.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the messages and keep copies of them.

        Raises:
            InvalidPromptError: A message is not what it should be.
            InvalidOptionError: A tool or a template option is not.
        """
        if not isinstance(self.messages, (list, tuple)) or not self.messages:
            raise InvalidPromptError(
                f"messages={quoted(self.messages)} should be a list of at least one message"
            )
        if not isinstance(self.tools, (list, tuple)):
            raise InvalidOptionError(f"tools={quoted(self.tools)} should be a list of tools")
        as_tools(self.tools)
        if (error := _why_no_json(self.tools)) is not None:
            raise InvalidOptionError(f"tools={quoted(self.tools)} should be JSON: {quoted(error)}")
        if self.chat_template is not None and not isinstance(self.chat_template, str):
            raise InvalidOptionError(f"chat_template={quoted(self.chat_template)} should be a Jinja template")
        if not isinstance(self.chat_template_kwargs, Mapping):
            raise InvalidOptionError(
                f"chat_template_kwargs={quoted(self.chat_template_kwargs)} should be a dictionary"
            )
        for key in self.chat_template_kwargs:
            if not isinstance(key, str) or key in _NOT_OF_THE_TEMPLATE:
                raise InvalidOptionError(
                    f"chat_template_kwargs: {quoted(key)} should be the name of a variable of the template"
                )
        read = tuple(_read(at, message) for at, message in enumerate(self.messages))
        object.__setattr__(self, "messages", _with_names(read))
        object.__setattr__(self, "tools", tuple(self.tools))
        object.__setattr__(self, "chat_template_kwargs", dict(self.chat_template_kwargs))

    def told(self, schema: Mapping[str, Any]) -> Self:
        """The same chat with a system message that asks for JSON of a schema; a plain object says nothing.

        Raises:
            InvalidOptionError: It is no JSON schema.
        """
        if not (asks := schema_instruction(schema)):
            return self
        first, *others = self.messages
        if first["role"] == "system":
            messages = [{**first, "content": f"{first['content']}\n\n{asks}"}, *others]
        else:
            messages = [{"role": "system", "content": asks}, *self.messages]
        return replace(self, messages=messages)


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """The words that ask for JSON of a schema; none for a plain object.

    Raises:
        InvalidOptionError: It is no JSON schema.
    """
    if not isinstance(schema, Mapping) or _why_no_json(schema) is not None:
        raise InvalidOptionError(f"answer_schema={quoted(schema)} should be a JSON schema, as a dictionary")
    if not schema.keys() - {"type"}:
        return ""
    return f"Answer with JSON for this schema:\n{json.dumps(schema, ensure_ascii=False)}"


def as_text(content: Any, where: str) -> str:
    """The text of a message: itself, or its text parts joined.

    Raises:
        InvalidPromptError: It is neither, or holds an image or the like.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return _checked(content, f"{where}: content")
    if not isinstance(content, (list, tuple)):
        raise InvalidPromptError(f"{where}: content={quoted(content)} should be text or a list of text parts")
    parts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise InvalidPromptError(
                f"{where} holds a part of type {quoted(kind)}; these models read text only"
            )
        parts.append(text)
    return _checked("".join(parts), f"{where}: content")


def _checked(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidPromptError(f"{what}={quoted(text)} should be text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidPromptError(
            f"{what}={quoted(text)} is no text: it holds half a surrogate pair"
        ) from None
    return text


def _why_no_json(value: Any) -> Exception | None:
    """What keeps a value from being written as JSON."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return error
    return None


def _read(at: int, message: Any) -> dict[str, Any]:
    where = f"message {at}"
    if not isinstance(message, Mapping):
        raise InvalidPromptError(f"{where}: {quoted(message)} should be a dictionary with role and content")
    if unknown := [key for key in message if key not in _KEYS]:
        raise InvalidPromptError(f"{where}: unknown key {quoted(unknown[0])}; there are {', '.join(_KEYS)}")
    role = message.get("role")
    if role not in get_args(Role):
        raise InvalidPromptError(f"{where}: role={quoted(role)} should be one of {', '.join(get_args(Role))}")
    read: dict[str, Any] = {"role": role, "content": as_text(message.get("content"), where)}
    for key in ("name", "tool_call_id", "reasoning_content"):
        if (value := message.get(key)) is not None:
            read[key] = _checked(value, f"{where}: {key}")
    if calls := message.get("tool_calls"):
        if role != "assistant" or not isinstance(calls, (list, tuple)):
            raise InvalidPromptError(
                f"{where}: tool_calls={quoted(calls)} should be a list, of the assistant's"
            )
        read["tool_calls"] = [_call(where, call) for call in calls]
    return read


def _call(where: str, call: Any) -> dict[str, Any]:
    """A call whose arguments are a dictionary, as templates want it."""
    function = call.get("function", call) if isinstance(call, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    arguments = function.get("arguments", {}) if isinstance(function, Mapping) else None
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    arguments = dict(arguments) if isinstance(arguments, Mapping) else None
    if not isinstance(name, str) or arguments is None or _why_no_json([name, arguments]) is not None:
        form = '{"function": {"name": ..., "arguments": {...}}}'
        raise InvalidPromptError(f"{where}: tool call {quoted(call)} should be {form}")
    read = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {**read, "id": str(call["id"])} if call.get("id") else read


def _with_names(messages: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Tools' messages with the name of the tool, which some templates ask for."""
    names = {
        call["id"]: call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls", ())
        if "id" in call
    }
    for message in messages:
        if message["role"] == "tool" and "name" not in message and message.get("tool_call_id") in names:
            message["name"] = names[message["tool_call_id"]]
    return messages
