"""Translates the generation options of lm-evaluation-harness's tasks into :class:`GenerationOptions`."""

from collections.abc import Mapping
from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import GenerationOptions, unknown_option

_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""The tasks' names for the longest answer; the first that is given counts, as in the harness."""

_WITHOUT_EFFECT: Mapping[str, Any] = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True}
"""Options that tasks may give in the only value that applies here."""


def read_task_options(given: Mapping[str, Any], *, settings: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Fields of :class:`GenerationOptions` from a task's ``generation_kwargs``, else from settings.

    ``most`` is the longest answer in tokens if the task gives none.

    Raises:
        InvalidOptionError: An option is unknown, or has a wrong type.
    """
    remaining, options = dict(given), dict(settings)
    lengths = [_whole(name, remaining.pop(name)) for name in _TOKENS if remaining.get(name) is not None]
    options["max_new_tokens"] = lengths[0] if lengths else most
    stop = [*_strings("until", remaining.pop("until", None)), *_strings("stop", remaining.pop("stop", None))]
    options["stop"] = tuple(dict.fromkeys([*options.get("stop", ()), *filter(None, stop)]))
    options.setdefault("truncation", True)
    sampled, temperature = remaining.pop("do_sample", None), remaining.pop("temperature", None)
    if sampled is False:
        options["temperature"] = 0.0
    elif temperature is not None:
        options["temperature"] = _number("temperature", temperature)
    elif sampled and not options.get("temperature"):
        options["temperature"] = 1.0  # the default of transformers
    for name, value in remaining.items():
        if name in GenerationOptions.model_fields:
            options[name] = value
        elif value is not None and _WITHOUT_EFFECT.get(name) != value:
            known = (*_TOKENS, "until", "do_sample", *GenerationOptions.model_fields)
            raise InvalidOptionError(f"gen_kwargs {name}={quoted(value)}: {unknown_option(name, known)}")
    return options


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidOptionError(f"gen_kwargs {name}={quoted(value)} should be a number") from None


def _whole(name: str, value: Any) -> int:
    if not (number := _number(name, value)).is_integer():
        raise InvalidOptionError(f"gen_kwargs {name}={quoted(value)} should be a whole number")
    return int(number)


def _strings(name: str, value: Any) -> list[str]:
    if not isinstance(value, str | list | tuple | None):
        raise InvalidOptionError(f"gen_kwargs {name}={quoted(value)} should be text, or a list of texts")
    return [value] if isinstance(value, str) else list(value or ())
