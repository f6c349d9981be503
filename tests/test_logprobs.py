"""Log probabilities in the frameworks' forms, from confidences that are known without another pass."""

import itertools
import math
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk

import llama_index_cosd
from cosd_core import AverageVerifier, CoSDDecoder, Generation, InvalidOptionError, RuleVerifier, TracedToken
from cosd_core.frontend.logprobs import UNKNOWN, known_logprobs, openai_logprobs
from langchain_cosd import ChatCoSD, CoSDLLM
from tests.chats import refused
from tests.models import ascii_model, counted_passes
from tests.test_explain import IRON, replaced, token

PAIR = [ascii_model(seed=seed, eos_token_id=None) for seed in (0, 1)]
OPTIONS: dict[str, Any] = {"draft_model": PAIR[0], "assistant_model": PAIR[1], "max_tokens": 24}
CHAT, COMPLETION = ChatCoSD(**OPTIONS), CoSDLLM(**OPTIONS)


def content(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    assert metadata["logprobs"].keys() == {"content"}
    entries: list[dict[str, Any]] = metadata["logprobs"]["content"]
    return entries


def traced(metadata: dict[str, Any]) -> Generation:
    return Generation.from_dict(metadata["trace"])


async def metadata(kind: str, way: str, **options: Any) -> list[dict[str, Any]]:
    """The metadata of every chunk, or of the one answer, and that of the chunks added up."""
    llm: Any = CHAT if kind == "chat" else COMPLETION
    prompt: Any = "Hi" if "stream" in way or kind == "chat" else ["Hi"]
    # Only the hooks of completion models return chunks; their streams are of text.
    names = {} if kind == "chat" else {
        "invoke": "generate", "ainvoke": "agenerate", "stream": "_stream", "astream": "_astream",
    }  # fmt: skip
    called = getattr(llm, names.get(way, way))(prompt, **options)
    if "stream" in way:
        found = list(called) if way == "stream" else [each async for each in called]
    else:
        found = [await called if way == "ainvoke" else called]
    if len(found) > 1:
        whole = found[0]
        for each in found[1:]:
            whole = whole + each
        found.append(whole)
    if kind == "chat":
        return [each.response_metadata for each in found]
    return [(each if "stream" in way else each.generations[0][0]).generation_info or {} for each in found]


every_way = pytest.mark.parametrize(
    ("kind", "way"),
    list(itertools.product(["chat", "completion"], ["invoke", "ainvoke", "stream", "astream"])),
)


@every_way
async def test_a_tokens_logprob_is_the_confidence_of_the_model_that_wrote_it(kind: str, way: str) -> None:
    *parts, whole = await metadata(kind, way, logprobs=True, top_logprobs=5, return_trace=True)
    generation = traced(whole)
    assert {each.source for each in generation.tokens} == {"draft", "assistant"}
    for entry, each in zip(content(whole), generation.tokens, strict=True):
        own, other = (each.p, each.q) if each.source == "draft" else (each.q, each.p)
        assert entry["token"] == each.text
        assert bytes(entry["bytes"]).decode() == each.text
        assert math.exp(entry["logprob"]) == pytest.approx(own)
        texts = [top["token"] for top in entry["top_logprobs"]]
        assert sorted(texts) == sorted([each.text, *([each.other_text] if each.other_text else [])])
        assert {key: entry[key] for key in ("token", "bytes", "logprob")} in entry["top_logprobs"]
        logprobs = [top["logprob"] for top in entry["top_logprobs"]]
        assert logprobs == sorted(logprobs, reverse=True)
        if len(logprobs) == 2:
            assert sorted(map(math.exp, logprobs)) == pytest.approx(sorted([own, other]))
    assert any(len(entry["top_logprobs"]) == 2 for entry in content(whole))
    if parts:  # a stream has the logprobs of its own tokens in every chunk
        assert [e for each in parts if "logprobs" in each for e in content(each)] == content(whole)
        assert sum("logprobs" in each for each in parts) > 2


@every_way
async def test_there_are_none_unless_they_are_asked_for(kind: str, way: str) -> None:
    assert all("logprobs" not in each for each in await metadata(kind, way))


async def test_the_streams_of_text_and_logprobs_agree() -> None:
    text = ""
    for chunk in CHAT.stream("Hi", logprobs=True):
        assert isinstance(chunk, AIMessageChunk)
        text += chunk.text
        if chunk.text:
            assert "logprobs" in chunk.response_metadata
    entries = content(CHAT.invoke("Hi", logprobs=True).response_metadata)
    assert bytes(itertools.chain.from_iterable(each["bytes"] for each in entries)).decode() == text


@pytest.mark.parametrize(("most", "longest"), [(None, 0), (0, 0), (1, 1), (2, 2), (20, 2)])
def test_there_are_at_most_so_many_alternatives(most: int | None, longest: int) -> None:
    options = {} if most is None else {"top_logprobs": most}
    entries = content(CHAT.invoke("Hi", logprobs=True, **options).response_metadata)
    assert max(len(each["top_logprobs"]) for each in entries) == longest


def test_they_cost_no_pass() -> None:
    with counted_passes(*PAIR) as without:
        CHAT.invoke("Hi")
    with counted_passes(*PAIR) as with_logprobs:
        CHAT.invoke("Hi", logprobs=True, top_logprobs=20)
    assert without == with_logprobs


@pytest.mark.parametrize("make", [ChatCoSD, CoSDLLM])
def test_top_logprobs_without_logprobs_are_refused(make: Any) -> None:
    refused(lambda: make(**OPTIONS, top_logprobs=3), InvalidOptionError, "top_logprobs=3", "logprobs=True")
    llm = make(**OPTIONS)
    refused(lambda: llm.invoke("Hi", top_logprobs=3), InvalidOptionError, "top_logprobs=3", "logprobs=True")
    refused(lambda: llm.invoke("Hi", logprobs=True, top_logprobs=-1), InvalidOptionError, "top_logprobs=-1")
    refused(lambda: llm.invoke("Hi", logprobs=3), InvalidOptionError, "logprobs=3")
    make(**OPTIONS, logprobs=True, top_logprobs=3)


def test_llama_index_has_the_token_and_the_rejected_one() -> None:
    response = llama_index_cosd.CoSDLLM(**OPTIONS, logprobs=True).complete("Hi")
    core = CoSDDecoder(*PAIR).generate("Hi", max_new_tokens=24)
    assert response.logprobs is not None
    assert [[each.token for each in entry] for entry in response.logprobs] == [
        [each.text, each.other_text] if each.other_text else [each.text] for each in core.tokens
    ]


def test_by_eye() -> None:
    kept, three = IRON.tokens[0], replaced("3", "1", p=0.125, q=0.5)
    rule = RuleVerifier()
    assert known_logprobs(three, rule) == [("3", math.log(0.5)), ("1", math.log(0.125))]
    assert openai_logprobs([kept, three], rule, most=1) == {
        "content": [
            {
                "token": " ", "bytes": [32], "logprob": math.log(0.9),
                "top_logprobs": [{"token": " ", "bytes": [32], "logprob": math.log(0.9)}],
            },
            {
                "token": "3", "bytes": [51], "logprob": math.log(0.5),
                "top_logprobs": [{"token": "3", "bytes": [51], "logprob": math.log(0.5)}],
            },
        ]
    }  # fmt: skip


def test_a_replacement_of_several_tokens_counts_once() -> None:
    first, second = replaced(" Pa", " Ro", p=0.25, q=0.5), replaced("ris", "", p=0.25, q=0.5)
    assert [known_logprobs(each, RuleVerifier())[0][1] for each in (first, second)] == [math.log(0.5), 0.0]


def test_a_probability_that_rounds_to_0_has_a_finite_logprob() -> None:
    assert -750 < known_logprobs(token("a", p=0.0), RuleVerifier())[0][1] < -700


def test_a_token_that_a_mixture_picked_against_both_models_has_openais_value_for_unknown() -> None:
    own = replaced("a", "b", p=0.25, q=0.5)
    drawn = TracedToken(
        id=7, text="c", source="assistant", assistant_index=0, p=0.25, q=0.5, draft_id=1, assistant_id=2,
        other_text="b",
    )  # fmt: skip
    mixing = AverageVerifier()
    assert known_logprobs(own, mixing)[0] == ("a", math.log(0.5))
    assert known_logprobs(drawn, mixing) == [("c", UNKNOWN), ("b", math.log(0.25))]
