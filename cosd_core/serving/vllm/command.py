"""The command that starts vLLM's OpenAI server over a pair, with the plugin."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from cosd_core.errors import InvalidOptionError, MissingExtraError
from cosd_core.serving.options import ServerOptions
from cosd_core.serving.vllm.settings import KEY, ServerSettings

_MODELS = ("draft_model", "assistant_model")
_OWN = ("host", "port", "name", "api_keys")
"""The options of the server that vLLM's has, too."""

_DEFAULTS = ServerOptions()
_DRAFT_LENGTH = 8


def server_command(
    settings: Mapping[str, Any], options: ServerOptions, arguments: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """The command line, and the variables that its environment has in addition.

    Args:
        settings: Names of the models, ``draft_length``, and fields of :class:`ServerSettings`.
        options: The address, the model's name and the key.
        arguments: Further arguments of vLLM's server.

    Raises:
        InvalidOptionError: vLLM has no such setting, or does not fuse these models.
        VerifierFileError: The tree cannot be read.
        MissingExtraError: vLLM is not installed.
    """
    draft, assistant = _pair(settings)
    fusing = {name: settings[name] for name in settings.keys() & ServerSettings.model_fields.keys()}
    others = settings.keys() - fusing.keys() - {*_MODELS, "draft_length"}
    others |= {name for name, value in options if value != getattr(_DEFAULTS, name)} - set(_OWN)
    if others:
        raise InvalidOptionError(
            f"{', '.join(sorted(others))}: the local engine alone has this; vLLM's options go into --vllm-arg"
        )
    if len(options.api_keys) > 1:
        raise InvalidOptionError(f"vLLM's server has one API key, not {len(options.api_keys)}")
    ServerSettings(**fusing)  # its errors come before vLLM's
    if find_spec("vllm") is None:
        raise MissingExtraError("vLLM is not installed: docs/vllm.md says how")
    speculation = {
        "method": "draft_model",
        "model": draft,
        "num_speculative_tokens": settings.get("draft_length", _DRAFT_LENGTH),
    }
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", assistant),
        *("--served-model-name", options.name or f"{draft}+{assistant}"),
        *("--host", options.host, "--port", str(options.port), "--enforce-eager"),
        *("--speculative-config", json.dumps(speculation)),
        *("--additional-config", json.dumps({KEY: fusing})),
        *arguments,
    ]
    # Not on the command line, which other users of the machine can read.
    variables = {}
    if options.api_keys:
        [key] = options.api_keys
        variables["VLLM_API_KEY"] = key.get_secret_value()
    if plugins := os.environ.get("VLLM_PLUGINS"):
        variables["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*plugins.split(","), "cosd"]))
    return command, variables


def _pair(settings: Mapping[str, Any]) -> tuple[str, str]:
    assistants = settings.get("assistant_model")
    assistants = assistants if isinstance(assistants, (list, tuple)) else [assistants]
    draft = settings.get("draft_model")
    if draft is None or len(assistants) != 1 or assistants[0] is None:
        raise InvalidOptionError("--engine vllm fuses a pair: name one draft and one assistant")
    return str(draft), str(assistants[0])
