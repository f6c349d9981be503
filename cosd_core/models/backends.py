"""Which backend loads a model of a given name, and which loading options each backend has."""

from collections.abc import Collection, Sequence
from os import PathLike
from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.models.backend_options import LLAMA_CPP_OPTIONS, TRANSFORMERS_OPTIONS, given_options
from cosd_core.models.base import BaseLanguageModel
from cosd_core.models.gguf.files import is_gguf
from cosd_core.models.language_model import LanguageModel
from cosd_core.options import LoadingKwargs, LoadingOptions

_NOT_APPLICABLE: dict[bool, Collection[str]] = {True: TRANSFORMERS_OPTIONS, False: LLAMA_CPP_OPTIONS}
"""The options that do not apply, by whether a model is a GGUF file."""


def load_models(
    sources: Sequence[str | PathLike[str] | BaseLanguageModel],
    adapters: Sequence[str | PathLike[str] | None],
    loading: LoadingKwargs,
) -> list[BaseLanguageModel]:
    """Load the models that are named; loaded ones stay as they are.

    An option applies to the named models whose backend has it.

    Raises:
        InvalidOptionError: An adapter is given for a loaded model, or an option applies to no model.
        CoSDError: As :meth:`LanguageModel.from_pretrained` and :meth:`GGUFModel.from_pretrained`.
    """
    for at, (source, adapter) in enumerate(zip(sources, adapters, strict=True)):
        if adapter is not None and not isinstance(source, str | PathLike):
            option = "assistant_adapter" if at else "draft_adapter"
            raise InvalidOptionError(
                f"{option}={quoted(adapter)} given, but the model is loaded already: name its base"
            )
    _check_options(sources, LoadingOptions(**loading))  # type: ignore[arg-type]  # None: the default
    return [
        load_model(source, adapter=adapter, **loading) if isinstance(source, str | PathLike) else source
        for source, adapter in zip(sources, adapters, strict=True)
    ]


def load_model(
    source: str | PathLike[str], *, adapter: str | PathLike[str] | None = None, **loading: Any
) -> BaseLanguageModel:
    """Load a model by its backend, with the options that this backend has."""
    from_file = is_gguf(source)
    options = {name: value for name, value in loading.items() if name not in _NOT_APPLICABLE[from_file]}
    if not from_file:
        return LanguageModel.from_pretrained(source, adapter=adapter, **options)
    from cosd_core.models.gguf.model import GGUFModel  # imports what transformers models do not need

    return GGUFModel.from_pretrained(source, adapter=adapter, **options)


def _check_options(sources: Sequence[object], loading: LoadingOptions) -> None:
    """Refuse options that apply to none of the models."""
    given = given_options(loading)
    kinds = {is_gguf(source) for source in sources if isinstance(source, str | PathLike)}
    if given and not kinds:
        raise InvalidOptionError(f"{', '.join(sorted(given))} given, but every model is loaded already")
    for name in sorted(given):
        if kinds and all(name in _NOT_APPLICABLE[kind] for kind in kinds):
            what = "GGUF files alone" if name in LLAMA_CPP_OPTIONS else "models of transformers alone"
            raise InvalidOptionError(
                f"{name}={quoted(getattr(loading, name))} given, which applies to {what}, and no model is one"
            )
