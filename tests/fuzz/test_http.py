"""Arbitrary requests to a server: it never fails, and answers as its OpenAPI document says."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.fuzz.survival import EXAMPLES, fuzzed
from tests.fuzz.values import as_json, mutated, nests
from tests.serving.servers import ASK_POPULATION, POPULATION, Running, serving

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
OPERATIONS = [
    *(("POST", path) for path in ("/v1/completions", "/v1/chat/completions")),
    *(("GET", path) for path in ("/v1/models", "/v1/models/{name}", "/health", "/metrics")),
]
JSON = httpx.Headers({"content-type": "application/json"})
ANY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
CHAT: dict[str, Any] = {
    "model": "caller+talker", "messages": ASK_POPULATION, "tools": [POPULATION], "tool_choice": "auto",
    "max_tokens": 4, "stop": ["."], "seed": 1, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
    "response_format": ANY_SCHEMA, "logprobs": True, "top_logprobs": 2, "n": 1, "verifier": "rule",
    "alpha": 0.9, "beta": 0.5, "calibration": [1.0, 2.0], "draft_length": 4, "repetition_penalty": 1.1,
    "chat_template_kwargs": {"a": 1}, "parallel_tool_calls": True, "metadata": {"a": "b"},
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(max_tokens_limit=4) as running:
        yield running


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_as_the_document_says(server: Running, method: str, path: str) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

    @settings(fuzzed, database=None, max_examples=(EXAMPLES or 25) if method == "POST" else 5)
    @given(case=document[path][method].as_strategy())
    def answers(case: Any) -> None:
        limited = {"model": server.name, "n": 2, "max_tokens": 4, "max_completion_tokens": 4}
        if isinstance(case.body, dict):  # other models are not found, and many tokens take time
            case.body.update({name: limited[name] for name in case.body.keys() & limited.keys()})
        case.call_and_validate(checks=CHECKS)

    answers()


@fuzzed
@given(body=mutated(CHAT).map(as_json) | nests.map(str.encode))
def test_requests_that_are_nearly_right(server: Running, body: bytes) -> None:
    response = server.client.post("/v1/chat/completions", content=body, headers=JSON)
    assert response.status_code < 500, response.text
    if response.status_code != 200:
        error = response.json()["error"]
        assert error["message"]
        assert len(error["message"].splitlines()) == 1
        assert len(error["message"]) < 5000


@fuzzed
@given(header=st.binary(max_size=30))
def test_keys(server: Running, header: bytes) -> None:
    try:
        response = server.client.get("/v1/models", headers={"authorization": header})
    except (httpx.LocalProtocolError, httpx.RemoteProtocolError):
        return  # no header of HTTP
    assert response.status_code in (200, 400)


def test_the_document_names_every_endpoint_and_needs_no_other_site(server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    assert {path for _, path in OPERATIONS} <= document["paths"].keys()
    assert server.client.get("/docs").status_code == 404
