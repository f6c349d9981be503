"""The settings of one call of a framework's model."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, Field, PrivateAttr, create_model

from cosd_core.errors import InvalidOptionError
from cosd_core.frontend.serialization import to_jsonable
from cosd_core.frontend.settings import METHOD_SETTINGS, MODEL_SETTINGS, Settings, SettingsFields
from cosd_core.options import SECRET_OPTIONS, ChatOptions, LoadingOptions, Options

LOADING_SETTINGS = frozenset((*LoadingOptions.model_fields, *MODEL_SETTINGS))
"""The settings that are read when models are loaded, so that a call cannot change them."""

_NOT_IDENTIFYING = frozenset((*SECRET_OPTIONS, "cache_dir", "timeout"))
"""The settings that do not change a text, or are secret."""


class CallFields(SettingsFields):
    """The fields of :class:`CallSettings` that the classes of all frameworks have."""

    timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds after which a call is given up. Loading models does not count; encoding the "
        "prompt does, and so does the time that the consumer of a stream takes.",
    )
    return_trace: bool = Field(
        default=False, description="Put the whole generation, with the trace of every token, into the result."
    )
    logprobs: bool = Field(
        default=False,
        description="Return every token's log probability by the model that wrote it, and that of the token "
        "it was preferred to.",
    )


class CallSettings(CallFields, ChatOptions, Settings):
    """The settings of one call: those of the model, overridden by the options of the call."""

    top_logprobs: int | None = Field(default=None, ge=0)
    system_prompt: str | None = None
    _identity: Mapping[str, Any] = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Describe the settings."""
        super().model_post_init(context)
        self._check_logprobs()
        names = [name for name in type(self).model_fields if name not in _NOT_IDENTIFYING]
        self._identity = {
            "model_name": self.model_name,
            **{name: to_jsonable(getattr(self, name)) for name in names},
            "verifier": to_jsonable(self._method["verifier"]),  # a tree by its nodes: the file may change
        }

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """The same settings with the options of a call, which are validated."""
        if not options.keys().isdisjoint(METHOD_SETTINGS):
            return self.model_copy(update=options)
        # The method and the models stay, so only the options are validated.
        validated = _OptionsOfACall(**options)
        changes = {name: getattr(validated, name) for name in options}
        settings = BaseModel.model_copy(self, update=changes)
        settings._check_logprobs()
        described = {name: to_jsonable(value) for name, value in changes.items() if name in self._identity}
        settings._identity = {**self._identity, **described}
        return settings

    def _check_logprobs(self) -> None:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidOptionError(f"top_logprobs={self.top_logprobs} needs logprobs=True")

    @property
    def identity(self) -> Mapping[str, Any]:
        """All settings that determine a text, as plain JSON: part of the keys of caches."""
        return self._identity


_fields: dict[str, Any] = {
    name: (field.annotation, field)
    for name, field in CallSettings.model_fields.items()
    if name not in LOADING_SETTINGS.union(METHOD_SETTINGS)
}
_OptionsOfACall = create_model("_OptionsOfACall", __base__=Options, **_fields)
