"""A conversation as a prompt: messages and tools in the format of transformers' chat templates."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args

from cosd_core.chat.tools import as_json, function_part, parse_tools
from cosd_core.errors import InvalidOptionError, InvalidPromptError, quoted
from cosd_core.grammar.schema_limits import MAX_DEPTH, check_limits
from cosd_core.options import check_flags

Role = Literal["system", "user", "assistant", "tool"]
Message = Mapping[str, Any]

_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
_LEVELS_AROUND_PARAMETERS = 3
"""The list of tools, the tool, and its function."""

_RESERVED_KWARGS = (
    "conversation", "messages", "tools", "chat_template", "add_generation_prompt",
    "tokenize", "sanitize_control_tokens", "padding", "truncation", "max_length", "return_tensors",
    "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs",
)  # fmt: skip
"""Arguments of ``apply_chat_template`` that cosd sets, or that change its result."""


@dataclass(frozen=True)
class Chat:
    """A conversation before the assistant's next turn, or within it.

    ::

        decoder.generate(Chat([{"role": "user", "content": "What is the capital of France?"}]))

    It is rendered for every model by its own chat template, or with plain headings if it has none
    (``cosd_core/chat/rendering.py``). Control tokens in messages are encoded as text.

    Attributes:
        messages: Dictionaries with ``role`` (system, user, assistant, tool) and ``content``: text, or a list
            of text parts. Optional keys are ``name``, in the assistant's messages ``tool_calls`` and
            ``reasoning_content``, and in a tool's message ``tool_call_id``.
        tools: The available tools, in OpenAI's format of functions.
        chat_template: A Jinja template that overrides every model's own.
        chat_template_kwargs: Further variables of the template, such as ``{"enable_thinking": False}``.
        continue_final_message: Whether the models continue the last message, which is the assistant's and has
            text, instead of beginning a new one. The answer is what they add. The name and the meaning are
            those of transformers; ``chat_template_kwargs`` may hold it too.

    Raises:
        InvalidPromptError: A message is invalid, or the last one cannot be continued.
        InvalidOptionError: A tool or a template option is invalid.
    """

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    continue_final_message: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.messages, (list, tuple)) or not self.messages:
            raise InvalidPromptError(
                f"messages={quoted(self.messages)} should be a list of at least one message"
            )
        if not isinstance(self.tools, (list, tuple)):
            raise InvalidOptionError(f"tools={quoted(self.tools)} should be a list of tools")
        check_limits(self.tools, max_depth=MAX_DEPTH + _LEVELS_AROUND_PARAMETERS)
        if (error := _json_error(self.tools)) is not None:
            raise InvalidOptionError(f"tools={quoted(self.tools)} should be JSON: {quoted(error)}")
        parse_tools(self.tools)
        if self.chat_template is not None and not isinstance(self.chat_template, str):
            raise InvalidOptionError(f"chat_template={quoted(self.chat_template)} should be a Jinja template")
        if not isinstance(self.chat_template_kwargs, Mapping):
            raise InvalidOptionError(
                f"chat_template_kwargs={quoted(self.chat_template_kwargs)} should be a dictionary"
            )
        variables = dict(self.chat_template_kwargs)
        continues = [self.continue_final_message, variables.pop("continue_final_message", False)]
        for value in continues:
            check_flags(continue_final_message=value)
        for key in variables:
            if not isinstance(key, str) or key in _RESERVED_KWARGS:
                raise InvalidOptionError(
                    f"chat_template_kwargs: {quoted(key)} should be the name of a variable of the template"
                )
        messages = tuple(_parse_message(index, message) for index, message in enumerate(self.messages))
        if any(continues):
            _check_continued(messages[-1])
        object.__setattr__(self, "messages", _add_tool_names(messages))
        object.__setattr__(self, "tools", tuple(self.tools))
        object.__setattr__(self, "chat_template_kwargs", variables)
        object.__setattr__(self, "continue_final_message", any(continues))

    def with_schema_instruction(self, schema: Mapping[str, Any]) -> Self:
        """The same chat with :func:`schema_instruction` in its system message.

        Raises:
            InvalidOptionError: The schema is invalid.
        """
        if not (instruction := schema_instruction(schema)):
            return self
        first, *others = self.messages
        if first["role"] == "system":
            messages = [{**first, "content": f"{first['content']}\n\n{instruction}"}, *others]
        else:
            messages = [{"role": "system", "content": instruction}, *self.messages]
        return replace(self, messages=messages)


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """An instruction to answer with JSON for a schema; empty for a schema without content."""
    check_limits(schema)
    if not isinstance(schema, Mapping) or _json_error(schema) is not None:
        raise InvalidOptionError(f"answer_schema={quoted(schema)} should be a JSON schema, as a dictionary")
    if not schema.keys() - {"type"}:
        return ""
    return f"Answer with JSON for this schema:\n{as_json(schema)}"


def _content_text(content: Any, where: str) -> str:
    """The content of a message as text; text parts are concatenated, other parts (images) are rejected."""
    if content is None:
        return ""
    content = [content] if isinstance(content, str) else content
    if not isinstance(content, (list, tuple)):
        raise InvalidPromptError(f"{where}: content={quoted(content)} should be text or a list of text parts")
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") == "text" else part
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            raise InvalidPromptError(
                f"{where} holds a part of type {quoted(kind)}; these models read text only"
            )
        texts.append(text)
    return _check_text("".join(texts), f"{where}: content")


def _check_text(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidPromptError(f"{what}={quoted(text)} should be text")
    if _json_error(text) is not None:
        raise InvalidPromptError(f"{what}={quoted(text)} is no text: it holds half a surrogate pair")
    return text


def _json_error(value: Any) -> Exception | None:
    """The error when a value is written as JSON, if any."""
    try:
        as_json(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return error
    return None


def _parse_message(index: int, message: Any) -> dict[str, Any]:
    where = f"message {index}"
    if not isinstance(message, Mapping):
        raise InvalidPromptError(f"{where}: {quoted(message)} should be a dictionary with role and content")
    if unknown := [key for key in message if key not in _KEYS]:
        raise InvalidPromptError(f"{where}: unknown key {quoted(unknown[0])}; there are {', '.join(_KEYS)}")
    role = message.get("role")
    if role not in get_args(Role):
        raise InvalidPromptError(f"{where}: role={quoted(role)} should be one of {', '.join(get_args(Role))}")
    parsed: dict[str, Any] = {"role": role, "content": _content_text(message.get("content"), where)}
    for key in ("name", "tool_call_id", "reasoning_content"):
        if (value := message.get(key)) is not None:
            parsed[key] = _check_text(value, f"{where}: {key}")
    if calls := message.get("tool_calls"):
        if role != "assistant" or not isinstance(calls, (list, tuple)):
            raise InvalidPromptError(
                f"{where}: tool_calls={quoted(calls)} should be a list, of the assistant's"
            )
        parsed["tool_calls"] = [_parse_call(where, call) for call in calls]
    return parsed


def _check_continued(message: Mapping[str, Any]) -> None:
    """Refuse to continue a message that is not the assistant's, has no text, or ends with calls."""
    if message["role"] != "assistant":
        problem = f"is the {message['role']}'s"
    elif message.get("tool_calls"):
        problem = "ends with tool calls"
    elif not message["content"].strip():
        problem = "holds no text"
    else:
        return
    raise InvalidPromptError(
        f"continue_final_message=True continues an assistant's message with text, but the last one {problem}"
    )


def _parse_call(where: str, call: Any) -> dict[str, Any]:
    """A call whose arguments are a dictionary, as templates expect it."""
    function = function_part(call)
    name, arguments = function.get("name"), function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = None
    arguments = dict(arguments) if isinstance(arguments, Mapping) else None
    if not isinstance(name, str) or arguments is None or _json_error([name, arguments]) is not None:
        form = '{"function": {"name": ..., "arguments": {...}}}'
        raise InvalidPromptError(f"{where}: tool call {quoted(call)} should be {form}")
    parsed = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {**parsed, "id": str(call["id"])} if call.get("id") else parsed


def _add_tool_names(messages: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """Add the tool's name, which some templates need, to the messages of tools."""
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
