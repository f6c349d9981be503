"""What is recorded of every request, for the log and the metrics."""

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cosd_core.outputs import Generation
from cosd_core.serving.log import logger
from cosd_core.serving.metrics import Metrics

_KEY = "cosd.record"
"""The key of the record in a request's scope."""


@dataclass
class Record:
    """One request.

    Attributes:
        status: The HTTP status; 499 if the client has disconnected.
        error: The code or the type of the error that ended a stream.
        first_text: When the first text was there.
    """

    id: str = field(default_factory=lambda: uuid4().hex)
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    error: str | None = None
    first_text: float | None = None
    stream: bool | None = None
    prompt: Any = None
    generations: list[Generation] = field(default_factory=list)

    @classmethod
    def of(cls, scope: Scope) -> "Record":
        """The record of a request."""
        record: Record = scope[_KEY]
        return record

    def fields(self, *, texts: bool) -> dict[str, Any]:
        """The fields of the log; with ``texts`` the prompt and the texts, too."""
        now = time.monotonic()
        fields: dict[str, Any] = {
            "id": self.id,
            "status": self.status,
            "seconds": _rounded(now - self.started),
        }
        if self.error is not None:
            fields["error_code"] = self.error
        if self.stream is not None:
            first = self.first_text and _rounded(self.first_text - self.started)
            counts = {
                "prompt_tokens": sum(each.prompt_tokens for each in self.generations),
                "completion_tokens": sum(len(each.tokens) for each in self.generations),
            }
            fields |= {"stream": self.stream, "first_text_seconds": first, **counts}
        if texts and self.prompt is not None:
            fields |= {"prompt": self.prompt, "texts": [each.text for each in self.generations]}
        return fields


class Recorder:
    """ASGI middleware that records every request, logs it and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics, endpoints: frozenset[str], *, texts: bool) -> None:
        """Wrap an app.

        Args:
            app: The app.
            metrics: Receive the counts.
            endpoints: The paths that are counted one by one; all others are one.
            texts: Whether prompts and texts are logged.
        """
        self._app, self._metrics, self._endpoints, self._texts = app, metrics, endpoints, texts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[_KEY] = record = Record()

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = record.status or message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", record.id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        finally:
            self._finish(scope, record)

    def _finish(self, scope: Scope, record: Record) -> None:
        record.status = record.status or 500
        path, method = scope["path"], scope["method"]
        now = time.monotonic()
        first = record.first_text and record.first_text - record.started
        endpoint = path if path in self._endpoints else "other"
        self._metrics.add_request(endpoint, record.status, now - record.started, first)
        for generation in record.generations:
            self._metrics.add_generation(generation)
        fields = {"method": method, "path": path, **record.fields(texts=self._texts)}
        logger.info("request", extra={"fields": fields})


def _rounded(seconds: float) -> float:
    return round(seconds, 4)
