"""Facts about a model that are found without loading it."""

from os import PathLike

from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.loading import has_chat_template, known_config, resolve_source
from cosd_core.models.traits import context_length
from cosd_core.options import LoadingOptions


def known_context_length(
    source: str | PathLike[str] | BaseLanguageModel, options: LoadingOptions
) -> int | None:
    """The context window of a model in tokens; None if it has none, or its files are not on this machine."""
    if isinstance(source, BaseLanguageModel):
        return source.context_length
    config = known_config(resolve_source("name", source), options)
    return None if config is None else context_length(config)


def known_to_chat(
    source: str | PathLike[str] | BaseLanguageModel, options: LoadingOptions, *, adapter: str | None = None
) -> bool | None:
    """Whether a model has a chat template; None if its files are not on this machine."""
    if isinstance(source, BaseLanguageModel):
        return bool(source.tokenizer.chat_template)
    if adapter is not None:
        own = options.model_copy(update={"revision": None, "subfolder": ""})
        if (found := has_chat_template(resolve_source("adapter", adapter), own)) is not None:
            return found
    return has_chat_template(resolve_source("name", source), options)
