"""Keys, sizes, places, times and ends: what a server refuses, and that work ends with its reader."""

import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from cosd_core.errors import CoSDError
from cosd_core.serving.log import JsonLines
from cosd_core.serving.options import ServerOptions
from tests.serving.servers import HELLO, Running, serving

LONG: dict[str, Any] = {"prompt": "The town of", "max_tokens": 1500, "min_new_tokens": 1500}
SHORT: dict[str, Any] = {"prompt": "The town of", "max_tokens": 4}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    limits = {"max_body_bytes": 2000, "max_tokens_limit": 1600, "request_timeout": 60.0}
    keys = (SecretStr("first"), SecretStr("second"))
    with serving({"max_concurrent": 1, "max_waiting": 1}, api_keys=keys, **limits) as running:
        running.client.headers["authorization"] = "Bearer second"
        yield running


@pytest.fixture(scope="module")
def local() -> Iterator[Running]:
    with serving() as running:
        yield running


@contextmanager
def long_stream(server: Running) -> Iterator[Iterator[str]]:
    """The events of a text that takes seconds, of which the first is there."""
    asked = {"model": server.name, **LONG, "stream": True}
    with server.client.stream("POST", "/v1/completions", json=asked) as response:
        assert response.status_code == 200
        events = (line.removeprefix("data: ") for line in response.iter_lines() if line)
        next(events)
        yield events


def failed(response: httpx.Response, status: int, code: str | None) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    return error


@pytest.mark.parametrize("header", [None, "Bearer third", "Bearer", "Basic first", "first", "Bearer \xfc"])
def test_without_a_key_nothing_is_answered_but_the_page_and_the_state(server: Running, header: Any) -> None:
    with httpx.Client(base_url=server.url) as client:
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        for path in ("/v1/models", "/v1/models/x", "/v1/nothing"):
            failed(client.get(path, headers=headers), 401, "invalid_api_key")
        response = client.post("/v1/completions", json={"model": server.name, **SHORT}, headers=headers)
        failed(response, 401, "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
        for path in ("/health", "/metrics"):
            assert client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_a_local_server_without_keys_has_local_names_alone(
    local: Running, server: Running, host: str, status: int
) -> None:
    response = local.client.get("/health", headers={"host": host})
    assert response.status_code == status
    assert server.client.get("/health", headers={"host": host}).status_code == 200


def test_a_server_has_the_names_that_it_is_given() -> None:
    names = ServerOptions(allowed_hosts=("Pair.example",)).host_names()
    assert names == {"pair.example"}
    assert ServerOptions(host="0.0.0.0").host_names() is None


def test_every_key_is_a_key(server: Running) -> None:
    for key in ("first", "second"):
        headers = {"authorization": f"bearer {key}"}
        assert server.client.get("/v1/models", headers=headers).status_code == 200


def test_keys_are_not_shown(server: Running) -> None:
    assert "first" not in repr(server.server._options)


def test_a_large_body_is_refused_with_its_length_and_without(server: Running) -> None:
    body = json.dumps({"model": server.name, "prompt": "a" * 3000}).encode()
    headers = {"content-type": "application/json"}
    response = server.client.post("/v1/completions", content=body, headers=headers)
    failed(response, 413, "body_too_large")
    parts = iter([body[:1500], body[1500:]])
    assert server.client.post("/v1/completions", content=parts, headers=headers).status_code == 413
    assert server.post("/v1/completions", **SHORT).status_code == 200


def test_more_tokens_than_the_limit_are_refused(server: Running) -> None:
    error = failed(server.post("/v1/completions", prompt="a", max_tokens=1601), 400, None)
    assert error["param"] == "max_tokens"
    response = server.post("/v1/chat/completions", messages=HELLO, max_completion_tokens=1601)
    assert failed(response, 400, None)["param"] == "max_completion_tokens"


def test_requests_beyond_the_places_are_told_to_come_again(server: Running) -> None:
    threads = []
    with long_stream(server):
        threads.append(threading.Thread(target=server.post, args=("/v1/completions",), kwargs=SHORT))
        threads[0].start()
        server.wait_until(lambda: server.running() == 2)
        response = server.post("/v1/completions", **SHORT)
        failed(response, 429, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
    threads[0].join()
    assert server.post("/v1/completions", **SHORT).status_code == 200


def test_choices_beyond_the_places_of_the_decoder_wait(server: Running) -> None:
    response = server.post("/v1/completions", n=8, **SHORT)
    assert response.status_code == 200, response.text
    assert [choice["index"] for choice in response.json()["choices"]] == list(range(8))


def test_a_reader_of_a_stream_that_leaves_ends_the_work(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cosd.serving")
    with long_stream(server):
        assert server.running() == 1
    server.wait_until(lambda: server.running() == 0)
    server.wait_until(
        lambda: any(getattr(each, "fields", {}).get("status") == 499 for each in caplog.records)
    )
    assert '"/v1/completions",status="499"' in server.client.get("/metrics").text
    assert server.post("/v1/completions", **SHORT).status_code == 200


def test_a_reader_of_a_whole_answer_that_leaves_ends_the_work(server: Running) -> None:
    body = json.dumps({"model": server.name, **LONG}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer first\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((server.client.base_url.host, server.client.base_url.port or 0)) as raw:
        raw.sendall(head.encode() + body)
        server.wait_until(lambda: server.running() == 1)
    server.wait_until(lambda: server.running() == 0)


def test_the_log_has_counts_but_no_texts(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cosd.serving")
    answer = server.post("/v1/completions", **SHORT)
    refused = server.post("/v1/completions", prompt="The town of", stop=5)
    server.wait_until(lambda: len([each for each in caplog.records if each.message == "request"]) >= 2)
    lines = [JsonLines(messages=False).format(each) for each in caplog.records]
    found = {line["id"]: line for line in map(json.loads, lines) if line["message"] == "request"}
    told = found[answer.headers["x-request-id"]]
    assert (told["status"], told["completion_tokens"], told["path"]) == (200, 4, "/v1/completions")
    assert found[refused.headers["x-request-id"]]["status"] == 400
    assert "The town of" not in str(lines)
    assert answer.json()["choices"][0]["text"] not in str(lines)


def test_prompts_and_texts_are_logged_if_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cosd.serving")
    with serving(log_prompts=True) as server:
        text = server.post("/v1/completions", **SHORT).json()["choices"][0]["text"]
        server.post("/v1/chat/completions", messages=HELLO, max_tokens=2)
    fields = [each.fields for each in caplog.records if hasattr(each, "fields") and "prompt" in each.fields]
    assert (fields[0]["prompt"], fields[0]["texts"]) == ({"prompt": "The town of"}, [text])
    assert fields[1]["prompt"] == {"messages": HELLO}


def test_an_error_is_logged_by_kind_and_place_and_its_message_only_if_asked_for() -> None:
    error = RuntimeError("the prompt was secret")
    record = logging.LogRecord("x", 40, "", 1, "failed", None, (type(error), error, None))
    assert "secret" not in JsonLines(messages=False).format(record)
    assert json.loads(JsonLines(messages=False).format(record))["error"] == "RuntimeError"
    assert "secret" in JsonLines(messages=True).format(record)


def test_an_answer_that_takes_too_long_fails_and_a_stream_says_so_in_its_last_event() -> None:
    with serving(request_timeout=0.3) as server:
        failed(server.post("/v1/completions", **LONG), 504, "timeout")
        with long_stream(server) as events:
            *_, error, done = events
        assert (json.loads(error)["error"]["code"], done) == ("timeout", "[DONE]")


def test_a_shutdown_lets_a_stream_end() -> None:
    with serving() as server:
        asked = {"model": server.name, "prompt": "The town of", "max_tokens": 200, "min_new_tokens": 200}
        with server.client.stream("POST", "/v1/completions", json={**asked, "stream": True}) as response:
            events = (line.removeprefix("data: ") for line in response.iter_lines() if line)
            next(events)
            server.stop()
            *_, last, done = events
        assert (json.loads(last)["choices"][0]["finish_reason"], done) == ("length", "[DONE]")


def test_a_shutdown_ends_what_takes_longer_than_the_grace_period_properly() -> None:
    answers: list[httpx.Response] = []
    with serving(shutdown_grace=0.3) as server:
        whole = threading.Thread(target=lambda: answers.append(server.post("/v1/completions", **LONG)))
        with long_stream(server) as events:
            whole.start()
            server.wait_until(lambda: server.running() == 2)
            server.stop()
            *_, error, done = events
        whole.join()
        server.thread.join(10)
        assert not server.thread.is_alive()
    assert (json.loads(error)["error"]["code"], done) == ("shutting_down", "[DONE]")
    failed(answers[0], 503, "shutting_down")
    assert "retry-after" in answers[0].headers


async def test_requests_during_a_shutdown_are_refused(server: Running) -> None:
    from cosd_core.serving.running import Running as Counter

    counter = Counter(1)
    counter.check()
    await counter.end(0)
    with pytest.raises(CoSDError, match="shutting down"):
        counter.check()


def test_a_port_that_is_taken_is_an_error(server: Running) -> None:
    port = server.client.base_url.port
    with (
        pytest.raises(CoSDError, match=f"cannot listen on host='127.0.0.1', port={port}"),
        serving(port=port),
    ):
        pass
