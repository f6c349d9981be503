"""Claim: models behind a server write what they write here, in few requests; a fault of one is our error."""

import asyncio
import time
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from cosd_core import (
    ContextOverflowError,
    CoSDDecoder,
    GenerationError,
    Grammar,
    InvalidOptionError,
    LanguageModel,
    ModelLoadError,
    RuleVerifier,
    UnsupportedModelError,
    observe,
)
from cosd_core.demo import load_pair
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.models.server.client import Client
from cosd_core.models.server.model import ServerModel
from tests.grids import but_for
from tests.models import byte_tokenizer, random_model
from tests.reference import assert_agrees, write
from tests.vllm_server import NAME, FakeServer

DRAFT, ASSISTANT = (random_model(seed=seed) for seed in (1, 2))
RULE = RuleVerifier(alpha=0.9, beta=0.3)
PROMPTS = ["Hello", "The quick brown fox", "x", "1 + 1 ="]


def connected(server: FakeServer, *, ahead: int = 8, **options: Any) -> ServerModel:
    given = {"api_key": None, "timeout": 5.0, "max_connections": 4, "max_retries": 2} | options
    client = Client("http://server", None, transport=server, **given)
    return ServerModel(client, byte_tokenizer(), eos_token_ids=DRAFT.eos_token_ids, ahead=ahead)


@pytest.mark.parametrize("remote", but_for(["both"], ["draft", "assistant", "both"]))
@settings(deadline=None, max_examples=8)
@given(
    prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=3),
    ahead=st.integers(1, 9),
    schedule=st.sampled_from(["adaptive", "fixed"]),
    lookup=st.booleans(),
)
def test_the_text_is_that_of_models_on_this_machine(
    remote: str, prompts: list[str], ahead: int, schedule: str, lookup: bool
) -> None:
    servers = [FakeServer(DRAFT), FakeServer(ASSISTANT)]
    draft = DRAFT if remote == "assistant" else connected(servers[0], ahead=ahead)
    assistant = ASSISTANT if remote == "draft" else connected(servers[1])
    decoder = CoSDDecoder(
        draft,
        assistant,
        verifier=RULE,
        schedule=schedule,
        draft_length=5,
        lookup=lookup,
        prefill_chunk_size=4,
    )
    for found, prompt in zip(decoder.generate(prompts, max_new_tokens=12), prompts, strict=True):
        expected = write(DRAFT, [ASSISTANT], RULE, prompt, max_new_tokens=12)
        assert_agrees(found, expected, asked=schedule == "fixed", tolerance=1e-6)


def test_a_block_takes_one_request_of_each_model() -> None:
    servers = [FakeServer(DRAFT), FakeServer(ASSISTANT)]
    decoder = CoSDDecoder(*map(connected, servers), verifier="draft", draft_length=8)
    decoder.generate("Hello", max_new_tokens=32, eos_token_id=[])
    assert [len(each.requests) for each in servers] == [4, 0]
    fixed = CoSDDecoder(*map(connected, servers), verifier="draft", draft_length=8, schedule="fixed")
    fixed.generate(PROMPTS, max_new_tokens=32, eos_token_id=[])
    assert [len(each.requests) for each in servers] == [8, 4]
    assert all(len(body["prompt"]) == 4 for body in servers[1].requests)


def test_different_tokenizers_and_the_window_of_the_server() -> None:
    model = connected(FakeServer(ASSISTANT, context=40))
    assert model.context_length == 39
    texts = [
        CoSDDecoder(load_pair()[0], each, verifier=RULE).generate("Q: 3+4? A:", max_new_tokens=8).text
        for each in (ASSISTANT, model)
    ]
    assert texts[0] == texts[1]
    with pytest.raises(ContextOverflowError, match="39"):
        CoSDDecoder(DRAFT, model).generate("Hello", max_new_tokens=35)


async def test_calls_that_share_batches_and_what_is_retried() -> None:
    server, faults = FakeServer(ASSISTANT), iter([503, 429, None, None, 502])

    def busy(_: httpx.Request) -> httpx.Response | None:
        fault = next(faults, None)
        return fault and httpx.Response(fault, headers={"Retry-After": "0"}, text="busy")

    model = connected(server)
    server.before = busy
    decoder = CoSDDecoder(DRAFT, model, verifier=RULE)
    found = await asyncio.gather(*(decoder.agenerate(each, max_new_tokens=10) for each in PROMPTS))
    for generation, prompt in zip(found, PROMPTS, strict=True):
        assert_agrees(
            generation,
            write(DRAFT, [ASSISTANT], RULE, prompt, max_new_tokens=10),
            asked=False,
            tolerance=1e-6,
        )
    assert model.client.num_requests == len(server.requests) + 1 + 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (httpx.Response(500, text="no \x1b[31mluck"), "status 500"),
        (httpx.Response(400, json={"error": "prompt_logprobs is off"}), "prompt_logprobs is off"),
        (httpx.Response(200, json={"choices": [{"index": 0, "text": "a"}]}), "a server of vLLM"),
        (httpx.Response(200, text="<html>"), "did not answer"),
        (httpx.Response(200, json=[]), "a server of vLLM"),
        (httpx.Response(200, json={"choices": []}), "0 of 1 prompts"),
    ],
)
def test_a_fault_of_the_server_ends_the_call_in_words(answer: httpx.Response, words: str) -> None:
    server = FakeServer(ASSISTANT, key="secret-key")
    decoder = CoSDDecoder(DRAFT, connected(server, api_key=SecretStr("secret-key")), verifier="assistant")
    server.before = lambda _: answer
    with pytest.raises(GenerationError, match=words) as caught:
        decoder.generate("Hello", max_new_tokens=4)
    assert "\x1b" not in str(caught.value)
    assert "secret" not in repr(caught.value.__cause__) + repr(decoder.assistants[0])
    server.before = lambda _: None
    assert decoder.generate("Hello", max_new_tokens=4).text


def test_what_a_server_cannot_give_is_refused_before_it_is_asked() -> None:
    server = FakeServer(ASSISTANT)
    model = connected(server)
    for verifier in ("average", "speculative"):
        with pytest.raises(UnsupportedModelError, match=f"{verifier}.*needs logits"):
            CoSDDecoder(DRAFT, model, verifier=verifier)
    with pytest.raises(UnsupportedModelError, match=r"calibration=1\.5"):
        CoSDDecoder(DRAFT, model, calibration=[1, 1.5])
    decoder = CoSDDecoder(DRAFT, model)
    for options in (
        {"temperature": 0.7}, {"repetition_penalty": 1.2}, {"min_new_tokens": 3},
        {"grammar": Grammar.regex("[a-z]+")},
    ):  # fmt: skip
        with pytest.raises(InvalidOptionError, match=next(iter(options))):
            decoder.generate("Hello", **options)
    for other in (ASSISTANT, load_pair()[0]):  # one tokenizer, and two
        with pytest.raises(UnsupportedModelError, match="no logits"):
            observe([other, model], [("Hello", " you")])
    with pytest.raises(UnsupportedModelError, match="no logits"):
        log_likelihoods(decoder, [Continuation(((1, 2), (1, 2)), (3,))])
    assert not server.requests


def test_a_server_that_cannot_be_used() -> None:
    with pytest.raises(ModelLoadError, match="did not answer"):
        LanguageModel.from_server("http://127.0.0.1:9", max_retries=0)
    with pytest.raises(InvalidOptionError, match="url='127"):
        LanguageModel.from_server("127.0.0.1:8000")
    for url in ("http://localhost:abc", "http://[::1", "http://local\nhost"):
        with pytest.raises(InvalidOptionError, match="is no address"):
            LanguageModel.from_server(url)
    for key in ("\u00fc", "a b", b"bytes"):
        with pytest.raises(InvalidOptionError, match="api_key should be"):
            LanguageModel.from_server("http://127.0.0.1:9", api_key=key)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="timeout=1e"):
        LanguageModel.from_server("http://127.0.0.1:9", timeout=1e300)
    with pytest.raises(InvalidOptionError, match="ahead=0"):
        LanguageModel.from_server("http://127.0.0.1:9", ahead=0)
    with pytest.raises(ModelLoadError, match="status 401"):
        connected(FakeServer(DRAFT, key="secret"))
    with pytest.raises(ModelLoadError, match=NAME):
        Client(
            "http://server/v1/", "another", transport=FakeServer(DRAFT), api_key=None, timeout=5,
            max_connections=1, max_retries=0,
        )  # fmt: skip


def test_a_server_that_does_not_answer_in_time_ends_the_call() -> None:
    server = FakeServer(ASSISTANT)
    decoder = CoSDDecoder(DRAFT, connected(server, max_retries=0), verifier="assistant")

    def slow(request: httpx.Request) -> None:
        raise httpx.ReadTimeout("timed out", request=request)

    server.before = slow
    started = time.monotonic()
    with pytest.raises(GenerationError, match="did not answer"):
        decoder.generate("Hello", max_new_tokens=4)
    assert time.monotonic() - started < 60
