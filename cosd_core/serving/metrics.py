"""Counts and times for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from cosd_core.outputs import Generation

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self, running: Callable[[], int]) -> None:
        """Begin at zero; ``running`` returns the number of requests under way."""
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "cosd_requests", "Finished requests.", ["endpoint", "status"], registry=registry
        )
        self._seconds = Histogram(
            "cosd_request_seconds", "Time of a request.", ["endpoint"], buckets=_SECONDS, registry=registry
        )
        self._first = Histogram(
            "cosd_first_token_seconds", "Time to the first text.", buckets=_SECONDS, registry=registry
        )
        self._prompt = Counter("cosd_prompt_tokens", "Tokens of prompts.", registry=registry)
        self._written = Counter(
            "cosd_completion_tokens", "Tokens of finished texts.", ["source"], registry=registry
        )
        self._passes = Counter("cosd_passes", "Forward passes, per text.", ["model"], registry=registry)
        gauge = Gauge("cosd_requests_running", "Requests that are decoded or wait.", registry=registry)
        gauge.set_function(running)

    def add_request(self, endpoint: str, status: int, seconds: float, first: float | None) -> None:
        """Count a finished request; ``first`` is the time to its first text, if it had one."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)
        if first is not None:
            self._first.observe(first)

    def add_generation(self, generation: Generation) -> None:
        """Count a finished text."""
        self._prompt.inc(generation.prompt_tokens)
        by_assistants = sum(token.source == "assistant" for token in generation.tokens)
        self._written.labels("assistant").inc(by_assistants)
        self._written.labels("draft").inc(len(generation.tokens) - by_assistants)
        self._passes.labels("draft").inc(generation.stats.draft_passes)
        self._passes.labels("assistant").inc(generation.stats.assistant_passes)

    def exposed(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
