"""Requests that do not fit their model, in one line."""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from cosd_core.errors import quoted
from cosd_core.options import unknown_option
from cosd_core.serving.errors import RequestError
from cosd_core.serving.requests import ChatRequest, CompletionRequest, Message, StreamOptions

_FIELDS = {
    name for kind in (ChatRequest, CompletionRequest, Message, StreamOptions) for name in kind.model_fields
}
_REFUSED = {
    name: str(field.description)
    for kind in (ChatRequest, CompletionRequest)
    for name, field in kind.model_fields.items()
    if str(field.description).startswith("only ")
}
"""OpenAI's fields that may hold one value alone, and the reason."""


def validation_error(problems: Sequence[Any], body: Any) -> RequestError:
    """The first of pydantic's problems with a request, with the parameter that it is about.

    Args:
        problems: The problems, as ``ValidationError.errors`` returns them.
        body: The body.
    """
    # Of the parts of a union the one that fits best fails at the deepest place.
    parts = (each for each in problems if each["loc"][:2] == problems[0]["loc"][:2])
    problem = max(parts, key=lambda each: len(each["loc"]))
    path = problem["loc"][1:]
    if problem["type"] == "json_invalid":
        return RequestError(f"the body is no JSON: {problem['ctx']['error']} at character {path[0]}")
    if not path:
        message = problem["msg"].removeprefix("Value error, ")
        if isinstance(body, dict):
            return RequestError(message, param=message.partition(" ")[0])
        return RequestError("the body should be a JSON object, with the content type application/json")
    where = _where(path)
    if problem["type"] == "extra_forbidden":
        known = (ChatRequest if "messages" in body else CompletionRequest).model_fields
        name, where = str(path[-1]), _where(path[:-1])
        message = unknown_option(name, known) if len(path) == 1 else f"unknown key {quoted(name)} in {where}"
        return RequestError(message, param=f"{where}.{name}".strip("."))
    if problem["type"] == "missing":
        return RequestError(f"{where} is missing", param=where)
    value = quoted(problem["input"])
    if reason := _REFUSED.get(where):
        return RequestError(f"{where}={value} is not supported: {reason}", param=where)
    found = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    return RequestError(f"{where}={value} {found}", param=where)


def _where(path: Sequence[str | int]) -> str:
    """The parameter, without the names that pydantic has for the parts of a union."""
    known = takewhile(lambda part: isinstance(part, int) or part in _FIELDS, path)
    return ".".join(map(str, known))
