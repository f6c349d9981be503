"""``langchain_cosd.CoSDLLM``: what users of LangChain expect of a completion model, one behaviour a test.

langchain-tests has no suite for completion models; this one has its spirit. Behaviours that have an
asynchronous twin are run both ways.
"""

import asyncio
import copy
import json
import time
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.exceptions import ContextOverflowError as LangChainContextOverflowError
from langchain_core.exceptions import ModelTimeoutError
from langchain_core.load import dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import ConfigurableField

from cosd_core import (
    ContextOverflowError,
    CoSDDecoder,
    CoSDError,
    Grammar,
    InvalidOptionError,
    LanguageModel,
    ModelLoadError,
    RuleVerifier,
)
from cosd_core.demo import held_out, load_pair
from langchain_cosd import CoSDLLM
from tests.langchain.conftest import Caller, loop_stays_free
from tests.models import ascii_model, counted_passes, on_pass

PROMPTS = ["Hello", "a somewhat longer prompt", "x = 1"]


# What comes back


async def test_invoke_gives_the_cores_text_without_the_prompt(llm: Any, decoder: Any, call: Caller) -> None:
    expected = decoder.generate("Hello", max_new_tokens=24).text
    assert await call(llm, "invoke", "Hello") == expected
    assert len(expected) == 24


async def test_stream_adds_up_to_invoke(llm: Any, call: Caller) -> None:
    pieces = await call(llm, "stream", "Hello")
    assert "".join(pieces) == llm.invoke("Hello")
    assert len(pieces) > 2


async def test_batch_gives_the_answers_in_order(llm: Any, call: Caller) -> None:
    assert await call(llm, "batch", PROMPTS) == [llm.invoke(prompt) for prompt in PROMPTS]


async def test_batch_with_max_concurrency_gives_the_same(llm: Any, call: Caller) -> None:
    answers = await call(llm, "batch", PROMPTS, {"max_concurrency": 2})
    assert answers == [llm.invoke(prompt) for prompt in PROMPTS]


async def test_a_list_of_prompts_is_one_batch(llm: Any, pair: Any, call: Caller) -> None:
    with counted_passes(pair[0]) as one:
        llm.invoke("Hello")
    with counted_passes(pair[0]) as three:
        await call(llm, "generate", ["Hello"] * 3)
    assert len(three) == len(one)


async def test_generation_info_tells_how_it_came_about(llm: Any, pair: Any, call: Caller) -> None:
    result = await call(llm, "generate", ["Hello"])
    info = result.generations[0][0].generation_info
    assert info["finish_reason"] == "length"
    assert info["model_name"] == "random-0+random-1" == result.llm_output["model_name"]
    assert info["verifier"] == {"name": "rule", "alpha": 0.5, "beta": 0.5}
    assert info["stats"]["kept"] + info["stats"]["replaced"] == 24
    assert info["token_usage"] == {"prompt_tokens": 5, "completion_tokens": 24, "total_tokens": 29}
    assert "trace" not in info
    json.dumps(info)


async def test_token_usage_adds_up_over_prompts(llm: Any, call: Caller) -> None:
    result = await call(llm, "generate", ["ab", "abcd"])
    assert result.llm_output["token_usage"] == {
        "prompt_tokens": 6, "completion_tokens": 48, "total_tokens": 54,
    }  # fmt: skip


async def test_the_trace_comes_on_request_as_plain_json(llm: Any, decoder: Any, call: Caller) -> None:
    result = await call(llm, "generate", ["Hello"], return_trace=True)
    trace = result.generations[0][0].generation_info["trace"]["tokens"]
    assert trace == json.loads(json.dumps(decoder.generate("Hello", max_new_tokens=24).to_dict()["tokens"]))
    assert {token["source"] for token in trace} == {"draft", "assistant"}


async def test_a_stream_says_it_once_at_the_end(llm: Any, call: Caller) -> None:
    class Collect(BaseCallbackHandler):
        def __init__(self) -> None:
            self.chunks: list[Any] = []
            self.result: Any = None

        def on_llm_new_token(self, token: str, *, chunk: Any = None, **_: Any) -> None:
            self.chunks.append(chunk)

        def on_llm_end(self, response: Any, **_: Any) -> None:
            self.result = response

    seen = Collect()
    pieces = await call(llm, "stream", "Hello", {"callbacks": [seen]})
    assert [chunk.text for chunk in seen.chunks] == pieces
    assert [bool(chunk.generation_info) for chunk in seen.chunks[-2:]] == [False, True]
    whole = llm.generate(["Hello"]).generations[0][0].generation_info
    streamed = seen.result.generations[0][0].generation_info
    for info in (whole, streamed):
        del info["stats"]["seconds"], info["stats"]["tokens_per_second"]
    assert streamed == whole


# Options


OPTIONS: list[dict[str, Any]] = [
    {"max_new_tokens": 7},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 1.0, "seed": 3, "top_p": 0.5},
    {"temperature": 1.5, "seed": 3, "top_k": 2},
    {"temperature": 1.5, "seed": 3, "min_p": 0.3},
    {"repetition_penalty": 1.8},
    {"eos_token_id": 88, "min_new_tokens": 3},
    {"grammar": Grammar.regex("[a-z]{4,9}")},
    {"stop": ["e", "t"]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "+".join(options))
async def test_every_option_works_in_the_constructor_and_per_call(
    options: dict[str, Any], llm: Any, pair: Any, decoder: Any, call: Caller
) -> None:
    expected = decoder.generate("Hello", **{"max_new_tokens": 24, **options}).text
    built = CoSDLLM(draft_model=pair[0], assistant_model=pair[1], **{"max_new_tokens": 24, **options})
    assert await call(built, "invoke", "Hello") == expected
    assert await call(llm, "invoke", "Hello", **options) == expected
    assert "".join(await call(llm, "stream", "Hello", **options)) == expected
    assert await call(llm, "batch", ["Hello"], **options) == [expected]
    assert await call(llm.bind(**options), "invoke", "Hello") == expected


@pytest.mark.parametrize("settings", [{"alpha": 0.9}, {"verifier": "draft"}, {"verifier": RuleVerifier(0.2)}])
async def test_the_verifier_can_be_changed_per_call(settings: Any, llm: Any, pair: Any, call: Caller) -> None:
    expected = CoSDLLM(draft_model=pair[0], assistant_model=pair[1], max_tokens=24, **settings).invoke(
        "Hello"
    )
    assert await call(llm, "invoke", "Hello", **settings) == expected != llm.invoke("Hello")


def test_langchains_names_are_understood(pair: Any) -> None:
    llm = CoSDLLM(
        draft_model=pair[0], assistant_model=pair[1], max_tokens=5, timeout=60, stop=[],
        temperature=0,
    )  # fmt: skip
    assert len(llm.invoke("Hello")) == 5
    assert len(llm.invoke("Hello", max_tokens=3)) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alhpa": 0.1}, "did you mean 'alpha'"),
        ({"top_p": 7.0}, "top_p=7.0"),
        ({"max_tokens": 3, "max_new_tokens": 3}, "are the same option"),
        ({"max_tokens": 0}, "max_new_tokens=0"),
        ({"stop": [""]}, "stop"),
        ({"timeout": 0.0}, "timeout=0.0"),
    ],
)
async def test_wrong_options_are_refused_by_name(
    options: dict[str, Any], words: str, llm: Any, pair: Any, call: Caller
) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        CoSDLLM(draft_model=pair[0], assistant_model=pair[1], **options)
    for method, prompt in (("invoke", "Hello"), ("stream", "Hello"), ("batch", ["Hello", "x"])):
        with pytest.raises(InvalidOptionError, match=words):
            await call(llm, method, prompt, **options)


def test_a_changed_setting_is_checked_and_honoured(llm: Any, decoder: Any) -> None:
    llm.invoke("Hello")
    llm.max_tokens = 6
    llm.alpha = 0.0
    assert (
        llm.invoke("Hello")
        == CoSDDecoder(*decoder.models, verifier="draft").generate("Hello", max_new_tokens=6).text
    )
    with pytest.raises(InvalidOptionError, match=r"top_p=3\.0"):
        llm.top_p = 3.0


# Stop strings


async def test_stop_strings_never_show_and_the_calls_win(llm: Any, pair: Any, call: Caller) -> None:
    text = llm.invoke("Hello")
    here, there = text[4:7], text[10:12]
    assert await call(llm, "invoke", "Hello", stop=[here]) == text[: text.index(here)]
    assert "".join(await call(llm, "stream", "Hello", stop=[here])) == text[: text.index(here)]
    stopping = CoSDLLM(draft_model=pair[0], assistant_model=pair[1], max_tokens=24, stop=[here])
    assert await call(stopping, "invoke", "Hello") == text[: text.index(here)]
    assert await call(stopping, "invoke", "Hello", stop=[there]) == text[: text.index(there)]
    result = await call(llm, "generate", ["Hello"], stop=[here])
    info = result.generations[0][0].generation_info
    assert (info["finish_reason"], info["stop_sequence"]) == ("stop", here)


# Errors and time


async def test_errors_while_decoding_reach_the_caller(llm: Any, pair: Any, call: Caller) -> None:
    def fail(number: int, _output: Any) -> None:
        if number == 3:
            raise RuntimeError("the device is gone")

    for method in ("invoke", "stream"):
        with on_pass(pair[0], fail), pytest.raises(CoSDError, match="the device is gone"):
            await call(llm, method, "Hello")
    assert len(llm.invoke("Hello")) == 24, "the model stays usable"


async def test_context_overflow_is_langchains_error_too(llm: Any, call: Caller) -> None:
    for kind in (ContextOverflowError, LangChainContextOverflowError):
        with pytest.raises(kind, match="context window of 256"):
            await call(llm, "invoke", "x" * 300)


async def test_a_model_that_is_not_there_is_named(tmp_path: Any, call: Caller) -> None:
    llm = CoSDLLM(draft_model=str(tmp_path / "nowhere"), assistant_model="x", local_files_only=True)
    with pytest.raises(ModelLoadError, match="nowhere"):
        await call(llm, "invoke", "Hello")


async def test_a_timeout_ends_the_work(llm: Any, pair: Any, call: Caller) -> None:
    def wait(_number: int, _output: Any) -> None:
        time.sleep(0.05)

    for kind in (ModelTimeoutError, TimeoutError, CoSDError):
        with (
            on_pass(pair[0], wait),
            counted_passes(pair[0]) as passes,
            pytest.raises(kind, match=r"timeout=0\.1"),
        ):
            await call(llm, "invoke", "Hello", timeout=0.1)
        await asyncio.sleep(0.3)
        assert len(passes) < 24


def test_closing_a_stream_stops_the_work(llm: Any, pair: Any) -> None:
    with counted_passes(pair[0]) as passes:
        stream = llm.stream("Hello", max_tokens=200)
        next(stream)
        stream.close()
    assert len(passes) < 20


async def test_leaving_an_asynchronous_stream_stops_the_work(llm: Any, pair: Any) -> None:
    with counted_passes(pair[0]) as passes:
        stream = llm.astream("Hello", max_tokens=200)
        await anext(stream)
        await stream.aclose()
        await asyncio.sleep(0.2)
        assert len(passes) < 30


async def test_a_cancelled_call_leaves_no_work_behind(llm: Any, pair: Any) -> None:
    with counted_passes(pair[0]) as passes:
        task = asyncio.create_task(llm.ainvoke("Hello", max_tokens=200))
        while not passes:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.1)
        done = len(passes)
        await asyncio.sleep(0.2)
        assert len(passes) == done < 100


async def test_sixteen_calls_and_four_streams_at_once_do_not_mix_nor_block_the_loop(llm: Any) -> None:
    prompts = [f"{at} questions" for at in range(20)]
    expected = [llm.invoke(prompt) for prompt in prompts]

    async def streamed(prompt: str) -> str:
        return "".join([piece async for piece in llm.astream(prompt)])

    async with loop_stays_free():
        calls = [llm.ainvoke(prompt) for prompt in prompts[:16]]
        answers = await asyncio.gather(*calls, *(streamed(prompt) for prompt in prompts[16:]))
    assert answers == expected


# LangChain's own machinery


async def test_a_chain_runs_from_prompt_to_parser(llm: Any, call: Caller) -> None:
    chain = PromptTemplate.from_template("Hello {name}") | llm | StrOutputParser()
    assert await call(chain, "invoke", {"name": "you"}) == llm.invoke("Hello you")
    assert "".join(await call(chain, "stream", {"name": "you"})) == llm.invoke("Hello you")
    chat = ChatPromptTemplate.from_messages([("human", "{x}")]) | llm
    assert await call(chat, "invoke", {"x": "hi"}) == llm.invoke("Human: hi")


async def test_fallbacks_and_retries_see_its_errors(llm: Any, call: Caller) -> None:
    overfull = "x" * 250
    assert await call(llm.with_fallbacks([llm.bind(max_tokens=2)]), "invoke", overfull)
    with pytest.raises(ContextOverflowError):
        await call(llm.with_retry(stop_after_attempt=1), "invoke", overfull)


async def test_fields_can_be_configurable(llm: Any, call: Caller) -> None:
    configurable = llm.configurable_fields(max_new_tokens=ConfigurableField(id="length"))
    assert len(await call(configurable, "invoke", "Hello", {"configurable": {"length": 4}})) == 4


async def test_astream_events_shows_the_tokens(llm: Any) -> None:
    events = [event async for event in llm.astream_events("Hello", version="v2")]
    shown = [each["data"]["chunk"] for each in events if each["event"] == "on_llm_stream"]
    assert "".join(shown) == llm.invoke("Hello")


async def test_the_cache_tells_options_verifiers_and_pairs_apart(pair: Any, call: Caller) -> None:
    def build(*models: LanguageModel, **settings: Any) -> CoSDLLM:
        return CoSDLLM(
            draft_model=models[0], assistant_model=models[1], max_tokens=9, cache=cache, **settings
        )

    cache = InMemoryCache()
    llm = build(*pair)
    first = await call(llm, "invoke", "Hello")
    with counted_passes(*pair) as passes:
        assert await call(llm, "invoke", "Hello") == first
        assert await call(build(*pair), "invoke", "Hello") == first
    assert passes == [], "the same question again is answered by the cache"
    assert len(await call(llm, "invoke", "Hello", max_tokens=3)) == 3
    assert len(await call(llm, "invoke", "Hello", max_tokens=5)) == 5
    for other in (build(*pair, alpha=0.9), build(*pair, verifier="average"), build(*reversed(pair))):
        with counted_passes(*pair) as passes:
            await call(other, "invoke", "Hello")
        assert passes, "another question"
    namesake = ascii_model(seed=5, eos_token_id=None)
    namesake.name = pair[0].name
    with counted_passes(namesake) as passes:
        await call(build(namesake, pair[1]), "invoke", "Hello")
    assert passes, "two models of one name are two models"


def test_tokens_are_counted_by_the_pairs_own_tokenizer(llm: Any) -> None:
    assert llm.get_num_tokens("Grüße") == 7
    assert llm.get_token_ids("ab") == llm.draft_model.encode("ab")


def test_tracing_learns_provider_model_and_options(llm: Any) -> None:
    assert llm._get_ls_params(stop=["x"], temperature=0.5) == {
        "ls_provider": "cosd", "ls_model_type": "llm", "ls_model_name": "random-0+random-1",
        "ls_temperature": 0.5, "ls_max_tokens": 24, "ls_stop": ["x"],
    }  # fmt: skip
    assert llm.metadata["lc_versions"]["langchain-cosd"]


def test_identifying_parameters_are_json_and_hold_no_secret(pair: Any, tmp_path: Any) -> None:
    llm = CoSDLLM(draft_model="org/a", assistant_model=["org/b", pair[1]], api_key="hf_secret", seed=4)
    told = json.dumps(llm.asdict())
    assert '"seed": 4' in told
    assert "hf_secret" not in told + repr(llm) + str(llm) + dumps(llm)
    llm.save(tmp_path / "llm.json")
    assert json.loads((tmp_path / "llm.json").read_text())["model_name"] == "org/a+org/b+random-1"


def test_weights_show_up_in_no_trace(llm: Any) -> None:
    for told in (repr(llm), dumps(llm), str(llm)):
        assert len(told) < 3000
        assert "Embedding" not in told


def test_nothing_is_loaded_before_the_first_call() -> None:
    llm = CoSDLLM(draft_model="no/such-model", assistant_model="none/either")
    assert llm.model_name == "no/such-model+none/either"


def test_copies_share_the_weights(llm: Any) -> None:
    for other in (copy.deepcopy(llm), copy.copy(llm), llm.model_copy()):
        assert other.draft_model is llm.draft_model
        assert other.invoke("Hello") == llm.invoke("Hello")


def test_instances_that_name_the_same_models_share_them() -> None:
    draft, assistant = load_pair()
    names = {"draft_model": draft.source, "assistant_model": assistant.source}
    loading = {"dtype": "float32", "device": "cpu"}
    one, other = (CoSDLLM(**names, **loading, max_tokens=48) for _ in range(2))
    assert one._decoder().draft is other._decoder().draft is draft


async def test_the_bundled_pair_answers_what_neither_model_can(call: Caller) -> None:
    draft, assistant = load_pair()
    llm = CoSDLLM(draft_model=draft, assistant_model=assistant, max_tokens=48)
    questions = held_out("both", 20)
    answers = await call(llm, "batch", [question.prompt for question in questions])
    assert sum(text == question.answer for text, question in zip(answers, questions, strict=True)) >= 17
