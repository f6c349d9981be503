"""The answer to a request: the whole as JSON, or a stream of server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import uuid4

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cosd_core.serving.choices import Piece
from cosd_core.serving.errors import CLIENT_GONE, RequestError, client_gone, request_error
from cosd_core.serving.json_response import Json, error_response, json_bytes
from cosd_core.serving.log import logger
from cosd_core.serving.record import Record
from cosd_core.serving.requests import ChatRequest, TextRequest
from cosd_core.serving.responses import Usage
from cosd_core.serving.running import Running
from cosd_core.serving.work import Emit, Work

Run = Callable[[Emit[Piece]], Awaitable[None]]

_EVENT_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a proxy should pass every event on at once
]


class Answer(Response):
    """Does the work for a request, and answers it.

    The status is sent with the first text, so that a request that fails before has the status of its error;
    one that fails later ends with an event that holds the error. The work ends with the connection.
    """

    def __init__(self, request: TextRequest, run: Run, name: str, running: Running) -> None:
        """Prepare the answer.

        Args:
            request: The request.
            run: The work, which hands over chunks with their writers.
            name: The model's name.
            running: Counts the work.
        """
        super().__init__()
        self._request, self._run, self._running = request, run, running
        is_chat = isinstance(request, ChatRequest)
        self._object = "chat.completion" if is_chat else "text_completion"
        self._chunk_object = "chat.completion.chunk" if is_chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{uuid4().hex}",
            "created": int(time.time()),
            "model": name,
        }
        self._usage = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        self._record = Record.of(scope)
        self._record.stream = bool(self._request.stream)
        work: Work[Piece] = Work(self._run)
        watcher = asyncio.ensure_future(_stop_when_gone(receive, work))
        try:
            with self._running.counted(work):
                await self._answer(work, scope, receive, send)
        finally:
            watcher.cancel()
            await work.close()

    async def _answer(self, work: Work[Piece], scope: Scope, receive: Receive, send: Send) -> None:
        pieces = self._recorded(work)
        try:
            if not self._request.stream:
                response: Response = Json(await self._whole(pieces))
            else:
                first = await anext(pieces)
                await self._stream(first, pieces, send)
                return
        except Exception as error:
            failed = self._failed(error)
            self._record.status = failed.status
            response = error_response(failed)
        if self._record.status != CLIENT_GONE:
            await response(scope, receive, send)

    async def _recorded(self, work: Work[Piece]) -> AsyncIterator[Piece]:
        """The pieces, noted in the record."""
        async for writer, chunk in work:
            self._record.first_text = self._record.first_text or time.monotonic()
            if (generation := chunk.generation) is not None:
                self._record.generations.append(generation)
                if writer.index % (self._request.n or 1) == 0:  # the prompt of several choices counts once
                    self._usage["prompt_tokens"] += generation.prompt_tokens
                self._usage["completion_tokens"] += len(generation.token_ids)
                self._usage["total_tokens"] = self._usage["prompt_tokens"] + self._usage["completion_tokens"]
            yield writer, chunk

    async def _whole(self, pieces: AsyncIterator[Piece]) -> dict[str, Any]:
        finished = [
            (writer, chunk.generation) async for writer, chunk in pieces if chunk.generation is not None
        ]
        finished.sort(key=lambda each: each[0].index)
        choices = [writer.whole(generation) for writer, generation in finished]
        return {**self._head, "object": self._object, "choices": choices, "usage": self._usage}

    async def _stream(self, first: Piece, pieces: AsyncIterator[Piece], send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _EVENT_HEADERS})
        options = self._request.stream_options
        with_usage = options is not None and options.include_usage
        try:
            await _send_events(send, self._events(first, with_usage=with_usage))
            async for piece in pieces:
                await _send_events(send, self._events(piece, with_usage=with_usage))
            last = [self._chunk([]) | {"usage": self._usage}] if with_usage else []
        except Exception as error:
            last = [self._failed(error).to_dict()]
        if self._record.status != CLIENT_GONE:
            await _send_events(send, last, is_last=True)

    def _events(self, piece: Piece, *, with_usage: bool) -> list[dict[str, Any]]:
        writer, chunk = piece
        usage = {"usage": None} if with_usage else {}
        return [self._chunk([choice]) | usage for choice in writer.pieces(chunk)]

    def _chunk(self, choices: Sequence[Any]) -> dict[str, Any]:
        return {**self._head, "object": self._chunk_object, "choices": choices}

    def _failed(self, error: Exception) -> RequestError:
        failed = request_error(error, type(self._request).model_fields)
        if failed.status == 500:
            logger.error("failed", exc_info=error, extra={"fields": {"id": self._record.id}})
        if failed.status == CLIENT_GONE:
            self._record.status = CLIENT_GONE
        self._record.error = failed.code or failed.kind
        return failed


async def _stop_when_gone(receive: Receive, work: Work[Any]) -> None:
    """Stop the work when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass
    work.stop(client_gone())


async def _send_events(send: Send, values: Sequence[Any], *, is_last: bool = False) -> None:
    """Send values as server-sent events; ``[DONE]`` follows the last."""
    body = b"".join(b"data: %b\n\n" % json_bytes(value) for value in values)
    if is_last:
        body += b"data: [DONE]\n\n"
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": not is_last})
