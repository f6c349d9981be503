"""The arguments of the model ``cosd`` of lm-evaluation-harness, as settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.frontend.settings import Settings

_ALIASES = {"draft": "draft_model", "assistant": "assistant_model"}
_SEVERAL = ("assistant_model", "assistant_adapter", "verifier", "tree_path", "calibration")
"""Settings that may hold several values, separated by plus signs."""


def read_arguments(
    settings: Mapping[str, Any], batch_size: int | str | None, max_batch_size: int | None, device: Any
) -> Settings:
    """The settings that ``--model_args`` and the harness's own arguments mean.

    Raises:
        InvalidOptionError: A setting is unknown or wrong.
    """
    values = {_ALIASES.get(name, name): value for name, value in settings.items()}
    values.update({name: _split_values(name, values[name]) for name in _SEVERAL if name in values})
    if len(values) < len(settings):
        raise InvalidOptionError(
            f"{', '.join(settings)}: draft and draft_model, assistant and assistant_model are the same"
        )
    for alias, name in _ALIASES.items():
        if name not in values:
            raise InvalidOptionError(f"{alias} is missing: give a hub id or the path of a model folder")
    if isinstance(values.get("token"), str):
        raise InvalidOptionError(
            "token is given, but the harness writes its arguments into its reports: set HF_TOKEN instead"
        )
    if (size := _batch_size(batch_size, max_batch_size)) is not None:
        values["batch_size"] = size
    if device is not None and values.get("device_map") is None:
        values.setdefault("device", _device(device))
    return Settings(**values)


def _split_values(name: str, value: Any) -> Any:
    """The values between plus signs; a path with a plus sign in its name is one value."""
    if not isinstance(value, str) or "+" not in value or Path(value).exists():
        return value
    parts = value.split("+")
    if name != "calibration":
        return parts
    try:
        return list(map(float, parts))
    except ValueError:
        raise InvalidOptionError(
            f"calibration={quoted(value)} should hold numbers with a plus sign between them, such as 1.2+0.8"
        ) from None


def _batch_size(size: int | str | None, most: int | None) -> int | None:
    if size is None or str(size).startswith("auto"):
        return most
    try:
        return int(size)
    except ValueError:
        raise InvalidOptionError(
            f'batch_size={quoted(size)} should be a whole number of at least 1, or "auto"'
        ) from None


def _device(device: Any) -> Any:
    missing = str(device).startswith("cuda") and not torch.cuda.is_available()
    return "auto" if missing else device
