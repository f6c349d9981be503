"""The settings of one call of a framework's model."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from pydantic import BaseModel, Field, PrivateAttr, create_model

from cosd_core.errors import InvalidOptionError
from cosd_core.frontend.model_names import MODEL_SETTINGS, model_names
from cosd_core.frontend.serialization import to_jsonable
from cosd_core.frontend.settings import METHOD_SETTINGS, Settings, SettingsFields
from cosd_core.options import ChatOptions, LoadingOptions, Options, unknown_option

LOADING_SETTINGS = frozenset((*LoadingOptions.model_fields, *MODEL_SETTINGS))
"""The settings that are read when models are loaded, so that a call cannot change them."""

_METHOD_SETTINGS = frozenset(METHOD_SETTINGS)
_NOT_IDENTIFYING = frozenset(("token", "cache_dir", "timeout"))
"""The settings that do not change a text, or are secret."""


class CallFields(SettingsFields):
    """The fields of :class:`CallSettings`, constructor parameters of the frameworks' classes too."""

    timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which a call is given up. Loading models does not count; encoding the "
        "prompt does, and so does the time that the consumer of a stream takes.",
    )
    return_trace: bool = Field(default=False, description="Put the trace of every token into the result.")


class CallSettings(CallFields, Settings):
    """The settings of one call: those of the model, overridden by the options of the call."""

    _model_names: list[str] = PrivateAttr()
    _identity: Mapping[str, Any] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Describe the settings."""
        super().model_post_init(context)
        self._model_names = model_names({name: getattr(self, name) for name in MODEL_SETTINGS})
        names = [name for name in type(self).model_fields if name not in _NOT_IDENTIFYING]
        self._identity = {
            "model_name": self.model_name,
            **{name: to_jsonable(getattr(self, name)) for name in names},
            "verifier": to_jsonable(self._method["verifier"]),  # a tree by its nodes: the file may change
        }

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """The same settings with the options of a call, which are validated.

        Raises:
            InvalidOptionError: An option is unknown, out of range, or only read when models are loaded.
        """
        fields = type(self).model_fields
        for name in options:
            if name in LOADING_SETTINGS:
                raise InvalidOptionError(f"{name} is read when models are loaded: give it to the constructor")
            if name not in fields:
                known = [each for each in fields if each not in LOADING_SETTINGS]
                raise InvalidOptionError(unknown_option(name, known))
        if not _METHOD_SETTINGS.isdisjoint(options):
            return self.model_copy(update=options)
        # The method and the models stay, so only the options are validated.
        validated = _options_class(type(self))(**options)
        changes = {name: getattr(validated, name) for name in options}
        settings = BaseModel.model_copy(self, update=changes)
        described = {name: to_jsonable(value) for name, value in changes.items() if name in self._identity}
        settings._identity = {**self._identity, **described}
        return settings

    @property
    def model_names(self) -> list[str]:
        """The names of the models, the draft first."""
        return self._model_names

    @property
    def model_name(self) -> str:
        """The models in logs and traces: their names, joined by a plus sign."""
        return "+".join(self._model_names)

    @property
    def identity(self) -> Mapping[str, Any]:
        """All settings that determine a text, as plain JSON: part of the keys of caches."""
        return self._identity


@cache
def _options_class(kind: type[CallSettings]) -> type[Options]:
    """The options of a call that change neither the models nor the method, as a class."""
    fields = kind.model_fields
    names = [name for name in fields if name not in LOADING_SETTINGS | _METHOD_SETTINGS]
    options: dict[str, Any] = {name: (fields[name].annotation, fields[name]) for name in names}
    return create_model("CallOptions", __base__=Options, **options)


class ChatCallSettings(CallSettings, ChatOptions):
    """The settings of one call that continues a chat."""
