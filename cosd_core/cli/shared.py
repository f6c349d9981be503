"""Helpers of the commands: settings from flags, the bundled pair as the default, and HTML pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from cosd_core import demo, explain
from cosd_core.errors import CoSDError, InvalidOptionError, quoted
from cosd_core.evaluation import BUNDLED
from cosd_core.frontend.settings import Settings
from cosd_core.options import GenerationOptions
from cosd_core.outputs import Generation
from cosd_core.utils import require_matplotlib


def names_models(settings: Mapping[str, Any]) -> bool:
    """Whether settings name a model. Without any, commands use the bundled pair."""
    return not {"draft_model", "assistant_model"}.isdisjoint(settings)


def make_settings(given: Mapping[str, Any]) -> Settings:
    """Validate the settings of a command, which must name the models."""
    for name, flag in (("draft_model", "--draft"), ("assistant_model", "--assistant")):
        if name not in given:
            raise InvalidOptionError(f"{flag} is missing: give a hub id or the path of a model folder")
    return Settings(**given)


def with_models(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with the bundled pair if they name no model."""
    if names_models(settings):
        return dict(settings)
    draft, assistant = load_bundled_pair()
    return {**settings, "draft_model": draft, "assistant_model": assistant}


def with_models_and_tasks(
    settings: Mapping[str, Any], tasks: Sequence[str], *, plots: bool
) -> tuple[dict[str, Any], list[str]]:
    """The settings and the tasks, with the bundled pair and its questions if the settings name no model.

    Raises an error before the models are loaded if a task is missing, or a package that plots need.
    """
    if not tasks and names_models(settings):
        raise InvalidOptionError(
            f'--task is missing: name a JSONL file, or "{BUNDLED}" for the bundled questions'
        )
    if plots:
        require_matplotlib()
    return with_models(settings), list(tasks or [BUNDLED])


def generation_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are fields of :class:`GenerationOptions`."""
    return {name: settings[name] for name in GenerationOptions.model_fields if name in settings}


def load_bundled_pair() -> tuple[Any, Any]:
    """The bundled models, the draft first."""
    torch.set_num_threads(1)  # models this small are slower on several
    transformers_logging.disable_progress_bar()
    return demo.load_pair()


def bundled_questions(count: int) -> list[demo.Question]:
    """Held-out questions for the bundled pair, ``count`` of each kind."""
    return [question for kind in demo.KINDS for question in demo.held_out(kind, count)]


def write_page(path: Path, generation: Generation) -> None:
    """Write the HTML page of a generation to a file; raises :class:`CoSDError` if that fails."""
    try:
        path.write_text(explain.to_html(generation), encoding="utf-8")
    except OSError as error:
        raise CoSDError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error
