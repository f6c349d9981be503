"""Replicas on Ray Serve: the interface of ``cosd serve``, and the death of a replica."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

pytest.importorskip("ray", reason="make test-ray installs Ray")

from cosd_core import Chat
from tests.serving.servers import HELLO, decoder

WEIGHTS = Path(__file__).parents[2] / "examples/bundled_pairs/weights"
URL = "http://127.0.0.1:8000"
REPLICAS = 2


def replicas(process: psutil.Process) -> list[psutil.Process]:
    """The processes of the replicas below that of ``serve run``."""
    return [
        each
        for each in process.children(recursive=True)
        if each.is_running() and "ServeReplica" in " ".join(each.cmdline())
    ]


def wait_for(condition: Any, seconds: float = 240) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it never held"
        time.sleep(0.5)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    """``serve run`` with two replicas, which answer."""
    command = [
        str(Path(sys.executable).with_name("serve")), "run", "cosd_core.serving.ray:app",
        f"draft_model={WEIGHTS / 'caller'}", f"assistant_model={WEIGHTS / 'talker'}", "alpha=0.9",
        "name=pair", "api_keys=one two", f"min_replicas={REPLICAS}", f"max_replicas={REPLICAS}",
        "num_cpus=0.1", "dtype=float32",
    ]  # fmt: skip
    assert not answers(URL), "another server has the port, which serve run cannot change"
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as started:
        process = psutil.Process(started.pid)
        try:
            wait_for(lambda: started.poll() is not None or answers(URL))
            assert started.poll() is None, log.read_text()
            wait_for(lambda: len(replicas(process)) == REPLICAS)
            yield process
        finally:
            started.send_signal(signal.SIGINT)
            started.wait(60)


@pytest.fixture
def client(served: psutil.Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{URL}/v1", api_key="two", max_retries=6, timeout=60) as client:
        yield client


def ask(client: openai.OpenAI, **options: Any) -> str | None:
    answer = client.chat.completions.create(model="pair", messages=HELLO, max_tokens=12, **options)  # type: ignore[call-overload]
    return answer.choices[0].message.content


def expected() -> str:
    return decoder().generate(Chat(HELLO), max_new_tokens=12).text


def test_the_answers_are_those_of_the_decoder(client: openai.OpenAI) -> None:
    assert ask(client) == expected()


def test_streams_and_provenance_are_those_of_cosd_serve(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="pair", messages=HELLO, max_tokens=12, stream=True, extra_body={"provenance": True}
        )
    )
    assert len(chunks) > 2
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected()
    traced = [chunk.choices[0].model_extra for chunk in chunks if chunk.choices]
    assert all(extra and extra["provenance"] for extra in traced if extra)


def test_keys_limits_and_unknown_fields_are_those_of_cosd_serve(served: psutil.Process) -> None:
    body = {"model": "pair", "messages": HELLO}
    with httpx.Client(base_url=URL, timeout=60) as client:
        assert client.post("/v1/chat/completions", json=body).status_code == 401
        client.headers["Authorization"] = "Bearer one"
        refused = client.post("/v1/chat/completions", json={**body, "alfa": 0.5})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "alfa")
        assert client.get("/v1/models").json()["data"][0]["id"] == "pair"


def test_requests_survive_the_killing_of_a_replica(client: openai.OpenAI, served: psutil.Process) -> None:
    before = {each.pid for each in replicas(served)}
    killed = replicas(served)[0]
    killed.kill()
    assert [ask(client) for _ in range(20)] == [expected()] * 20
    wait_for(lambda: len({each.pid for each in replicas(served)} - {killed.pid}) == REPLICAS)
    assert {each.pid for each in replicas(served)} - before
