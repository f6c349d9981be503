"""Servers in a thread of the test, and the small pair that they serve."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier
from cosd_core.serving.local_engine import LocalEngine
from cosd_core.serving.options import ServerOptions
from cosd_core.serving.server import Server
from examples.bundled_pairs import load_chat_pair

HELLO = [{"role": "user", "content": "Hello"}]
POPULATION = {
    "type": "function",
    "function": {
        "name": "get_population",
        "description": "Look up the population of a town.",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string"}},
            "required": ["town"],
        },
    },
}
ASK_POPULATION = [{"role": "user", "content": "How many people live in Tamiro?"}]


@cache
def chat_pair() -> tuple[LanguageModel, LanguageModel]:
    """The bundled chat models."""
    return load_chat_pair()


@cache
def decoder() -> CoSDDecoder:
    """The decoder that the servers should answer like."""
    return CoSDDecoder(*chat_pair(), verifier=RuleVerifier(alpha=0.9))


@dataclass
class Running:
    """A server that answers."""

    server: Server
    url: str
    thread: threading.Thread
    name: str = "caller+talker"
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def post(self, path: str, **body: Any) -> httpx.Response:
        """The response to a request for this server's model."""
        return self.client.post(path, json={"model": self.name, **body})

    def running(self) -> int:
        """How many requests are decoded or wait, by the metrics."""
        text = self.client.get("/metrics").text
        return int(float(text.partition("\ncosd_requests_running ")[2].split()[0]))

    def wait_until(self, condition: Any) -> None:
        """Wait until a condition holds, at most ten seconds."""
        ends = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < ends, "it never held"
            time.sleep(0.01)

    def stop(self) -> None:
        """Shut it down, as a signal does."""
        self.server.should_exit = True


@contextmanager
def serving(settings: dict[str, Any] | None = None, **options: Any) -> Iterator[Running]:
    """A server of the bundled chat pair, with these settings and options, on a free port."""
    draft, assistant = chat_pair()
    given = {"draft_model": draft, "assistant_model": assistant, "alpha": 0.9, **(settings or {})}
    chosen = ServerOptions(**{"port": 0, **options})
    with LocalEngine(given, chosen) as engine:
        server = Server(engine, chosen)
        opened = server.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        running = Running(server, f"http://127.0.0.1:{opened.getsockname()[1]}", thread)
        try:
            running.wait_until(lambda: server.started)
            yield running
        finally:
            running.client.close()
            running.stop()
            thread.join()
            opened.close()
