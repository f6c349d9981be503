"""Turns the fields of :class:`Settings` into flags of a command, so that each is described once."""

import inspect
import json
from collections.abc import Callable
from functools import wraps
from typing import Any, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.frontend.settings import Settings, SettingsFields

_NAMES = {"draft_model": "draft", "assistant_model": "assistant"}
_UNWRITABLE = {"grammar", "logits_processor"}
"""Fields whose values cannot be written as words."""

_JSON = ("quantization_config",)
"""Fields that are written as JSON."""

_SEVERAL: dict[str, Any] = {
    "assistant_model": list[str],
    "assistant_adapter": list[str],
    "verifier": list[str],
    "tree_path": list[str],
    "stop": list[str],
    "eos_token_id": list[int],
    "calibration": list[float],
}
"""Fields that take several words, each after a flag of its own."""

_ONE_OR_SEVERAL = ("verifier", "tree_path")
"""Of these, one word is for all assistants, and several are one for each."""


def with_settings(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag per setting; it receives those that were given as the dictionary ``settings``."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # The settings' own fields, above all the models, come before those that they inherit.
        fields = sorted(Settings.model_fields, key=lambda name: name not in SettingsFields.__annotations__)
        names = [name for name in fields if name not in _UNWRITABLE.union(left_out)]

        @wraps(command)
        def run(**arguments: Any) -> None:
            given = {name: arguments.pop(name) for name in names}
            for name in _ONE_OR_SEVERAL:
                if len(given.get(name) or ()) == 1:
                    [given[name]] = given[name]
            for name in _JSON:
                if given.get(name):
                    given[name] = _read_json(name, given[name])
            command(
                settings={name: each for name, each in given.items() if each not in (None, [])}, **arguments
            )

        own = inspect.signature(command)
        parameters = [each for each in own.parameters.values() if each.name != "settings"]
        parameters += [_flag(name, Settings.model_fields[name]) for name in names]
        run.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _flag(name: str, field: FieldInfo) -> inspect.Parameter:
    word = f"--{_NAMES.get(name, name).replace('_', '-')}"
    silent = field.is_required() or field.default in (None, "", ()) or field.default is False
    default = "" if silent else f" Default: {field.default}."
    option = typer.Option(
        None,
        f"{word}/--no-{word[2:]}" if field.annotation is bool else word,
        help=f"{field.description}{default}",
        show_default=False,
    )
    kind = str if name in _JSON else _SEVERAL.get(name) or _plain_type(field.annotation)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def _read_json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOptionError(f"{name}={quoted(text)} should be JSON: {quoted(error)}") from None


def _plain_type(annotation: Any) -> type:
    """The type that a word on the command line is turned into."""
    kinds = (
        get_args(annotation) if get_origin(annotation) is not None or get_args(annotation) else (annotation,)
    )
    return next(
        kind for kind in (bool, int, float, str) if kind in kinds and not (kind is bool and str in kinds)
    )
