"""The server on Ray Serve: replicas of the app of ``cosd serve``, each with its own copy of the models.

::

    serve run cosd_core.serving.ray:app draft_model=org/a assistant_model=org/b max_replicas=4 num_gpus=1
"""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import Field, SecretStr
from starlette.types import ASGIApp

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.frontend.settings import Settings
from cosd_core.frontend.settings_file import merge_settings, read_settings
from cosd_core.frontend.text_values import value_of
from cosd_core.options import Options, unknown_option
from cosd_core.serving.options import ServerOptions
from cosd_core.utils import require_version

_OF_PROXY = ("host", "port")
"""The options of ``cosd serve`` that Ray Serve's proxy has in place of the replicas."""

_LISTS = ("api_keys", "allowed_hosts")
"""The options that hold several words, with spaces between if they are given as text."""

_BEYOND = 64
"""Requests to a replica beside those that it decodes or lets wait: ``/health`` and the like, and refusals."""


class ReplicaOptions(Options):
    """How many replicas Ray Serve runs, and what each of them needs. The names are those of Ray Serve.

    Raises:
        InvalidOptionError: A name is unknown, or a value of a wrong type or out of its range.
    """

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    target_ongoing_requests: float = Field(default=32.0, gt=0, allow_inf_nan=False)
    num_cpus: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    num_gpus: float = Field(default=0.0, ge=0, allow_inf_nan=False)

    def model_post_init(self, context: Any) -> None:
        """Refuse bounds that contradict each other."""
        super().model_post_init(context)
        if self.min_replicas > self.max_replicas:
            raise InvalidOptionError(
                f"min_replicas={self.min_replicas} is more than max_replicas={self.max_replicas}"
            )

    def deployment(self) -> dict[str, Any]:
        """The options as arguments of ``serve.deployment``."""
        scaling = ("min_replicas", "max_replicas", "target_ongoing_requests")
        return {
            "autoscaling_config": {name: getattr(self, name) for name in scaling},
            "ray_actor_options": {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus},
        }


_FIELDS = {
    **Settings.model_fields,
    **{name: field for name, field in ServerOptions.model_fields.items() if name not in _OF_PROXY},
    **ReplicaOptions.model_fields,
}


def app(arguments: dict[str, Any]) -> Any:
    """The application builder for Ray Serve.

    Args:
        arguments: Fields of :class:`Settings`, of :class:`ServerOptions` without host and port, which are
            Ray's, and of :class:`ReplicaOptions`; and ``settings_file``, the path of a JSON file with
            settings. Texts are read by :func:`value_of`. Without ``api_keys`` those of ``COSD_API_KEY``
            apply.

    Returns:
        A ``ray.serve.Application``.

    Raises:
        InvalidOptionError: An argument is unknown or wrong.
        EvaluationFileError: The settings file cannot be read, or a setting in it is wrong.
        MissingExtraError: A package of the extra is missing.
    """
    require_version("ray", "2.60", extra="ray", user="replicas")
    from ray import serve

    settings, options, replicas = read_arguments(arguments)
    checked = Settings(**settings)

    def build() -> ASGIApp:
        """The app of one replica, in the replica's process; it loads the models."""
        from transformers.utils import logging as transformers_logging

        from cosd_core.serving.app import make_app
        from cosd_core.serving.local_engine import LocalEngine
        from cosd_core.serving.log import start_log
        from cosd_core.serving.running import Running

        start_log(messages=options.log_prompts)
        transformers_logging.disable_progress_bar()
        engine = LocalEngine(settings, options)
        return make_app(engine, options, Running(engine.max_requests))

    deployment = serve.deployment(
        serve.ingress(build)(),
        name="cosd",
        max_ongoing_requests=checked.max_concurrent + checked.max_waiting + _BEYOND,
        graceful_shutdown_timeout_s=options.shutdown_grace,
        **replicas.deployment(),
    )
    return deployment.bind()


def read_arguments(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], ServerOptions, ReplicaOptions]:
    """The settings, the options of the server and those of the replicas; errors as of :func:`app`."""
    values = dict(arguments)
    file = values.pop("settings_file", None)
    values = {name: _value(name, value) for name, value in values.items()}
    if "api_keys" not in values and (keys := os.environ.get("COSD_API_KEY", "").split()):
        values["api_keys"] = tuple(map(SecretStr, keys))

    def of(kind: type[Options]) -> dict[str, Any]:
        return {name: values[name] for name in values if name in kind.model_fields}

    settings = merge_settings(read_settings(file) if file is not None else {}, of(Settings))
    return settings, ServerOptions(**of(ServerOptions)), ReplicaOptions(**of(ReplicaOptions))


def _value(name: str, value: Any) -> Any:
    if name in _OF_PROXY:
        raise InvalidOptionError(f"{name}={quoted(value)} is an option of Ray Serve's proxy: set it there")
    if name not in _FIELDS:
        raise InvalidOptionError(unknown_option(name, ("settings_file", *_FIELDS)))
    if name in _LISTS:
        value = value.split() if isinstance(value, str) else value
        return tuple(value) if isinstance(value, list) else value
    return value_of(name, value, _FIELDS[name].annotation) if isinstance(value, str) else value
