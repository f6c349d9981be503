"""Runs the server: its socket, its start and its end."""

import asyncio
import math
import socket
from contextlib import suppress

import uvicorn

from cosd_core.errors import CoSDError, quoted
from cosd_core.serving.app import make_app
from cosd_core.serving.local_engine import LocalEngine
from cosd_core.serving.log import logger
from cosd_core.serving.options import ServerOptions
from cosd_core.serving.running import Running

_LAST_SECONDS = 5
"""After the grace period, for sending the last events."""


class Server(uvicorn.Server):
    """uvicorn's server over an engine, which lets the requests under way end before it ends itself."""

    def __init__(self, engine: LocalEngine, options: ServerOptions) -> None:
        """Prepare the server.

        Args:
            engine: Answers the requests.
            options: The options of the server.
        """
        self._options = options
        self._engine = engine
        self._running = Running(engine.max_requests)
        super().__init__(
            uvicorn.Config(
                make_app(engine, options, self._running),
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(options.shutdown_grace) + _LAST_SECONDS,
            )
        )

    def listen(self) -> socket.socket:
        """Open the port.

        Raises:
            CoSDError: That is not possible.
        """
        host, port = self._options.host, self._options.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family)
        except (OSError, UnicodeError) as error:
            raise CoSDError(f"cannot listen on host={quoted(host)}, port={port}: {quoted(error)}") from error

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and log where."""
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        fields = {"url": f"http://{address}", "model": self._options.name or self._engine.name}
        logger.info("listening", extra={"fields": fields})
        if not self._options.api_keys and not self._options.is_local:
            logger.warning("anyone who can reach this port can use the models: give --api-key")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests; give those under way the grace period, then end them."""
        logger.info("shutting down", extra={"fields": {"requests": len(self._running)}})
        ending = asyncio.ensure_future(self._running.end(self._options.shutdown_grace))
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            with suppress(asyncio.CancelledError):
                await ending

    def serve_forever(self) -> None:
        """Listen and answer until a signal ends the server; errors as in :meth:`listen`."""
        with self.listen() as opened:
            self.run(sockets=[opened])
