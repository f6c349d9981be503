"""Helpers of the commands: settings from flags, and the bundled pair as the default."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from cosd_core import demo
from cosd_core.errors import InvalidOptionError
from cosd_core.evaluation import BUNDLED
from cosd_core.frontend.settings import Settings
from cosd_core.models.language_model import LanguageModel
from cosd_core.options import GenerationOptions
from cosd_core.utils import require_matplotlib

BUNDLED_TEMPLATE = "Q: {{ messages[-1].content }}{{ '' if messages[-1].content.endswith('?') else '?' }} A:"
"""The form of the questions that the bundled pair was trained on."""

_CHAT_WEIGHTS = Path(__file__).parents[2] / "examples" / "bundled_pairs" / "weights"
"""The bundled chat models, in the repository; the wheel is without them."""


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


def bundled_chat_settings() -> dict[str, Any]:
    """The settings of a bundled pair that chats: the chat models where they are, else the demo's pair."""
    if not _CHAT_WEIGHTS.is_dir():
        draft, assistant = load_bundled_pair()
        return {"draft_model": draft, "assistant_model": assistant, "chat_template": BUNDLED_TEMPLATE}
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    draft, assistant = (
        LanguageModel.from_pretrained(str(_CHAT_WEIGHTS / name), dtype="float32", device="cpu")
        for name in ("caller", "talker")
    )
    return {"draft_model": draft, "assistant_model": assistant, "alpha": 0.9}


def bundled_questions(count: int) -> list[demo.Question]:
    """Held-out questions for the bundled pair, ``count`` of each kind."""
    return [question for kind in demo.KINDS for question in demo.held_out(kind, count)]
