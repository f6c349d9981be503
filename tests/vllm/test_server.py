"""vLLM's own OpenAI server with the plugin: completions and chats, in processes of its own."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cosd_core import LanguageModel, RuleVerifier, TraceError
from cosd_core.serving.vllm import read_provenance
from tests.models import byte_tokenizer
from tests.vllm.servers import served
from tests.vllm.written import assert_as_written

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
PROMPT = "The capital of"

Post = Callable[[str, dict[str, Any]], Any]


@pytest.fixture(scope="module")
def post(folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Post]:
    """Sends a request to the server, and returns its answer."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "template.jinja").write_text(TEMPLATE, encoding="utf-8")
    speculative = {"method": "draft_model", "model": folders["draft"], "num_speculative_tokens": 4}
    arguments = [
        "--served-model-name", "pair", "--chat-template", str(folder / "template.jinja"),
        "--speculative-config", json.dumps(speculative),
        "--additional-config", json.dumps({"cosd": {"alpha": 0.8}}),
    ]  # fmt: skip
    with served(folders["assistant"], *arguments, log=folder / "log.txt") as url:
        yield lambda path, body: send(f"{url}{path}", {"model": "pair", **body})


def send(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        text = answer.read().decode()
    if body.get("stream"):
        parts = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        return [json.loads(part) for part in parts]
    return json.loads(text)


def check(choice: dict[str, Any], pair: Any, rule: RuleVerifier, **options: Any) -> None:
    """The choice of an answer, as a dictionary, is the reference's."""
    as_object = SimpleNamespace(**choice)
    ids = byte_tokenizer()(PROMPT)["input_ids"]
    written = assert_as_written(as_object, pair, rule, ids, max_new_tokens=16, **options)
    assert read_provenance(choice) == read_provenance(as_object)
    assert written.replaced


@pytest.fixture
def pair(draft: LanguageModel, assistant: LanguageModel) -> tuple[LanguageModel, LanguageModel]:
    return draft, assistant


def test_completions(post: Post, pair: Any) -> None:
    body = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0, "return_token_ids": True}
    check(post("/v1/completions", body)["choices"][0], pair, RuleVerifier(0.8))
    asked = {**body, "vllm_xargs": {"alpha": 0.95, "beta": 0}}
    check(post("/v1/completions", asked)["choices"][0], pair, RuleVerifier(0.95, 0))


def test_chats(post: Post, pair: Any) -> None:
    body = {
        "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 16, "temperature": 0.9, "seed": 3,
        "return_token_ids": True,
    }  # fmt: skip
    choice = post("/v1/chat/completions", body)["choices"][0]
    check(choice, pair, RuleVerifier(0.8), temperature=0.9, seed=3)


def test_streams_carry_the_text_and_no_record_of_the_writers(post: Post) -> None:
    body = {"prompt": PROMPT, "max_tokens": 16, "temperature": 0}
    whole = post("/v1/completions", body)["choices"][0]
    parts = post("/v1/completions", {**body, "stream": True})
    assert "".join(part["choices"][0]["text"] for part in parts) == whole["text"]
    with pytest.raises(TraceError, match="does not say who wrote its tokens"):
        read_provenance(parts[0]["choices"][0])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"vllm_xargs": {"alpa": 1}}, "did you mean 'alpha'"),
        ({"vllm_xargs": {"verifier": "average"}}, "verifier='average' should be one of"),
        ({"presence_penalty": 1}, "presence_penalty=1.0 cannot be used with CoSD"),
        ({"echo": True, "logprobs": 1}, "prompt_logprobs=1 cannot be used with CoSD"),
    ],
)
def test_requests_that_are_refused_with_status_400(post: Post, extra: dict[str, Any], message: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as raised:
        post("/v1/completions", {"prompt": PROMPT, "max_tokens": 4, **extra})
    assert raised.value.code == 400
    assert message in json.loads(raised.value.read())["error"]["message"]
    assert post("/v1/completions", {"prompt": PROMPT, "max_tokens": 4})["choices"]
