"""Errors as HTTP statuses and OpenAI's error objects."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from cosd_core.errors import (
    AnswerTimeoutError,
    ContextOverflowError,
    CoSDError,
    InvalidOptionError,
    InvalidPromptError,
    LogitsProcessorError,
    OverloadedError,
    VocabularyMismatchError,
)

CLIENT_GONE = 499
"""The status in logs and metrics of a request whose client has disconnected; nobody receives it."""

_KINDS: tuple[tuple[type[CoSDError], int, str, str | None], ...] = (
    (ContextOverflowError, 400, "invalid_request_error", "context_length_exceeded"),
    (InvalidOptionError, 400, "invalid_request_error", None),
    (InvalidPromptError, 400, "invalid_request_error", None),
    (VocabularyMismatchError, 400, "invalid_request_error", None),
    (LogitsProcessorError, 400, "invalid_request_error", None),  # requests bring settings alone, no code
    (OverloadedError, 429, "rate_limit_error", "overloaded"),
    (AnswerTimeoutError, 504, "timeout_error", "timeout"),
)
_RETRY_SECONDS = "1"
"""The ``Retry-After`` of statuses 429 and 503: answers are short, so that a place is free soon."""

_ALIASES = {"max_new_tokens": "max_tokens"}
"""The core's names for fields of requests, where they differ."""


@dataclass
class RequestError(CoSDError):
    """A request that the server refuses or gives up."""

    message: str
    status: int = 400
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message

    def to_dict(self) -> dict[str, Any]:
        """The error object of OpenAI's API."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def shutting_down() -> RequestError:
    """The error of requests that a shutdown refuses or ends."""
    headers = {"Retry-After": _RETRY_SECONDS}
    return RequestError("the server is shutting down", 503, "server_error", "shutting_down", None, headers)


def client_gone() -> RequestError:
    """The error that ends the work of a client that has disconnected."""
    return RequestError("the client has disconnected", CLIENT_GONE, "server_error", "client_gone")


def request_error(error: BaseException, fields: Collection[str] = ()) -> RequestError:
    """Any error as one of a request.

    Args:
        error: The error. What is no error of cosd is a fault of the server, whose text clients do not see.
        fields: The fields of the request, one of which the message may name.
    """
    if isinstance(error, RequestError):
        return error
    for kind, status, name, code in _KINDS:
        if isinstance(error, kind):
            headers = {"Retry-After": _RETRY_SECONDS} if status == 429 else {}
            param = _named_field(error, fields) if status == 400 else None
            return RequestError(str(error), status, name, code, param, headers)
    message = str(error) if isinstance(error, CoSDError) else "the server has failed; its log says how"
    return RequestError(message, 500, "server_error")


def _named_field(error: BaseException, fields: Collection[str]) -> str | None:
    """The field of a request that a message begins with, or that of the prompt if the prompt is wrong."""
    begin = re.match(r"(?:unknown option ')?(\w*)", str(error))
    name = begin[1] if begin else ""
    names = [_ALIASES.get(name, name), f"{name}s"]  # such as "message 3: ..." and "tool {...} should be"
    if isinstance(error, InvalidPromptError):
        names += ["messages", "prompt"]
    return next((each for each in names if each in fields), None)
