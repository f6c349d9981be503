"""Who may ask, by which name, and how much: API keys, names of the host, and the size of bodies."""

from collections.abc import Sequence
from hashlib import sha256
from hmac import compare_digest
from urllib.parse import urlsplit

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cosd_core.errors import quoted
from cosd_core.serving.errors import RequestError
from cosd_core.serving.json_response import error_response

GUARDED = "/v1/"
"""The paths that need a key, if there are keys."""


class KeyCheck:
    """ASGI middleware that refuses requests of :data:`GUARDED` paths without one of the keys."""

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        """Wrap an app; without keys every request passes."""
        self._app = app
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        needs_key = self._digests and scope["type"] == "http" and scope["path"].startswith(GUARDED)
        if needs_key and not self._is_known(Headers(scope=scope).get("authorization", "")):
            error = RequestError(
                "this server needs an API key: Authorization: Bearer KEY",
                401,
                "authentication_error",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_known(self, authorization: str) -> bool:
        scheme, _, key = authorization.partition(" ")
        digest = _digest(key.strip())
        known = [compare_digest(digest, each) for each in self._digests]  # all of them, in constant time
        return scheme.lower() == "bearer" and any(known)


class HostCheck:
    """ASGI middleware that refuses requests which call the server by another name than its own."""

    def __init__(self, app: ASGIApp, names: frozenset[str] | None) -> None:
        """Wrap an app; without names every request passes."""
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and self._names is not None:
            host = Headers(scope=scope).get("host", "")
            if _host_name(host) not in self._names:
                message = f"this server is not called {quoted(host)}: give --allowed-host, or keys"
                await error_response(RequestError(message, 403, code="unknown_host"))(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _host_name(host: str) -> str | None:
    """The name in a ``Host`` header, in lower case and without the port; None if there is none."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class BodyLimit:
    """ASGI middleware that refuses bodies of too many bytes, by their length before they are read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        """Wrap an app."""
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._most:
            await error_response(_too_large(self._most))(scope, receive, send)
            return
        size = 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(413, str(_too_large(self._most)))
            return message

        await self._app(scope, receive_limited, send)


def _too_large(most: int) -> RequestError:
    return RequestError(f"the body has more than {most} bytes", 413, code="body_too_large")


def _digest(key: str) -> bytes:
    """A digest, so that a comparison shows not even the length of a key."""
    return sha256(key.encode("utf-8", "surrogateescape")).digest()
