"""Settings in a JSON file."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from cosd_core.errors import CoSDError, EvaluationFileError, InvalidOptionError, quoted
from cosd_core.frontend.settings import VERIFIER_OF_SETTING, Settings
from cosd_core.options import CODE_OPTIONS, SECRET_OPTIONS


def read_settings(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a settings file, such as ``cosd tune`` writes: a JSON object with fields of :class:`Settings`.

    ::

        llm = CoSDLLM(**read_settings("tuned.json"))  # LangChain's, LlamaIndex's, or Settings itself

    The file may leave out fields that the caller adds, the models included.

    Raises:
        EvaluationFileError: The file cannot be read, holds no JSON object, a field is unknown or wrong, or
            loading the models could run code: only an argument or a flag may permit that.
    """
    where = f"settings {quoted(str(path))}"
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, TypeError) as error:
        raise EvaluationFileError(f"cannot read {where}: {quoted(error)}") from error
    if not isinstance(settings, dict):
        raise EvaluationFileError(f"{where} should be a JSON object, not {quoted(settings)}")
    try:
        refuse_code(settings)
        Settings(**{"draft_model": "", "assistant_model": [""] * _num_assistants(settings), **settings})
    except CoSDError as error:
        raise EvaluationFileError(f"{where}: {error}") from error
    return settings


def refuse_code(settings: Mapping[str, Any]) -> None:
    """Refuse settings from a file or dictionary with which loading a model can run code.

    Raises:
        InvalidOptionError: They hold ``trust_remote_code=True`` or ``use_safetensors=False``.
    """
    for name, value in CODE_OPTIONS.items():
        if settings.get(name) is value:
            flag = name.replace("_", "-") if value else f"no-{name.replace('_', '-')}"
            raise InvalidOptionError(
                f"{name}={value} lets the files of a model run code, which stored settings may not permit: "
                f"remove it there, and give the argument {name}={value} or the flag --{flag} instead"
            )


def writable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a file may hold: without secrets, and without permission to run code."""
    return {
        name: value
        for name, value in settings.items()
        if name not in SECRET_OPTIONS and value is not CODE_OPTIONS.get(name, settings)
    }


def merge_settings(file: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file, overridden by the given ones.

    If a verifier is given, the file's settings of its own verifier are dropped.
    """
    dropped = ("calibration", *VERIFIER_OF_SETTING) if "verifier" in given else ()
    return {**{name: value for name, value in file.items() if name not in dropped}, **given}


def _num_assistants(settings: Mapping[str, Any]) -> int:
    """The number of assistants that settings without ``assistant_model`` are written for."""
    per_assistant = [settings.get(name) for name in ("verifier", "tree_path", "assistant_adapter")]
    counts = [len(each) for each in per_assistant if isinstance(each, list)]
    if isinstance(verifier := settings.get("verifier"), Mapping) and verifier.get("name") == "panel":
        counts.append(len(verifier["members"]) if isinstance(verifier.get("members"), list) else 1)
    if isinstance(temperatures := settings.get("calibration"), list):
        counts.append(len(temperatures) - 1)
    return max([1, *counts])
