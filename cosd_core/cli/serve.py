"""``cosd serve``: an HTTP server with the interface of OpenAI's API."""

import os
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from pydantic import SecretStr
from transformers.utils import logging as transformers_logging

from cosd_core.cli.flags import ANSWER_LIMIT, with_settings
from cosd_core.cli.shared import bundled_chat_settings, make_settings, names_models
from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.frontend.settings import VERIFIER_OF_SETTING, Settings
from cosd_core.serving.options import ServerOptions
from cosd_core.serving.vllm.command import server_command
from cosd_core.utils import require_version

_DEFAULTS = ServerOptions()


class Engine(StrEnum):
    """The program that decodes."""

    LOCAL = "local"
    VLLM = "vllm"


_PACKAGES = {"fastapi": "0.115", "prometheus_client": "0.20", "uvicorn": "0.30"}
"""The packages of the extra, with their oldest releases that work."""


@with_settings(max_new_tokens=ANSWER_LIMIT)
def run_serve(
    models: Annotated[
        list[str] | None,
        typer.Argument(help="The draft, then the assistants, in place of --draft and --assistant."),
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(help="local: in this process. vllm: vLLM's own server with the plugin, for a pair."),
    ] = Engine.LOCAL,
    vllm_arg: Annotated[
        list[str] | None,
        typer.Option(
            help="vllm: an argument of its server, such as --vllm-arg=--max-model-len=4096. Several."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0: all of them.")
    ] = _DEFAULTS.host,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = _DEFAULTS.port,
    name: Annotated[
        str | None, typer.Option(help="The model's name in requests. Default: the models' names.")
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="COSD_API_KEY",
            help="A key that requests need. Several are possible, also in COSD_API_KEY, with spaces between.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name by which requests may call the server. Several are possible. Default: any; without "
            "keys on a local address its local names."
        ),
    ] = None,
    max_body_bytes: Annotated[
        int, typer.Option(min=1, help="The most bytes of a request.")
    ] = _DEFAULTS.max_body_bytes,
    max_tokens_limit: Annotated[
        int | None, typer.Option(min=1, help="The most tokens of a text that a request can ask for.")
    ] = None,
    request_timeout: Annotated[
        float | None, typer.Option(help="Seconds after which a request fails. Default: never.")
    ] = None,
    shutdown_grace: Annotated[
        float, typer.Option(min=0, help="Seconds that a shutdown gives requests to end.")
    ] = _DEFAULTS.shutdown_grace,
    log_prompts: Annotated[bool, typer.Option("--log-prompts", help="Log prompts and texts, too.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Answer the requests of OpenAI's clients over HTTP, with a page to try the pair.

        cosd serve org/a-chat org/b-chat --port 8000

    Endpoints are /v1/chat/completions, /v1/completions, /v1/models, /health, /metrics, and the page at /.
    The log is JSON lines on standard error, without prompts and texts. Without models a bundled pair answers.
    Ctrl-C or SIGTERM ends the server when the requests under way are done, at most --shutdown-grace later.
    """
    options = ServerOptions(
        host=host,
        port=port,
        name=name,
        api_keys=tuple(map(SecretStr, api_key or ())),
        allowed_hosts=tuple(allowed_host or ()),
        max_body_bytes=max_body_bytes,
        max_tokens_limit=max_tokens_limit,
        request_timeout=request_timeout,
        shutdown_grace=shutdown_grace,
        log_prompts=log_prompts,
    )
    if engine is Engine.VLLM:
        _become_vllm(models or [], settings, options, vllm_arg or [])
    if vllm_arg:
        raise InvalidOptionError(f"--vllm-arg={vllm_arg[0]} is for --engine vllm")
    settings = _with_models(models or [], settings)
    for package, oldest in _PACKAGES.items():
        require_version(package, oldest, extra="serve", user="servers")
    from cosd_core.serving.local_engine import LocalEngine
    from cosd_core.serving.log import start_log
    from cosd_core.serving.server import Server

    make_settings({name: settings[name] for name in settings.keys() & Settings.model_fields.keys()})
    start_log(messages=log_prompts)
    transformers_logging.disable_progress_bar()  # the log is JSON
    with LocalEngine(settings, options) as local:
        Server(local, options).serve_forever()


def _become_vllm(
    models: list[str], settings: dict[str, Any], options: ServerOptions, arguments: list[str]
) -> NoReturn:
    """Replace this process by vLLM's server."""
    named = _with_models(models, settings) if models else settings
    command, variables = server_command(named, options, arguments)
    os.execve(command[0], command, {**os.environ, **variables})


def _with_models(models: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the models of the arguments, or a bundled pair if nothing names a model."""
    if not models:
        if names_models(settings):
            return settings
        bundled = bundled_chat_settings()
        if {"verifier", *VERIFIER_OF_SETTING} & settings.keys():
            bundled.pop("alpha", None)
        return {**bundled, **settings}
    if names_models(settings):
        raise InvalidOptionError("the arguments name models, and so do --draft, --assistant or the settings")
    if len(models) < 2:
        raise InvalidOptionError(f"{quoted(models[0])} is the draft: name an assistant, too")
    return {**settings, "draft_model": models[0], "assistant_model": models[1:]}
