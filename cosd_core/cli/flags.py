"""Makes a command-line flag of every field of :class:`Settings`."""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic.fields import FieldInfo

from cosd_core.frontend.settings import Settings, SettingsFields
from cosd_core.frontend.settings_file import merge_settings, read_settings
from cosd_core.frontend.text_values import json_value, parts_of
from cosd_core.options import ANSWER_TOKENS

_FLAG_NAMES = {"draft_model": "draft", "assistant_model": "assistant"}
_WITHOUT_FLAG = {"grammar", "logits_processor"}
"""Fields whose values are objects."""

_ONE_OR_PER_ASSISTANT = ("verifier", "tree_path")
"""Fields where one value is for all assistants, and a list holds one value per assistant."""

_FILE = inspect.Parameter(
    "settings_file",
    inspect.Parameter.KEYWORD_ONLY,
    default=typer.Option(None, help="JSON with settings, as cosd tune writes it. Flags take precedence."),
    annotation=Path | None,
)

ANSWER_LIMIT = (
    f"Token limit, the end token included. Default: {ANSWER_TOKENS}, at most half of the context window."
)
"""The help of ``--max-new-tokens`` where answers may be longer than elsewhere."""


def with_settings(*left_out: str, **helps: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command a flag per field of :class:`Settings`, except for the fields ``left_out``.

    A command that leaves none out also gets ``--settings-file``. ``helps`` are the texts of flags that mean
    something else in this command than their field says. The command receives the values of the flags that
    were given as ``settings``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        # The fields of Settings itself, above all the models, come before the inherited ones.
        fields = sorted(Settings.model_fields, key=lambda name: name not in SettingsFields.__annotations__)
        names = [name for name in fields if name not in _WITHOUT_FLAG.union(left_out)]

        @wraps(command)
        def run(**arguments: Any) -> None:
            values = {name: arguments.pop(name) for name in names}
            given = {name: _parse(name, value) for name, value in values.items() if value not in (None, [])}
            if not left_out and (path := arguments.pop(_FILE.name)):
                given = merge_settings(read_settings(path), given)
            command(settings=given, **arguments)

        signature = inspect.signature(command)
        parameters = [each for each in signature.parameters.values() if each.name != "settings"]
        parameters += [] if left_out else [_FILE]
        parameters += [_parameter(name, Settings.model_fields[name], helps.get(name)) for name in names]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def _parameter(name: str, field: FieldInfo, text: str | None) -> inspect.Parameter:
    flag = f"--{_FLAG_NAMES.get(name, name).replace('_', '-')}"
    hide_default = field.is_required() or field.default in (None, "", ()) or field.default is False
    default = "" if hide_default else f" Default: {field.default}."
    kind = _flag_type(field.annotation)
    element = (get_args(kind) or (kind,))[0]
    several = "" if element is kind else " Repeat the flag for several."
    option = typer.Option(
        None,
        f"{flag}/--no-{flag[2:]}" if field.annotation is bool else flag,
        help=text or f"{field.description}{default}{several}",
        show_default=False,
        metavar=None if kind is bool else f"<{element.__name__}>",
    )
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind | None)


def _parse(name: str, value: Any) -> Any:
    """The value of a field from that of its flag."""
    if name in _ONE_OR_PER_ASSISTANT and len(value) == 1:
        return value[0]
    if Settings.model_fields[name].annotation is not Any or not value:
        return value
    return json_value(name, value)


def _flag_type(annotation: Any) -> Any:
    """The type of a flag: a list if the field admits one, and JSON text for ``Any``."""
    parts = set(parts_of(annotation))
    # Text comes first: a field that admits text and a bool takes any word.
    kind = next(kind for kind in (str, bool, int, float) if kind in parts or (kind is str and Any in parts))
    return list[kind] if parts & {list, tuple} else kind  # type: ignore[valid-type]  # known at run time
