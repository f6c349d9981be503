"""Values of options that are given as text, such as ``name=value`` on a command line."""

import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import SecretStr

from cosd_core.errors import InvalidOptionError, quoted


def parts_of(annotation: Any) -> Iterator[Any]:
    """All types that an annotation is made of; that of a secret is text."""
    kind = get_origin(annotation) or annotation
    yield str if kind is SecretStr else kind
    for part in get_args(annotation):
        yield from parts_of(part)


def value_of(name: str, text: str, annotation: Any) -> Any:
    """The value of an option from its text.

    Args:
        name: The name of the option.
        text: JSON; or the value itself if the option admits text and this is no JSON list or object.
        annotation: The type of the option.

    Raises:
        InvalidOptionError: It is no JSON, and the option admits no text.
    """
    if str in parts_of(annotation) and not text.startswith(("[", "{")):
        return text
    return json_value(name, text)


def json_value(name: str, text: str) -> Any:
    """The value of an option from JSON.

    Raises:
        InvalidOptionError: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOptionError(f"{name}={quoted(text)} should be JSON: {quoted(error)}") from None
