"""``CoSDLLM`` and its settings: what tells models apart, what is checked when, what is kept in memory."""

import asyncio
import gc
import pickle
import time
import weakref
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.runnables import ConfigurableField

import cosd_core.models.language_model as registry
from cosd_core import ConfidenceVerifier, InvalidOptionError, TreeVerifier
from cosd_core.demo import load_pair
from cosd_core.verifiers import Leaf
from langchain_cosd import CoSDLLM, CoSDTimeoutError
from tests.langchain.conftest import Caller
from tests.models import ascii_model, on_pass


class Own(ConfidenceVerifier):
    """A user's verifier that says nothing of its settings."""

    name = "own"

    def __init__(self, always: bool) -> None:
        self.always = always

    def replaces(self, p: float, q: float) -> bool:
        return self.always


def build(pair: Any, **settings: Any) -> CoSDLLM:
    return CoSDLLM(draft_model=pair[0], assistant_model=pair[1], **{"max_tokens": 12, **settings})


async def test_the_cache_knows_the_constructors_stop(pair: Any, call: Caller) -> None:
    cache = InMemoryCache()
    text = await call(build(pair, cache=cache), "invoke", "Hello")
    stopping = build(pair, cache=cache, stop=[text[3]])
    assert await call(stopping, "invoke", "Hello") == text[: text.index(text[3])]
    assert await call(stopping, "invoke", "Hello", stop=[]) == text


async def test_the_cache_knows_whether_a_trace_was_wanted(pair: Any, call: Caller) -> None:
    llm = build(pair, cache=InMemoryCache())
    await call(llm, "invoke", "Hello")
    result = await call(llm, "generate", ["Hello"], return_trace=True)
    assert result.generations[0][0].generation_info["trace"]["tokens"]


def test_own_verifiers_are_told_apart(pair: Any) -> None:
    cache = InMemoryCache()
    keeps = build(pair, verifier=Own(False), cache=cache)
    text = keeps.invoke("Hello")
    assert build(pair, verifier=Own(True), cache=cache).invoke("Hello") != text
    keeps.verifier = Own(True)
    assert keeps.invoke("Hello") != text


def test_the_cache_knows_a_tree_by_its_nodes(pair: Any, tmp_path: Any) -> None:
    settings = {"verifier": "tree", "tree_path": str(tmp_path / "tree.json"), "cache": InMemoryCache()}
    TreeVerifier((Leaf(True),)).save(settings["tree_path"])
    text = build(pair, **settings).invoke("Hello")
    TreeVerifier((Leaf(False),)).save(settings["tree_path"])
    assert build(pair, **settings).invoke("Hello") != text


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": -1.0}, {"verifier": "ruel"}, {"schedule": "x"}, {"draft_length": 0}, {"batch_size": 0},
        {"verifier": "tree"}, {"verifier": "average", "weight": 2.0}, {"verifier": "draft", "alpha": 0.3},
    ],
)  # fmt: skip
def test_a_wrong_method_is_refused_by_the_constructor(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError):
        CoSDLLM(draft_model="no/such", assistant_model="none/either", **wrong)


async def test_what_is_read_at_loading_is_no_option_of_a_call(llm: Any, pair: Any, call: Caller) -> None:
    for option in ({"dtype": "float16"}, {"draft_model": pair[1]}, {"api_key": "hf_x"}):
        with pytest.raises(InvalidOptionError, match="give it to the constructor"):
            await call(llm, "invoke", "Hello", **option)


def test_a_model_that_is_no_longer_named_is_let_go(pair: Any) -> None:
    other = ascii_model(seed=7, eos_token_id=None)
    llm = build((other, pair[1]))
    llm.invoke("Hello")
    llm.draft_model = pair[0]
    watched = weakref.ref(other)
    del other
    gc.collect()
    assert watched() is None
    assert llm.invoke("Hello") == build(pair).invoke("Hello")


def test_configured_copies_share_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [model.source for model in load_pair()]
    gc.collect()
    loads: list[str] = []
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda name, options: loads.append(name) or load(name, options))
    llm = CoSDLLM(
        draft_model=names[0], assistant_model=names[1], dtype="float32", device="cpu", use_safetensors=True,
        revision="main", max_tokens=2,
    )  # fmt: skip
    configurable = llm.configurable_fields(temperature=ConfigurableField(id="t"))
    for _ in range(3):
        configurable.invoke("Hello", {"configurable": {"t": 0.5}})
        gc.collect()
    assert len(loads) == 2


def test_names_can_be_pickled_and_objects_say_why_not(llm: Any) -> None:
    named = CoSDLLM(draft_model="org/a", assistant_model="org/b", alpha=0.3)
    assert pickle.loads(pickle.dumps(named)) == named
    with pytest.raises(InvalidOptionError, match="random-0, random-1: a model given as an object"):
        pickle.dumps(llm)


def test_models_are_no_keys_and_equal_settings_are_equal(pair: Any) -> None:
    assert build(pair) == build(pair) != build(pair, alpha=0.1)
    with pytest.raises(TypeError, match="unhashable"):
        hash(build(pair))


def test_no_message_quotes_a_token() -> None:
    for name in ("token", "api_key"):
        with pytest.raises(InvalidOptionError) as caught:
            CoSDLLM(draft_model="a", assistant_model="b", **{name: ["hf_secret"]})
        assert "hf_secret" not in str(caught.value)


def test_traces_name_langchains_version_too(llm: Any) -> None:
    assert {"langchain-core", "langchain-cosd"} <= set(llm.metadata["lc_versions"])


def test_max_tokens_can_be_read(llm: Any) -> None:
    assert llm.max_tokens == llm.max_new_tokens == 24


@pytest.mark.parametrize("method", ["invoke", "stream"])
async def test_a_timeout_does_not_wait_for_text(pair: Any, call: Caller, method: str) -> None:
    """All text is held back as the possible beginning of a stop string."""
    text = build(pair, max_tokens=60).invoke("Hello")
    holding = build(pair, max_tokens=60, stop=[text[:58] + "~~~"])
    with on_pass(pair[0], lambda *_: time.sleep(0.02)):
        started = time.perf_counter()
        with pytest.raises(CoSDTimeoutError):
            await call(holding, method, "Hello", timeout=0.1)
        assert time.perf_counter() - started < 0.8


async def test_reading_a_stream_slowly_takes_time_too(llm: Any) -> None:
    """Even where all of it is written already."""
    llm.invoke("Hello")  # the models are ready then
    stream, astream = llm.stream("Hello", timeout=0.5), llm.astream("Hello", timeout=0.5)
    next(stream)
    await anext(astream)
    await asyncio.sleep(0.6)
    with pytest.raises(CoSDTimeoutError):
        next(stream)
    with pytest.raises(CoSDTimeoutError):
        await anext(astream)


async def test_who_has_read_the_last_chunk_in_time_is_not_told_otherwise(llm: Any) -> None:
    llm.invoke("Hello")
    hurried = llm.model_copy(update={"timeout": 2.0})
    chunks = hurried._call().astream("Hello", max_new_tokens=3)
    while not (await anext(chunks)).generation:
        pass
    await asyncio.sleep(2.1)
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_an_asynchronous_timeout_does_not_wait_for_the_round(llm: Any, pair: Any) -> None:
    with on_pass(pair[0], lambda *_: time.sleep(0.5)):
        started = time.perf_counter()
        with pytest.raises(CoSDTimeoutError):
            await llm.ainvoke("Hello", timeout=0.1)
        assert time.perf_counter() - started < 0.4
        await asyncio.sleep(0)


def test_a_processor_without_hash_is_no_error(pair: Any) -> None:
    class Processor:
        def __eq__(self, other: object) -> bool:
            return self is other

        def __call__(self, ids: Any, scores: Any) -> Any:
            return scores

    assert build(pair, logits_processor=[Processor()]).invoke("Hello") == build(pair).invoke("Hello")
