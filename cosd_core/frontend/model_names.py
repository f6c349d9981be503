"""The settings that name the models, and the names of the models that they give."""

from collections.abc import Mapping
from typing import Any

from cosd_core.decoder import ModelSource
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.naming import with_adapter, without_adapter
from cosd_core.options import check_adapters

MODEL_SETTINGS = ("draft_model", "assistant_model", "draft_adapter", "assistant_adapter")
"""The settings that name the models."""


def assistant_sources(settings: Mapping[str, Any]) -> list[ModelSource]:
    """The assistants in the settings, as a list; empty if the settings name none."""
    assistants = settings.get("assistant_model", [])
    return assistants if isinstance(assistants, list) else [assistants]


def model_names(settings: Mapping[str, Any]) -> list[str]:
    """The name of every model in the settings, the draft first, as in :attr:`LanguageModel.name`.

    Raises:
        InvalidOptionError: The number of adapters differs from the number of assistants.
    """
    assistants = assistant_sources(settings)
    drafts = [settings["draft_model"]] if "draft_model" in settings else []
    adapters = [settings.get("draft_adapter")] * len(drafts)
    adapters += check_adapters(settings.get("assistant_adapter") if assistants else None, len(assistants))
    names = [
        each.name if isinstance(each, BaseLanguageModel) else str(each) for each in (*drafts, *assistants)
    ]
    return [with_adapter(name, adapter or None) for name, adapter in zip(names, adapters, strict=True)]


def settings_of_names(draft: str, assistant: str) -> dict[str, Any]:
    """The settings that name two models; the inverse of :func:`model_names`."""
    settings: dict[str, Any] = {}
    for role, name in (("draft", draft), ("assistant", assistant)):
        settings[f"{role}_model"], settings[f"{role}_adapter"] = without_adapter(name)
    return {name: value for name, value in settings.items() if value is not None}
