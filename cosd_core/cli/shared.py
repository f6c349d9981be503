"""What commands share: where they print, what is needed before they begin, and pages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.utils import logging as transformers_logging

from cosd_core import demo, explain
from cosd_core.errors import CoSDError, InvalidOptionError, quoted
from cosd_core.evaluation import BUNDLED
from cosd_core.frontend.settings import Settings
from cosd_core.options import GenerationOptions
from cosd_core.outputs import Generation
from cosd_core.utils import require_matplotlib

out, err = Console(highlight=False), Console(stderr=True, highlight=False)


def names_models(settings: Mapping[str, Any]) -> bool:
    """Whether settings name a model; where they name none, the bundled pair is meant."""
    return not {"draft_model", "assistant_model"}.isdisjoint(settings)


def checked(given: Mapping[str, Any]) -> Settings:
    """The settings of what was given.

    Raises:
        InvalidOptionError: A model is missing, or a setting wrong.
    """
    for name, flag in (("draft_model", "--draft"), ("assistant_model", "--assistant")):
        if name not in given:
            raise InvalidOptionError(f"{flag} is missing: give a hub id or the path of a model folder")
    return Settings(**given)


def with_models(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that name models: those of the bundled pair where none is named."""
    if names_models(settings):
        return dict(settings)
    draft, assistant = bundled_pair()
    return {**settings, "draft_model": draft, "assistant_model": assistant}


def with_tasks(
    settings: Mapping[str, Any], tasks: Sequence[str], *, plots: bool
) -> tuple[dict[str, Any], list[str]]:
    """Settings that name models, and the names of tasks: without models, the bundled pair and its questions.

    Args:
        settings: What was given.
        tasks: The same.
        plots: Whether there are to be pictures.

    Raises:
        InvalidOptionError: Models are named, but no task.
        MissingExtraError: Pictures cannot be drawn.
    """
    tasks = tasks or ([] if names_models(settings) else [BUNDLED])
    if not tasks:
        raise InvalidOptionError(
            f'--task is missing: name a JSONL file, or "{BUNDLED}" for the bundled questions'
        )
    if plots:
        require_matplotlib()
    return with_models(settings), list(tasks)


def generation_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the settings that are options of a generation."""
    return {name: settings[name] for name in GenerationOptions.model_fields if name in settings}


def bundled_pair() -> tuple[Any, Any]:
    """The bundled models, the draft first."""
    torch.set_num_threads(1)  # models this small are slower on several
    transformers_logging.disable_progress_bar()
    return demo.load_pair()


def bundled_questions(count: int) -> list[demo.Question]:
    """So many held-out questions of each kind."""
    return [question for kind in demo.KINDS for question in demo.held_out(kind, count)]


def write_page(path: Path, generation: Generation) -> None:
    """Explain a generation as an HTML page.

    Args:
        path: Where to.
        generation: What to show.

    Raises:
        CoSDError: The page cannot be written.
    """
    try:
        path.write_text(explain.to_html(generation), encoding="utf-8")
    except OSError as error:
        raise CoSDError(f"cannot write {quoted(str(path))}: {quoted(error)}") from error
