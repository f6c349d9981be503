"""What both LangChain classes share: the core's front with LangChain's names."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from langchain_core.language_models import BaseLanguageModel, LangSmithParams
from pydantic import Field, SecretStr, model_validator

from cosd_core import Generation, __version__
from cosd_core.frontend.framework_model import FrameworkModel, usage
from langchain_cosd.errors import langchain_errors


class CoSDModel(FrameworkModel, BaseLanguageModel[Any]):
    """The settings of cosd as constructor parameters of a LangChain model.

    See :class:`FrameworkModel`. LangChain's classes allow unknown parameters, so a subclass repeats
    ``extra="forbid"``.
    """

    aliases: ClassVar[Mapping[str, str]] = {**FrameworkModel.aliases, "api_key": "token"}

    max_retries: int = Field(
        default=2, ge=0, description="Has no effect: there is no connection that could fail."
    )

    if TYPE_CHECKING:  # LangChain's names, for editors and type checkers
        api_key: SecretStr | str | None = None

    @model_validator(mode="after")
    def _add_cosd_version(self) -> Self:
        self._add_version("langchain-cosd", __version__)
        return self

    def configurable_fields(self, **fields: Any) -> Any:
        """:meth:`Runnable.configurable_fields`, which takes LangChain's names too."""
        return super().configurable_fields(
            **{self.aliases.get(name, name): field for name, field in fields.items()}
        )

    @staticmethod
    def _translated_errors() -> AbstractContextManager[None]:
        return langchain_errors()

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """What LangChain's caches tell models apart by."""
        return self._identity()

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, by the pair's own tokenizer."""
        return self._decoder().draft.encode(text, add_special_tokens=False)

    def _with_stop(self, stop: list[str] | None, options: Mapping[str, Any]) -> Self:
        """This model with the options of one call, among which LangChain sets ``stop`` apart."""
        return self._with_options(options if stop is None else {**options, "stop": stop})

    def _tracing_params(self, kind: Literal["llm", "chat"], named: Any) -> LangSmithParams:
        """What LangSmith is told of a model; ``named`` is the name that a call gives it, if any."""
        params = LangSmithParams(
            ls_provider="cosd",
            ls_model_type=kind,
            ls_model_name=named or self.model_name,
            ls_temperature=self.temperature,
            ls_max_tokens=self.max_new_tokens,
        )
        if self.stop:
            params["ls_stop"] = list(self.stop)
        return params

    def _info(self, generation: Generation) -> dict[str, Any]:
        return {**super()._info(generation), "token_usage": usage([generation])}
