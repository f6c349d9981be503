"""The responses of the server, in the shape of OpenAI's API."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

FinishReason = Literal["stop", "length", "tool_calls"]


class Usage(TypedDict):
    """The tokens of all prompts and texts of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TokenLogprob(TypedDict):
    """The log probability of a token, by the model that predicted it."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: NotRequired[list["TokenLogprob"]]


class ChatLogprobs(TypedDict):
    """The log probabilities of the tokens of a message."""

    content: list[TokenLogprob]


class TextLogprobs(TypedDict):
    """The log probabilities of the tokens of a text; ``text_offset`` counts characters of the completion."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class Function(TypedDict):
    """The function of a call; ``arguments`` is JSON text. In a stream its parts arrive one after another."""

    name: NotRequired[str]
    arguments: str


class ToolCall(TypedDict):
    """A call of a tool; in a stream with its index, and only the first piece with id, type and name."""

    index: NotRequired[int]
    id: NotRequired[str]
    type: NotRequired[Literal["function"]]
    function: Function


class MessageFields(TypedDict):
    """A message of the models, or in a stream what a chunk adds to it."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    refusal: NotRequired[None]


class Choice(TypedDict):
    """What all choices have. ``provenance`` is the trace; before the end of a stream, the new tokens."""

    index: int
    finish_reason: FinishReason | None
    schema_error: NotRequired[str]
    provenance: NotRequired[dict[str, Any]]


class TextChoice(Choice):
    """A text, or in a stream a piece of it."""

    text: str
    logprobs: TextLogprobs | None


class ChatChoice(Choice):
    """A message."""

    message: MessageFields
    logprobs: ChatLogprobs | None


class ChatDelta(Choice):
    """What a chunk of a stream adds to a message."""

    delta: MessageFields
    logprobs: ChatLogprobs | None


class Completion(TypedDict):
    """The answer of ``/v1/completions``, and a chunk of its stream."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: NotRequired[Usage | None]


class ChatCompletion(TypedDict):
    """The answer of ``/v1/chat/completions``."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Model(TypedDict):
    """A model that requests can name."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(TypedDict):
    """The answer of ``/v1/models``."""

    object: Literal["list"]
    data: list[Model]


class ErrorFields(TypedDict):
    """What is wrong, and with which parameter."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(TypedDict):
    """The answer of every request that fails."""

    error: ErrorFields


class Health(TypedDict):
    """The answer of ``/health``."""

    status: Literal["ok"]
