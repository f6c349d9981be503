"""Clients of one server at once: `python -m benchmarks.serve_load [--clients 64] [--seconds 60]`.

A process runs `cosd serve` over the bundled chat pair. Its clients, in this process, ask for completions and
chats, greedy and sampled, with tools, schemas, several choices, stop strings and settings of their own, whole
or as streams; some leave in the middle of a stream, and some requests are wrong. Every answer is compared
with that of the same request alone.

The exit status is 1 if an answer was another one, or if a request failed that should not.
"""

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

WEIGHTS = Path(__file__).parents[1] / "examples" / "bundled_pairs" / "weights"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_population",
        "parameters": {"type": "object", "properties": {"town": {"type": "string", "maxLength": 12}}},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
}
QUESTIONS = ("How many people live in town {}?", "Call Anna at {} o'clock.", "Who is {} years old?", "{} {}")
WRONG = {"max_tokens": 10**6}


def make_requests(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Paths and bodies, the same in every run."""
    numbers = random.Random(0)
    requests = []
    for number in range(count):
        question = numbers.choice(QUESTIONS).replace("{}", str(number))
        body: dict[str, Any] = {"max_tokens": numbers.choice((1, 8, 24, 64))}
        if number % 2:
            body |= {"temperature": 0.8, "seed": number, "top_p": numbers.choice((1.0, 0.9))}
        if number % 5 == 0:
            body |= {"stop": [" the", "\n"], "repetition_penalty": 1.1, "logprobs": 1}
        if number % 9 == 0:
            body |= {"n": 2, "temperature": 1, "seed": number}
        if number % 13 == 0:
            body |= {"alpha": 0.5}
        if number % 3 == 0:
            requests.append(("/v1/completions", {**body, "prompt": question}))
            continue
        body["messages"] = [{"role": "user", "content": question}]
        if body.pop("logprobs", None):
            body["logprobs"] = True
        if number % 4 == 0:
            body |= {"tools": [TOOL]}
        elif number % 7 == 0:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "person", "schema": SCHEMA},
            }
        requests.append(("/v1/chat/completions", body))
    return requests


@contextmanager
def served() -> Iterator[tuple[psutil.Process, str, str]]:
    """The process of a server, its address and its model's name."""
    # Prefix caches that are soon full, so that the memory does not grow with them.
    command = [
        *(sys.executable, "-m", "cosd_core", "serve", str(WEIGHTS / "caller"), str(WEIGHTS / "talker")),
        *("--alpha", "0.9", "--port", "0", "--prefix-cache-mb", "4", "--dtype", "float32"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        started = json.loads(process.stderr.readline())
        drain = asyncio.get_running_loop().run_in_executor(None, process.stderr.read)
        yield psutil.Process(process.pid), started["url"], started["model"]
        process.terminate()
        process.wait()
        drain.cancel()


class Load:
    """The load, and what came of it."""

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        """Prepare the requests."""
        self._client, self._model = client, model
        self.requests = make_requests(150)
        self.expected: list[Any] = []
        self.outcomes: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.first: list[float] = []
        self.tokens = 0

    async def ask_alone(self) -> None:
        """Ask for every answer alone."""
        self.expected = [await self._whole(path, body) for path, body in self.requests]

    async def run(self, clients: int, seconds: float) -> None:
        """So many clients ask, one request after another, for so long."""
        ends = time.monotonic() + seconds
        await asyncio.gather(*(self._ask_until(ends, random.Random(seed)) for seed in range(clients)))

    async def _ask_until(self, ends: float, numbers: random.Random) -> None:
        while time.monotonic() < ends:
            at = numbers.randrange(len(self.requests))
            path, body = self.requests[at]
            how = numbers.choices(("whole", "stream", "left", "wrong"), weights=(5, 5, 2, 1))[0]
            started = time.monotonic()
            try:
                if how == "wrong":
                    response = await self._client.post(path, json={**body, **WRONG, "model": self._model})
                    refused = response.status_code == 400
                    self.outcomes["refused as planned" if refused else "UNPLANNED answer"] += 1
                elif how == "left":
                    await self._streamed(path, body, most=numbers.randrange(3))
                    self.outcomes["left in the middle"] += 1
                else:
                    ask = self._whole if how == "whole" else self._streamed
                    self._compare(at, await ask(path, body))
                    self.seconds.append(time.monotonic() - started)
            except (httpx.HTTPError, RuntimeError) as error:
                self.outcomes[f"UNPLANNED {type(error).__name__}: {error}"] += 1

    def _compare(self, at: int, answer: Any) -> None:
        self.outcomes["as alone" if answer == self.expected[at] else "ANOTHER ANSWER"] += 1

    async def _whole(self, path: str, body: dict[str, Any]) -> list[Any]:
        response = await self._client.post(path, json={**body, "model": self._model})
        if response.status_code != 200:
            raise RuntimeError(response.text)
        answer = response.json()
        self.tokens += answer["usage"]["completion_tokens"]
        return [_written(choice, choice.get("message", choice)) for choice in answer["choices"]]

    async def _streamed(self, path: str, body: dict[str, Any], most: float = float("inf")) -> list[Any]:
        """The answer that a stream makes up; the reader leaves after ``most`` events."""
        asked = {**body, "model": self._model, "stream": True, "stream_options": {"include_usage": True}}
        started, events = time.monotonic(), 0
        choices: dict[int, dict[str, Any]] = {}
        async with self._client.stream("POST", path, json=asked) as response:
            if response.status_code != 200:
                raise RuntimeError(f"status {response.status_code}")
            async for line in response.aiter_lines():
                if not line or line == "data: [DONE]":
                    continue
                if not events:
                    self.first.append(time.monotonic() - started)
                events += 1
                if events > most:
                    break
                event = json.loads(line.removeprefix("data: "))
                if "error" in event:
                    raise RuntimeError(event["error"]["message"])
                for choice in event["choices"]:
                    _add(choices.setdefault(choice["index"], {}), choice)
                self.tokens += (event.get("usage") or {}).get("completion_tokens", 0)
        return [_written(each, each) for _, each in sorted(choices.items())]


def _add(whole: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece of a stream to the choice so far."""
    delta = piece.get("delta", piece)
    for key in ("text", "content"):
        if delta.get(key):
            whole[key] = whole.get(key, "") + delta[key]
    for call in delta.get("tool_calls", ()):
        calls = whole.setdefault("tool_calls", {})
        function = calls.setdefault(call["index"], {"name": "", "arguments": ""})
        for key, value in call["function"].items():
            function[key] += value
    whole["finish_reason"] = piece["finish_reason"]


def _written(choice: dict[str, Any], message: dict[str, Any]) -> tuple[Any, ...]:
    """The parts of a choice that are compared, whole or from a stream."""
    calls = message.get("tool_calls") or []
    functions = list(calls.values()) if isinstance(calls, dict) else [call["function"] for call in calls]
    return message.get("text") or message.get("content") or "", functions, choice["finish_reason"]


def _percentiles(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "not measured"
    quantiles = statistics.quantiles(seconds, n=100)
    return ", ".join(f"{quantiles[at - 1]:.2f} ({at}%)" for at in (50, 95, 99))


async def measure(clients: int, seconds: float) -> bool:
    """Run, print what came of it, and return whether all was as planned."""
    with served() as (process, url, model):
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=clients)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=120) as client:
            load = Load(client, model)
            await load.ask_alone()
            await load.run(clients, seconds / 6)  # the caches fill, and the heap takes its size
            before = process.memory_info().rss / 1e6
            load.outcomes.clear()
            load.seconds, load.first, load.tokens = [], [], 0
            started = time.monotonic()
            await load.run(clients, seconds)
            took = time.monotonic() - started
            after = process.memory_info().rss / 1e6
    for outcome, count in sorted(load.outcomes.items()):
        print(f"{count:8,} {outcome}")
    print(f"{clients} clients, {took:.0f} s: {load.outcomes.total() / took:.1f} requests per second")
    print(f"{load.tokens / took:,.0f} tokens per second in answers that were read to their end")
    print(f"seconds per answer: {_percentiles(load.seconds)}")
    print(f"seconds to the first text of a stream: {_percentiles(load.first)}")
    print(f"memory of the server: {before:,.0f} MB at the start, {after:,.0f} MB at the end")
    return not any(outcome.startswith(("ANOTHER", "UNPLANNED")) for outcome in load.outcomes)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    sys.exit(0 if asyncio.run(measure(options.clients, options.seconds)) else 1)


if __name__ == "__main__":
    main()
