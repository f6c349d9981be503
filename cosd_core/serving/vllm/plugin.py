"""The plugin as vLLM loads it: an entry point of ``vllm.general_plugins``.

vLLM calls :func:`register` in each of its processes. Nothing changes for engines without the entry ``cosd``
in their ``additional_config``.
"""

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cosd_core.errors import CoSDError
from cosd_core.serving.vllm.configuration import check_configuration, choose_classes
from cosd_core.serving.vllm.hooks import check_hooks
from cosd_core.serving.vllm.requests import check_request
from cosd_core.serving.vllm.settings import ServerSettings


def register() -> None:
    """Let vLLM ask us when an engine is configured, and when a request comes."""
    from vllm.engine.arg_utils import EngineArgs

    _wrap(EngineArgs, "create_engine_config", _configuring)
    with suppress(ImportError, AttributeError):  # an engine that asks for cosd will be refused: check_hooks
        from vllm.v1.engine.input_processor import InputProcessor

        _wrap(InputProcessor, "_validate_params", _validating)


def _wrap(owner: type, name: str, wrapper: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, "_cosd_wraps"):  # vLLM may load plugins several times
        wrapped: Any = functools.wraps(original)(wrapper(original))
        wrapped._cosd_wraps = original
        setattr(owner, name, wrapped)


def _configuring(original: Callable[..., Any]) -> Callable[..., Any]:
    def create_engine_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        if ServerSettings.of(self.additional_config) is None:
            return original(self, *args, **kwargs)
        check_hooks()
        choose_classes(self)
        config = original(self, *args, **kwargs)
        check_configuration(config)
        return config

    return create_engine_config


def _validating(original: Callable[..., Any]) -> Callable[..., Any]:
    def _validate_params(self: Any, params: Any, *args: Any, **kwargs: Any) -> Any:
        resolved = original(self, params, *args, **kwargs)
        settings = _settings(self)
        if settings is not None:
            try:
                settings.verifier_for(params.extra_args)
                check_request(params, self.vllm_config.structured_outputs_config.reasoning_parser)
            except CoSDError as error:
                raise _refusal(error) from error
        return resolved

    return _validate_params


def _settings(processor: Any) -> ServerSettings | None:
    """The settings of a server, read once."""
    if not hasattr(processor, "_cosd_settings"):
        processor._cosd_settings = ServerSettings.of(processor.vllm_config.additional_config)
    found: ServerSettings | None = processor._cosd_settings
    return found


def _refusal(error: CoSDError) -> Exception:
    """The error for which vLLM's server answers with status 400, and its engine goes on."""
    from vllm.exceptions import VLLMValidationError

    refusal: Exception = VLLMValidationError(str(error))
    return refusal
