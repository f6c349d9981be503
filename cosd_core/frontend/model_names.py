"""The names and sources of the models that settings name."""

from collections.abc import Mapping
from typing import Any

from cosd_core.decoder import ModelSource
from cosd_core.models.base import BaseLanguageModel, with_adapter, without_adapter
from cosd_core.models.loading import display_name, resolve_source
from cosd_core.options import check_adapters


def assistant_sources(settings: Mapping[str, Any]) -> list[ModelSource]:
    """The assistants in the settings, as a list; empty if the settings name none."""
    assistants = settings.get("assistant_model", [])
    return assistants if isinstance(assistants, list) else [assistants]


def model_names(settings: Mapping[str, Any]) -> list[str]:
    """The name of every model in the settings, the draft first, as in :attr:`LanguageModel.name`."""
    return [
        with_adapter(
            source.name if isinstance(source, BaseLanguageModel) else display_name(str(source)),
            display_name(adapter) if adapter else None,
        )
        for source, adapter in _sources_and_adapters(settings)
    ]


def model_sources(settings: Mapping[str, Any]) -> list[str]:
    """The hub id or path of every model in the settings, as in :attr:`LanguageModel.source`."""
    return [
        with_adapter(
            source.source or source.name
            if isinstance(source, BaseLanguageModel)
            else resolve_source("model", source),
            resolve_source("adapter", adapter) if adapter else None,
        )
        for source, adapter in _sources_and_adapters(settings)
    ]


def _sources_and_adapters(settings: Mapping[str, Any]) -> list[tuple[ModelSource, str | None]]:
    assistants = assistant_sources(settings)
    drafts = [settings["draft_model"]] if "draft_model" in settings else []
    adapters = [settings.get("draft_adapter")] * len(drafts)
    adapters += check_adapters(settings.get("assistant_adapter") if assistants else None, len(assistants))
    return list(zip((*drafts, *assistants), adapters, strict=True))


def settings_of_names(draft: str, *assistants: str) -> dict[str, Any]:
    """The settings that name models; the inverse of :func:`model_sources`. A single assistant is no list."""
    settings: dict[str, Any] = {}
    settings["draft_model"], settings["draft_adapter"] = without_adapter(draft)
    names, adapters = zip(*map(without_adapter, assistants), strict=True)
    settings["assistant_model"] = names[0] if len(names) == 1 else list(names)
    settings["assistant_adapter"] = (
        adapters[0] if len(names) == 1 else list(adapters) if any(adapters) else None
    )
    return {name: value for name, value in settings.items() if value is not None}
