"""The constructor parameters of the frameworks' classes, and the calls that are made with them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import ConfigDict, Field, PrivateAttr, SecretStr, ValidationError, model_validator

from cosd_core.decoder import CoSDDecoder
from cosd_core.errors import InvalidOptionError
from cosd_core.frontend.call import Call
from cosd_core.frontend.call_settings import LOADING_SETTINGS, CallFields, CallSettings
from cosd_core.frontend.decoder_cache import DecoderCache
from cosd_core.frontend.settings import Settings, modified
from cosd_core.models.base import BaseLanguageModel
from cosd_core.options import LoadingOptions, in_one_line, unknown_option, without_nones
from cosd_core.utils import Unloadable


class FrameworkModel(Unloadable, CallFields):
    """The settings of cosd as constructor parameters of a framework's class.

    Nothing is loaded before the first call. Instances that name the same models share one copy of the
    weights. A setting can be changed at any time; the next call honours it. As a context manager a model ends
    with :meth:`unload`.
    """

    model_config = ConfigDict(frozen=False, validate_assignment=True)

    aliases: ClassVar[Mapping[str, str]] = {"max_tokens": "max_new_tokens", "api_key": "token"}
    """The framework's names for settings that have transformers' names here."""

    translated_errors: ClassVar[Callable[[], AbstractContextManager[None]]] = staticmethod(nullcontext)
    """Makes a context that raises cosd's errors as the framework's classes, where it has some."""

    # A field, because LangChain makes configured copies by the constructor, from the fields.
    decoder_cache: DecoderCache = Field(
        default_factory=DecoderCache, exclude=True, repr=False, description="Internal."
    )
    _derived: tuple[tuple[Any, ...], CallSettings] | None = PrivateAttr(None)
    _share_batches: bool = PrivateAttr(False)  # of plain calls

    if TYPE_CHECKING:  # the aliases, for editors and type checkers
        max_tokens: int | None = 128
        # None means the default, and is never the value of these attributes.
        min_new_tokens: int | None = 0  # type: ignore[assignment]
        temperature: float | None = 0.0  # type: ignore[assignment]
        top_p: float | None = 1.0  # type: ignore[assignment]
        top_k: int | None = 0  # type: ignore[assignment]
        min_p: float | None = 0.0  # type: ignore[assignment]
        repetition_penalty: float | None = 1.0  # type: ignore[assignment]
        api_key: SecretStr | str | None = None
    else:
        max_tokens = property(attrgetter("max_new_tokens"), doc="Frameworks' name for ``max_new_tokens``.")
        api_key = property(attrgetter("token"), doc="Frameworks' name for ``token``.")

    @model_validator(mode="before")
    @classmethod
    def _resolve_aliases(cls, values: Any) -> Any:
        return cls._without_aliases(values) if isinstance(values, dict) else values

    def model_post_init(self, context: Any) -> None:
        """Refuse settings that contradict each other, before any model is loaded."""
        super().model_post_init(context)
        self._settings  # noqa: B018 - made here, so that it is checked

    def __setattr__(self, name: str, value: Any) -> None:
        name = self.aliases.get(name, name)
        if value is None and name in type(self).model_fields:
            value = type(self).model_fields[name].get_default(call_default_factory=True)
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise InvalidOptionError(in_one_line(error, type(self))) from None
        if name in LOADING_SETTINGS:  # release the models that are no longer named
            self.decoder_cache = DecoderCache()
            self._derived = None

    def __eq__(self, other: object) -> bool:
        """Compare the settings, whatever is loaded."""
        names = type(self).model_fields.keys() - {"decoder_cache"}
        return type(self) is type(other) and all(getattr(self, at) == getattr(other, at) for at in names)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Copy the settings and share the weights."""
        mutable = {name: value for name, value in self.__dict__.items() if isinstance(value, (dict, list))}
        return self.model_copy(update=_copied(mutable))

    def __getstate__(self) -> dict[Any, Any]:
        """Pickle the settings without the weights."""
        named = (self.draft_model, *self._source_settings().assistants)
        if objects := [source.name for source in named if isinstance(source, BaseLanguageModel)]:
            raise InvalidOptionError(
                f"{', '.join(objects)}: a model given as an object cannot be pickled; give its hub id or path"
            )
        # Not super(): LlamaIndex's method deletes from the object itself what cannot be pickled.
        state = LoadingOptions.__getstate__(self)
        return {**state, "__pydantic_private__": {**state["__pydantic_private__"], "_derived": None}}

    def unload(self) -> None:
        """Free the weights, also for the copies that LangChain and LlamaIndex make of this model.

        The next call loads them again. A model that was given as an object is released and stays as it is.

        Raises:
            ModelInUseError: A call is under way, or a stream is neither read to its end nor closed.
        """
        self.decoder_cache.unload()

    @property
    def model_name(self) -> str:
        """The models in logs and traces: their names, joined by a plus sign."""
        return self._source_settings().model_name

    @property
    def _settings(self) -> CallSettings:
        """The fields as one frozen value, made again only if a field or a tree file has changed."""
        names, values = self._setting_values()
        if self._derived is not None and self._derived[0] == values:
            return self._derived[1]
        given = self.model_fields_set
        settings = CallSettings(**{name: getattr(self, name) for name in names if name in given})
        self._derived = (_copied(values), settings)
        if self.decoder_cache.sources != (sources := settings.sources()):
            self.decoder_cache = DecoderCache(sources)
        return settings

    def _source_settings(self) -> Settings:
        """The settings that models are loaded by, valid even if other fields contradict each other."""
        given = self.model_fields_set & LOADING_SETTINGS
        return Settings(**{name: getattr(self, name) for name in given})

    def _setting_values(self) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """The names of the fields that are settings, and their values with the times of tree files."""
        names, getter = _setting_names(type(self))
        values = getter(self.__dict__)
        if self.tree_path:
            paths = self.tree_path if isinstance(self.tree_path, list) else [self.tree_path]
            values = (*values, *map(modified, paths))
        return names, values

    @classmethod
    def _without_aliases(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings under the core's names, without those whose None means the default."""
        values = dict(values)
        for alias, name in cls.aliases.items():
            if alias in values:
                if name in values:
                    raise InvalidOptionError(f"{alias} and {name} are the same option: give one")
                values[name] = values.pop(alias)
        return without_nones(cls, values)

    def _with_options(self, options: Mapping[str, Any]) -> Self:
        """This model if there are no options of the call, else a copy that has them as settings."""
        if not options:
            return self
        options = self._without_aliases(options)
        names, _ = _setting_names(type(self))
        for name in options:
            if name in LOADING_SETTINGS:
                raise InvalidOptionError(f"{name} is read when models are loaded: give it to the constructor")
            if name not in names:
                known = [each for each in names if each not in LOADING_SETTINGS]
                raise InvalidOptionError(unknown_option(name, known))
        settings = self._settings.with_options(options)
        other = self.model_copy(update={name: getattr(settings, name) for name in options})
        other._derived = (other._setting_values()[1], settings)
        return other

    def _call(self) -> Call:
        """A call with the current settings; settings that change later are for later calls."""
        return Call(self._settings, self.decoder_cache, type(self).translated_errors, self._share_batches)

    def _sharing_batches(self) -> Self:
        """A copy whose plain calls share batches when they are made by several threads at once."""
        copied = self.model_copy()
        copied._share_batches = True
        return copied

    def _decoder(self) -> CoSDDecoder:
        """The decoder of the current settings; the first call loads the models."""
        return self._call().decoder()


@cache
def _setting_names(kind: type[FrameworkModel]) -> tuple[tuple[str, ...], Callable[..., tuple[Any, ...]]]:
    """The names of the fields that are settings, and a function that takes their values from a dictionary."""
    names = tuple(name for name in CallSettings.model_fields if name in kind.model_fields)
    return names, itemgetter(*names)


def _copied(value: Any) -> Any:
    """The value, with copies of lists and dictionaries, which may be changed in place."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, (list, tuple)) else value
