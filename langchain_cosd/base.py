"""The base of both LangChain classes: the settings and calls of the core under LangChain's names."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseLanguageModel, LangSmithParams
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import get_config_list
from pydantic import Field, model_validator

from cosd_core import Generation, __version__
from cosd_core.frontend.call import Call, token_usage
from cosd_core.frontend.call_settings import CallSettings
from cosd_core.frontend.framework_model import FrameworkModel
from cosd_core.frontend.serialization import to_jsonable
from cosd_core.frontend.settings import SERVING_SETTINGS
from cosd_core.options import SECRET_OPTIONS, without_nones
from langchain_cosd.errors import langchain_errors

Stop = list[str] | None
Run = CallbackManagerForLLMRun | None
Configs = RunnableConfig | Sequence[RunnableConfig] | None
AsyncRun = AsyncCallbackManagerForLLMRun | None


class CoSDModel(FrameworkModel, BaseLanguageModel[Any]):
    """The settings of cosd as constructor parameters of a LangChain model.

    See :class:`FrameworkModel`. LangChain's classes allow unknown parameters, so a subclass repeats
    ``extra="forbid"``.
    """

    translated_errors: ClassVar[Callable[[], AbstractContextManager[None]]] = staticmethod(langchain_errors)

    top_logprobs: int | None = Field(
        default=None,
        ge=0,
        description="With logprobs: the most alternatives per token, of those that are known without further "
        "passes: the token itself and the other model's.",
    )

    _ls_model_type: ClassVar[Literal["llm", "chat"]] = "llm"

    @model_validator(mode="after")
    def _add_cosd_version(self) -> Self:
        self._add_version("langchain-cosd", __version__)
        return self

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """LangChain's ``dumps`` writes the settings, and ``loads`` makes the model again."""
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        """The name under which ``loads`` looks for the access token, which ``dumps`` leaves out."""
        return {"token": "HF_TOKEN"}

    def to_json(self) -> Any:
        """The settings for ``dumps``; what JSON cannot hold, such as a loaded model, stays as it is."""
        told: dict[str, Any] = dict(super().to_json())
        kwargs = {name: value for name, value in told["kwargs"].items() if name != "tree_path"}
        for name in CallSettings.model_fields.keys() & kwargs.keys() - set(SECRET_OPTIONS):
            kwargs[name] = to_jsonable(kwargs[name], lambda value, _: value)
        if self.tree_path is not None:  # by its nodes: the file may change
            kwargs["verifier"] = to_jsonable(self._settings.method()["verifier"])
        return {**told, "kwargs": kwargs}

    def configurable_fields(self, **fields: Any) -> Any:
        """:meth:`Runnable.configurable_fields`, which takes LangChain's names too."""
        return super().configurable_fields(
            **{self.aliases.get(name, name): field for name, field in fields.items()}
        )

    def batch(
        self, inputs: Any, config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Any:
        """:meth:`Runnable.batch`: one invocation per input, in threads that share batches.

        At most ``batch_size`` inputs are under way, or ``max_concurrency`` of the configuration.
        """
        configs = _limited(config, len(inputs), self._thread_limit(kwargs))
        model = self._sharing_batches()
        return Runnable.batch(model, inputs, configs, return_exceptions=return_exceptions, **kwargs)

    def batch_as_completed(
        self, inputs: Any, config: Any = None, *, return_exceptions: Any = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """:meth:`Runnable.batch_as_completed`, which shares batches as :meth:`batch`."""
        configs = _limited(config, len(inputs), self._thread_limit(kwargs))
        model = self._sharing_batches()
        yield from Runnable.batch_as_completed(
            model, inputs, configs, return_exceptions=return_exceptions, **kwargs
        )

    async def abatch(
        self, inputs: Any, config: Any = None, *, return_exceptions: bool = False, **kwargs: Any
    ) -> Any:
        """:meth:`batch` for asyncio; at most ``max_concurrent`` inputs are under way."""
        configs = _limited(config, len(inputs), self._settings_of(kwargs).max_concurrent)
        return await Runnable.abatch(self, inputs, configs, return_exceptions=return_exceptions, **kwargs)

    async def abatch_as_completed(
        self, inputs: Any, config: Any = None, *, return_exceptions: Any = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """:meth:`batch_as_completed` for asyncio."""
        configs = _limited(config, len(inputs), self._settings_of(kwargs).max_concurrent)
        async for answer in Runnable.abatch_as_completed(
            self, inputs, configs, return_exceptions=return_exceptions, **kwargs
        ):
            yield answer

    def _thread_limit(self, options: Mapping[str, Any]) -> int:
        """The most threads that share batches in a list call with these options."""
        settings = self._settings_of(options)
        return 1 if settings.deterministic else min(settings.batch_size, settings.max_concurrent)

    def _settings_of(self, options: Mapping[str, Any]) -> CallSettings:
        """The settings with those options of a call that say how many prompts are decoded together."""
        given = {name: value for name, value in options.items() if name in SERVING_SETTINGS}
        return self._settings.with_options(without_nones(CallSettings, given))

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        """The part of LangChain's cache keys that identifies the model."""
        return self._settings.identity

    def get_token_ids(self, text: str) -> list[int]:
        """The ids of a text's tokens, by the draft's tokenizer."""
        return self._decoder().draft.encode(text, add_special_tokens=False)

    def _with_stop(self, stop: Stop, options: Mapping[str, Any]) -> Self:
        """This model with the options of one call, of which LangChain passes ``stop`` separately."""
        if stop is not None and stop != list(self.stop):
            options = {**options, "stop": stop}
        return self._with_options(options) if options else self

    def _get_ls_params(self, stop: Any = None, **options: Any) -> LangSmithParams:
        """The parameters that LangSmith records of a call with these options, which are not validated yet."""
        settings, temperature = self._settings, options.get("temperature")
        max_tokens = options.get("max_tokens") or options.get("max_new_tokens") or settings.max_new_tokens
        params = LangSmithParams(
            ls_provider="cosd",
            ls_model_type=self._ls_model_type,
            ls_model_name=options.get("model") or settings.model_name,
            ls_temperature=settings.temperature if temperature is None else temperature,
            ls_max_tokens=max_tokens,
        )
        if stop := settings.stop if stop is None else stop:
            params["ls_stop"] = [stop] if isinstance(stop, str) else list(stop)
        return params


def _limited(config: Configs, inputs: int, limit: int) -> list[RunnableConfig]:
    """A configuration for each input; the first, which limits a list call, has a limit."""
    configs = get_config_list(config, inputs) if inputs else []
    if configs and configs[0].get("max_concurrency") is None:
        configs[0]["max_concurrency"] = limit
    return configs


def generation_info(call: Call, generation: Generation) -> dict[str, Any]:
    """The metadata of a generation, as plain JSON."""
    return {**call.info(generation), "token_usage": token_usage([generation])}
