"""Checks of single values that are no fields of options."""

from math import inf
from os import PathLike
from sys import float_info

from cosd_core.errors import InvalidOptionError, quoted


def check_number(name: str, value: object, *, least: float = 0.0, most: float = inf) -> None:
    """Check that a value is a finite number within bounds."""
    bounds = f"of at least {least:g}" if most == inf else f"between {least:g} and {most:g}"
    highest = min(most, float_info.max)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= highest:
        raise InvalidOptionError(f"{name}={quoted(value)} should be a finite number {bounds}")


def check_counts(**values: object) -> None:
    """Check that values are whole numbers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidOptionError(f"{name}={quoted(value)} should be a whole number of at least 1")


def check_flags(**values: object) -> None:
    """Check that values are True or False."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InvalidOptionError(f"{name}={quoted(value)} should be True or False")


def check_calibration(calibration: object, models: int) -> tuple[float, ...]:
    """One temperature, from 0.01 to 100, per model's confidences; 1 for all if ``calibration`` is None."""
    if calibration is None:
        return (1.0,) * models
    if not isinstance(calibration, (list, tuple)) or len(calibration) != models:
        raise InvalidOptionError(
            f"calibration={quoted(calibration)} should hold one temperature per model, the draft's first: "
            f"{models} numbers"
        )
    for temperature in calibration:
        check_number("calibration", temperature, least=0.01, most=100)
    return tuple(map(float, calibration))


def check_adapters(adapters: object, assistants: int) -> tuple[str | None, ...]:
    """The adapter of every assistant, or None for an assistant without one.

    ``adapters`` is a hub id or path for a single assistant, a list with one entry per assistant, or None.
    """
    if adapters is None:
        return (None,) * assistants
    entries = [adapters] if isinstance(adapters, str | PathLike) else adapters
    if not isinstance(entries, (list, tuple)) or len(entries) != assistants:
        raise InvalidOptionError(
            f"assistant_adapter={quoted(adapters)} should hold a hub id, a path or None for every assistant, "
            f"one per assistant: {assistants}"
        )
    for adapter in entries:
        if adapter is not None and not isinstance(adapter, str | PathLike):
            raise InvalidOptionError(
                f"assistant_adapter={quoted(adapters)} should hold hub ids, paths or None, "
                f"not {quoted(adapter)}"
            )
    return tuple(str(adapter) if adapter else None for adapter in entries)
