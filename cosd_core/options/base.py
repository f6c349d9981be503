"""The base of all options, and the messages about options that are unknown or not valid."""

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticUndefined

from cosd_core.errors import InvalidOptionError, quoted

T = TypeVar("T")

_MOST_PROBLEMS = 5
"""In the message of one error."""


class Options(BaseModel):
    """Base of all options: frozen, with strict types; raises :class:`InvalidOptionError` in one line.

    An option given as None has its default, as in transformers' ``GenerationConfig``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**without_nones(type(self), values))
        except ValidationError as error:
            raise InvalidOptionError(in_one_line(error, type(self))) from None


def without_nones(options: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that are None where the default is another value: these are not given."""
    fields = options.model_fields
    return {
        name: value
        for name, value in values.items()
        if value is not None or name not in fields or fields[name].default in (None, PydanticUndefined)
    }


def named(option: str, described: Mapping[str, Any], kinds: Mapping[str, Callable[..., T]]) -> T:
    """Make the object whose ``to_dict`` returned the name and settings in ``described``."""
    settings = dict(described)
    kind = settings.pop("name", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise InvalidOptionError(f"{option}={quoted(described)} should name one of {', '.join(kinds)}")
    try:
        return kinds[kind](**settings)
    except TypeError as error:
        raise InvalidOptionError(f"{option}={quoted(described)}: {quoted(error)}") from None


def unknown_option(name: str, known: Iterable[str]) -> str:
    """The message for an unknown option, with the most similar name."""
    similar = get_close_matches(name, known, n=1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"there are {', '.join(known)}"
    return f"unknown option {quoted(name)}: {hint}"


def in_one_line(error: ValidationError, options: type[BaseModel]) -> str:
    """The message of a pydantic error in one line, with the first problem of the first few fields."""
    problems = {problem["loc"][:1]: problem for problem in reversed(error.errors(include_url=False))}
    first = [_problem(problem, options) for problem in list(reversed(problems.values()))[:_MOST_PROBLEMS]]
    more = [f"and {len(problems) - len(first)} more"] if len(first) < len(problems) else []
    return "; ".join([*first, *more])


def _problem(problem: Any, options: type[BaseModel]) -> str:
    if not problem["loc"]:
        return f"{options.__name__}: {problem['msg']}"  # without the input, which may hold secrets
    name = str(problem["loc"][0])
    if problem["type"] == "extra_forbidden":
        return unknown_option(name, options.model_fields)
    if problem["type"] == "missing":
        return f"{name} is missing"
    message = problem["msg"].removeprefix("Input ").removeprefix("Value error, ")
    if name in options.model_fields and not options.model_fields[name].repr:
        return f"{name} {message}"  # the value is secret, such as an access token
    return f"{name}={quoted(problem['input'])} {message}"
