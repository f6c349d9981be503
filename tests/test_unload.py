"""``unload`` frees the weights that nothing else refers to, and a later call loads them again."""

import asyncio
import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import langchain_cosd
import llama_index_cosd
from cosd_core import CoSDDecoder, LanguageModel, ModelInUseError, ModelUnloadedError
from cosd_core.models.language_model import loaded_models
from tests.chats import refused
from tests.grids import every
from tests.models import ascii_model

Saved = tuple[str, str]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The folders of two models."""
    folders = []
    for seed in (0, 1):
        model, folder = ascii_model(seed=seed, eos_token_id=None), tmp_path_factory.mktemp(f"model-{seed}")
        model.model.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders[0], folders[1]


FRAMEWORKS: dict[str, tuple[Any, Callable[[Any], str]]] = {
    "LangChain's chat model": (langchain_cosd.ChatCoSD, lambda llm: llm.invoke("Hi").text),
    "LangChain's completion model": (langchain_cosd.CoSDLLM, lambda llm: llm.invoke("Hi")),
    "LlamaIndex's": (llama_index_cosd.CoSDLLM, lambda llm: llm.complete("Hi").text),
}


@pytest.fixture(params=every(2, FRAMEWORKS))
def framework(request: pytest.FixtureRequest, saved: Saved) -> tuple[Any, Callable[[Any], str]]:
    """A framework's model, nothing loaded, and a call of it."""
    kind, call = FRAMEWORKS[request.param]
    return kind(draft_model=saved[0], assistant_model=saved[1], max_tokens=8), call


def watched(llm: Any) -> list[weakref.ref[Any]]:
    """References that do not keep the torch models of a framework's model alive."""
    models: Any = llm.decoder_cache.models
    return [weakref.ref(model.model) for model in models]


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """Python's collector is off: nothing but ``unload`` frees what is part of a cycle."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_frameworks_model_frees_its_weights_and_loads_them_again(framework: Any) -> None:
    llm, call = framework
    llm.unload()  # nothing is loaded yet
    others = set(loaded_models.models)
    answer = call(llm)
    before = watched(llm)
    assert len(set(loaded_models.models) - others) == 2
    llm.unload()
    assert [reference() for reference in before] == [None, None]
    assert llm.decoder_cache.models is None
    assert set(loaded_models.models) <= others
    llm.unload()
    assert call(llm) == answer
    assert len(watched(llm)) == 2


def test_copies_share_what_is_unloaded(framework: Any) -> None:
    llm, call = framework
    call(llm.model_copy(update={"max_new_tokens": 4}))
    call(llm.model_copy(update={"alpha": 0.9}))  # a decoder of its own over the same weights
    before = watched(llm)
    llm.unload()
    assert [reference() for reference in before] == [None, None]


def test_weights_that_another_model_uses_stay(saved: Saved) -> None:
    one, other = (
        langchain_cosd.CoSDLLM(draft_model=saved[0], assistant_model=saved[1], max_tokens=8) for _ in range(2)
    )
    answer = one.invoke("Hi")
    assert other.invoke("Hi") == answer
    before = watched(one)
    one.unload()
    assert all(reference() is not None for reference in before)
    assert other.invoke("Hi") == answer
    assert one.invoke("Hi") == answer
    assert watched(one) == watched(other) == before
    one.unload()
    other.unload()
    assert [reference() for reference in before] == [None, None]


def test_a_model_is_a_context_manager(framework: Any) -> None:
    llm, call = framework
    with llm as entered:
        assert entered is llm
        call(llm)
        before = watched(llm)
    assert [reference() for reference in before] == [None, None]


def test_models_that_were_given_as_objects_stay_as_they_are() -> None:
    pair = [ascii_model(seed=seed, eos_token_id=None) for seed in (0, 1)]
    llm = langchain_cosd.CoSDLLM(draft_model=pair[0], assistant_model=pair[1], max_tokens=8)
    answer = llm.invoke("Hi")
    llm.unload()
    assert llm.invoke("Hi") == answer
    with CoSDDecoder(*pair) as decoder:
        assert decoder.generate("Hi", max_new_tokens=8).text == answer
    assert CoSDDecoder(*pair).generate("Hi", max_new_tokens=8).text == answer


async def test_asynchronous_calls_leave_nothing_behind(saved: Saved) -> None:
    llm = langchain_cosd.ChatCoSD(draft_model=saved[0], assistant_model=saved[1], max_tokens=8)
    first = await llm.ainvoke("Hi")
    await asyncio.gather(*(llm.ainvoke(text) for text in ("a", "b", "c")))
    async for _ in llm.astream("Hi"):
        pass
    before = watched(llm)
    llm.unload()
    assert [reference() for reference in before] == [None, None]
    assert (await llm.ainvoke("Hi")).text == first.text
    llm.unload()


async def test_a_cancelled_call_leaves_nothing_behind(saved: Saved) -> None:
    llm = langchain_cosd.ChatCoSD(draft_model=saved[0], assistant_model=saved[1], max_tokens=200)
    stream = llm.astream("Hi")
    await anext(stream)
    before = watched(llm)
    refused(llm.unload, ModelInUseError, "1 call uses")
    await stream.aclose()  # type: ignore[attr-defined]
    task = asyncio.create_task(llm.ainvoke("Hi"))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    del stream, task
    llm.unload()
    assert [reference() for reference in before] == [None, None]


# Decoders


@pytest.fixture
def decoder(saved: Saved) -> CoSDDecoder:
    return CoSDDecoder.from_pretrained(*saved)


def test_a_decoder_frees_its_weights_and_refuses_further_calls(decoder: CoSDDecoder) -> None:
    decoder.generate("Hi", max_new_tokens=4)
    late = decoder.stream("Hi", max_new_tokens=4)
    before = [weakref.ref(model.model) for model in decoder.models]
    decoder.unload()
    refused(lambda: next(late), ModelUnloadedError, "another decoder")
    late.close()
    gc.collect()
    assert [reference() for reference in before] == [None, None]
    for use in (
        lambda: decoder.generate("Hi"),
        lambda: decoder.stream("Hi"),
        lambda: asyncio.run(decoder.agenerate("Hi")),
        lambda: decoder.models,
        lambda: decoder.draft,
        lambda: decoder.assistants,
        lambda: decoder.shares_vocabulary,
    ):
        refused(use, ModelUnloadedError, "unloaded", "another decoder")
    decoder.unload()
    with pytest.raises(AttributeError, match="no attribute 'colour'"):
        decoder.colour  # type: ignore[attr-defined]  # noqa: B018


def test_a_stream_under_way_keeps_the_models(decoder: CoSDDecoder) -> None:
    stream = decoder.stream("Hi", max_new_tokens=20)
    text = next(stream).text
    refused(decoder.unload, ModelInUseError, "1 call uses", "read or closed")
    text += "".join(chunk.text for chunk in stream)
    assert text == decoder.generate("Hi", max_new_tokens=20).text
    other = decoder.stream("Hi", max_new_tokens=20)
    next(other)
    refused(decoder.unload, ModelInUseError, "1 call uses")
    other.close()
    decoder.unload()


def test_the_end_of_a_block_does_not_hide_the_error_that_ended_it(decoder: CoSDDecoder) -> None:
    def fails() -> None:
        with decoder:
            stream = decoder.stream("Hi", max_new_tokens=20)
            next(stream)
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        fails()
    streams = []

    def leaves_open() -> None:
        with decoder:
            streams.append(decoder.stream("Hi", max_new_tokens=20))
            next(streams[0])

    refused(leaves_open, ModelInUseError, "1 call uses")
    streams[0].close()
    decoder.unload()


def test_a_failed_call_does_not_count_as_one_under_way(decoder: CoSDDecoder) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("broken")

    with pytest.raises(Exception, match="broken"):
        decoder.generate("Hi", logits_processor=[fails])
    decoder.unload()


# Models


def test_a_model_is_unloaded_for_every_decoder_that_has_it(saved: Saved) -> None:
    draft, assistant = map(LanguageModel.from_pretrained, saved)
    decoder = CoSDDecoder(draft, assistant)
    decoder.generate("Hi", max_new_tokens=4)
    reference = weakref.ref(draft.model)
    draft.unload()
    assert reference() is None
    assert "unloaded" in repr(draft)
    refused(lambda: draft.model, ModelUnloadedError, "unloaded", "load it again")
    refused(lambda: decoder.generate("Hi"), ModelUnloadedError, draft.name[-20:])
    again = LanguageModel.from_pretrained(saved[0])
    assert again is not draft
    CoSDDecoder(again, assistant).generate("Hi", max_new_tokens=4)


def test_a_call_under_way_keeps_a_models_weights_until_it_ends(saved: Saved) -> None:
    draft, assistant = map(LanguageModel.from_pretrained, saved)
    expected = CoSDDecoder(draft, assistant).generate("Hi", max_new_tokens=20).text
    stream = CoSDDecoder(draft, assistant).stream("Hi", max_new_tokens=20)
    text = next(stream).text
    reference = weakref.ref(draft.model)
    draft.unload()
    assert reference() is not None
    assert text + "".join(chunk.text for chunk in stream) == expected
    del stream
    gc.collect()
    assert reference() is None


def test_a_transformers_model_that_the_caller_holds_is_released_and_not_changed() -> None:
    wrapped = ascii_model(seed=0)
    torch_model, weights = wrapped.model, wrapped.model.lm_head.weight.clone()
    with wrapped:
        pass
    assert torch.equal(torch_model.lm_head.weight, weights)
    LanguageModel(torch_model, wrapped.tokenizer)


def test_an_adapters_model_and_its_base_are_freed(saved: Saved, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base: Any = ascii_model(seed=0, eos_token_id=None).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path)
        adapted = LanguageModel.from_pretrained(saved[0], adapter=tmp_path)
    assert adapted._base is not None
    references = [weakref.ref(adapted.model), weakref.ref(adapted._base.model)]
    adapted.unload()
    assert [reference() for reference in references] == [None, None]
