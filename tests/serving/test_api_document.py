"""The server answers whatever its OpenAPI document admits, as the document says, and never fails."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.serving.servers import Running, serving

EXAMPLES = int(os.environ.get("COSD_FUZZ_EXAMPLES", "25"))
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(max_tokens_limit=4) as running:
        yield running


OPERATIONS = {
    "POST": ("/v1/completions", "/v1/chat/completions"),
    "GET": ("/v1/models", "/v1/models/{name}", "/health", "/metrics"),
}


@pytest.mark.parametrize(
    ("method", "path"), [(name, path) for name in OPERATIONS for path in OPERATIONS[name]]
)
def test_every_answer_is_as_the_document_says(server: Running, method: str, path: str) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")

    @settings(
        max_examples=EXAMPLES if method == "POST" else 5,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=document[path][method].as_strategy())
    def answers(case: Any) -> None:
        limited = {"model": server.name, "n": 2, "max_tokens": 4, "max_completion_tokens": 4}
        if isinstance(case.body, dict):  # other models are not found, and many tokens take time
            case.body.update({name: limited[name] for name in case.body.keys() & limited.keys()})
        case.call_and_validate(checks=CHECKS)

    answers()


def test_the_document_names_every_endpoint_and_needs_no_other_site(server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/health", "/metrics"} <= document[
        "paths"
    ].keys()
    assert server.client.get("/docs").status_code == 404
