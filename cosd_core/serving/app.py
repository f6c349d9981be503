"""The endpoints of the server."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from cosd_core._version import __version__
from cosd_core.errors import quoted
from cosd_core.serving.access import BodyLimit, HostCheck, KeyCheck
from cosd_core.serving.answer import Answer, Run
from cosd_core.serving.errors import RequestError, request_error
from cosd_core.serving.json_response import error_response
from cosd_core.serving.local_engine import LocalEngine
from cosd_core.serving.metrics import CONTENT_TYPE, Metrics
from cosd_core.serving.options import ServerOptions
from cosd_core.serving.page import add_page
from cosd_core.serving.record import Record, Recorder
from cosd_core.serving.requests import ChatRequest, CompletionRequest, TextRequest
from cosd_core.serving.responses import (
    ChatCompletion,
    Completion,
    ErrorResponse,
    Health,
    Model,
    ModelList,
)
from cosd_core.serving.running import Running
from cosd_core.serving.validation import validation_error

ENDPOINTS = frozenset(("/v1/models", "/v1/completions", "/v1/chat/completions", "/health", "/metrics"))

_EVENTS: dict[str, Any] = {"content": {"text/event-stream": {}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        400: "A parameter is wrong",
        401: "The API key is missing or wrong",
        404: "There is no such model",
        413: "The body is too large",
        429: "Too many requests wait",
        500: "The server has failed",
        503: "The server is shutting down",
        504: "The answer took too long",
    }.items()
}


def make_app(engine: LocalEngine, options: ServerOptions, running: Running) -> ASGIApp:
    """The server as an ASGI app.

    Args:
        engine: Answers the requests.
        options: The options of the server.
        running: Counts the requests.
    """
    api = FastAPI(title="cosd", version=__version__, docs_url=None, redoc_url=None)
    name = engine.name if options.name is None else options.name
    metrics = Metrics(running.__len__)
    guarded = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False))] if options.api_keys else [])
    _add_texts(guarded, engine, name, options, running)
    _add_models(guarded, name)
    api.include_router(guarded)
    _add_service(api, metrics)
    add_page(api, name)
    api.add_exception_handler(RequestValidationError, _refuse_invalid)
    api.add_exception_handler(HTTPException, _refuse)
    api.add_exception_handler(RequestError, _refuse_request)
    api.add_exception_handler(Exception, _fail)
    app: ASGIApp = BodyLimit(api, options.max_body_bytes)
    app = KeyCheck(app, options.api_keys)
    app = HostCheck(app, options.host_names())
    return Recorder(app, metrics, ENDPOINTS, texts=options.log_prompts)


def _add_texts(
    api: APIRouter, engine: LocalEngine, name: str, options: ServerOptions, running: Running
) -> None:
    """Add the endpoints that write texts."""

    def answer(body: TextRequest, request: Request, run: Run) -> Response:
        try:
            _check_model(body.model, name)
            running.check()
            _check_limit(body, options.max_tokens_limit)
        except Exception as error:
            return error_response(request_error(error))
        if options.log_prompts:
            prompt = body.model_dump(include={"prompt", "messages"}, exclude_none=True)
            Record.of(request.scope).prompt = prompt
        return Answer(body, run, name, running)

    @api.post(
        "/v1/completions",
        response_model=None,
        responses={200: {"model": Completion, **_EVENTS}, **_ERRORS},
    )
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Complete one prompt or several."""
        return answer(body, request, lambda emit: engine.complete(body, emit))

    @api.post(
        "/v1/chat/completions",
        response_model=None,
        responses={200: {"model": ChatCompletion, **_EVENTS}, **_ERRORS},
    )
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Continue a chat."""
        return answer(body, request, lambda emit: engine.chat(body, emit))


def _add_models(api: APIRouter, name: str) -> None:
    """Add the endpoints that name the model."""
    model = Model(id=name, object="model", created=int(time.time()), owned_by="cosd")

    @api.get("/v1/models", response_model=ModelList)
    async def models() -> Any:
        """The one model, which is the pair."""
        return ModelList(object="list", data=[model])

    @api.get("/v1/models/{name:path}", response_model=Model, responses={404: _ERRORS[404]})
    async def one_model(requested: Annotated[str, Path(alias="name")]) -> Any:
        """The model of that name."""
        _check_model(requested, name)
        return model


def _add_service(api: FastAPI, metrics: Metrics) -> None:
    """Add the endpoints on the server itself."""

    @api.get("/health", response_model=Health)
    async def health() -> Any:
        """Whether the server answers."""
        return Health(status="ok")

    @api.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def exposed_metrics() -> Response:
        """Counts and times, for Prometheus."""
        return Response(metrics.exposed(), headers={"content-type": CONTENT_TYPE})


def _check_model(requested: str, name: str) -> None:
    if requested != name:
        message = f"there is no model {quoted(requested)}: this server has {name}"
        raise RequestError(message, 404, code="model_not_found", param="model")


def _check_limit(body: TextRequest, limit: int | None) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        if limit is not None and (getattr(body, field, None) or 0) > limit:
            raise RequestError(
                f"{field}={getattr(body, field)} exceeds the limit of this server, {limit}", param=field
            )


async def _refuse_invalid(_: Request, error: Any) -> Response:
    return error_response(validation_error(error.errors(), error.body))


async def _refuse(_: Request, error: Any) -> Response:
    headers = error.headers or {}
    return error_response(RequestError(str(error.detail), error.status_code, headers=headers))


async def _refuse_request(_: Request, error: Any) -> Response:
    return error_response(error)


async def _fail(_: Request, error: Exception) -> Response:
    return error_response(request_error(error))
