"""Query engines and chat engines: every mode of theirs, and that no error of ours becomes an empty answer."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import (
    Document,
    KeywordTableIndex,
    Settings,
    SimpleKeywordTableIndex,
    SummaryIndex,
    TreeIndex,
    VectorStoreIndex,
    get_response_synthesizer,
)
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.evaluation import FaithfulnessEvaluator
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RetrieverQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import QueryEngineTool
from llama_index.retrievers.bm25 import BM25Retriever
from pydantic import BaseModel

from cosd_core import (
    ContextOverflowError,
    CoSDError,
    IncompleteAnswerError,
    InvalidOptionError,
    LogitsProcessorError,
)
from llama_index_cosd import CoSDLLM
from tests.llama_index.conftest import USER, Breaks, Ends, Spied, saying, within
from tests.models import counted_passes

MODES = ("compact", "refine", "tree_summarize", "simple_summarize", "accumulate", "compact_accumulate")
every_mode = pytest.mark.parametrize("mode", MODES)
QUESTION = "How high is the Sora Tower?"


@pytest.fixture
def index(documents: list[Document]) -> SummaryIndex:
    return SummaryIndex.from_documents(documents)


# Query engines


@every_mode
async def test_every_mode_answers_with_what_the_models_say(
    llm: Any, mode: str, index: SummaryIndex, call: Callable[..., Any]
) -> None:
    engine = index.as_query_engine(llm=saying(llm, "88 meters"), response_mode=mode)
    answer = str(await call(engine, "query", QUESTION))
    if "accumulate" in mode:
        assert answer.count("88 meters") == (3 if mode == "accumulate" else 1)
    else:
        assert answer == "88 meters"


@every_mode
async def test_random_models_answer_alike_sync_async_and_streamed(
    llm: Any, mode: str, index: SummaryIndex
) -> None:
    engine = index.as_query_engine(llm=llm, response_mode=mode)
    answer = str(engine.query(QUESTION))
    assert answer
    assert "Empty Response" not in answer
    assert str(await engine.aquery(QUESTION)) == answer
    if "accumulate" in mode:
        return  # they do not stream
    streaming = index.as_query_engine(llm=llm, response_mode=mode, streaming=True)
    assert "".join(streaming.query(QUESTION).response_gen) == answer
    streamed = await streaming.aquery(QUESTION)
    assert "".join([each async for each in streamed.async_response_gen()]) == answer


@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "simple_summarize"])
async def test_the_models_are_shown_passages_and_question_once(
    llm: Any, mode: str, index: SummaryIndex, call: Callable[..., Any]
) -> None:
    spied = Spied(llm)
    await call(index.as_query_engine(llm=spied.llm, response_mode=mode), "query", QUESTION)
    shown = spied.only
    assert shown.count(QUESTION) == 1
    assert shown.count("Anra Velist") == shown.count("88 meters") == 1


async def test_refining_asks_once_per_passage(
    llm: Any, index: SummaryIndex, call: Callable[..., Any]
) -> None:
    counter = TokenCountingHandler()
    Settings.callback_manager = CallbackManager([counter])
    await call(index.as_query_engine(llm=llm, response_mode="refine"), "query", QUESTION)
    assert [each.completion_token_count for each in counter.llm_token_counts] == [16] * 3


async def test_settings_of_the_instance_reach_the_engines(llm: Any, index: SummaryIndex) -> None:
    """Engines pass no options."""
    text = str(index.as_query_engine(llm=llm).query(QUESTION))
    for settings in ({"max_new_tokens": 4}, {"stop": (text[3],)}, {"temperature": 1.0, "seed": 1}):
        changed = llm.model_copy(update=settings)
        assert str(await index.as_query_engine(llm=changed).aquery(QUESTION)) != text
    Settings.llm = llm
    assert str(index.as_query_engine().query(QUESTION)) == text


async def test_an_answer_of_nothing_still_streams(llm: Any, index: SummaryIndex) -> None:
    """LlamaIndex cannot bear a stream of no responses."""
    empty = llm.model_copy(update={"logits_processor": (Ends(),)})
    for mode in ("compact", "tree_summarize", "simple_summarize"):
        engine = index.as_query_engine(llm=empty, streaming=True, response_mode=mode)
        assert "".join(engine.query(QUESTION).response_gen) in ("", "Empty Response")
        streamed = await engine.aquery(QUESTION)
        assert "".join([each async for each in streamed.async_response_gen()]) in ("", "Empty Response")


async def test_closing_a_streamed_answer_stops_the_work(llm: Any, index: SummaryIndex) -> None:
    long = llm.model_copy(update={"max_new_tokens": 400})
    with counted_passes(llm.draft_model) as passes:
        generator = index.as_query_engine(llm=long, streaming=True).query(QUESTION).response_gen
        next(generator)
        generator.close()
        assert 0 < len(passes) < 60


async def test_concurrent_queries_do_not_mix(llm: Any, index: SummaryIndex) -> None:
    engine = index.as_query_engine(llm=llm, response_mode="tree_summarize")
    questions = [f"{at} questions?" for at in range(6)]
    expected = [str(engine.query(each)) for each in questions]
    assert [str(each) for each in await asyncio.gather(*map(engine.aquery, questions))] == expected


# The bundled pair answers

CORPUS = Path(__file__).parents[2] / "examples" / "corpus" / "valley.txt"
FACTS = {
    "When does The Rudin Museum open?": "10:30",
    "How high is The Sora Tower?": "88",
    "What is The Halin Castle made of?": "stone",
    "How much does The Pelara Ferry cost?": "14",
}


@pytest.fixture(scope="module")
def passages() -> list[Document]:
    texts = CORPUS.read_text(encoding="utf-8").strip().split("\n\n")
    return [Document(text=text, id_=str(at)) for at, text in enumerate(texts)]


@pytest.mark.parametrize("kind", ["vectors", "bm25", "keywords"])
async def test_the_bundled_pair_answers_from_passages(
    bundled: Any, kind: str, passages: list[Document], call: Callable[..., Any]
) -> None:
    prompt = ChatPromptTemplate.from_messages(
        [("system", "Answer from the context."), ("user", "Context:\n{context_str}\n\nQuestion: {query_str}")]
    )
    options = {"llm": bundled, "text_qa_template": prompt, "response_mode": "compact"}
    if kind == "vectors":
        engine = VectorStoreIndex.from_documents(passages).as_query_engine(similarity_top_k=2, **options)
    elif kind == "keywords":
        table = SimpleKeywordTableIndex.from_documents(passages, llm=bundled)
        engine = table.as_query_engine(num_chunks_per_query=2, **options)
    else:
        nodes = list(SummaryIndex.from_documents(passages).docstore.docs.values())
        retriever = BM25Retriever.from_defaults(nodes=nodes, similarity_top_k=2)
        engine = RetrieverQueryEngine.from_args(retriever, **options)
    right = 0
    for question, fact in FACTS.items():
        answer = await call(engine, "query", question)
        assert answer.source_nodes
        right += fact in str(answer)
    assert right >= 3


# Engines over engines


def tools(llm: Any, index: SummaryIndex) -> list[QueryEngineTool]:
    return [
        QueryEngineTool.from_defaults(
            index.as_query_engine(llm=saying(llm, text)), name=name, description=f"About {name}."
        )
        for name, text in (("bridges", "a bridge"), ("towers", "a tower"))
    ]


async def test_a_router_goes_where_the_models_say(
    llm: Any, index: SummaryIndex, call: Callable[..., Any]
) -> None:
    chooses = saying(llm, '[{"choice": 2, "reason": "it asks of towers"}]')
    both = saying(llm, '[{"choice": 1, "reason": "x"}, {"choice": 2, "reason": "y"}]')
    engine = RouterQueryEngine.from_defaults(
        tools(llm, index), llm=chooses, selector=LLMSingleSelector.from_defaults(llm=chooses)
    )
    answer = await call(engine, "query", QUESTION)
    assert str(answer) == "a tower"
    several = RouterQueryEngine.from_defaults(
        tools(llm, index), llm=saying(llm, "both"), select_multi=True,
        selector=LLMMultiSelector.from_defaults(llm=both),
    )  # fmt: skip
    several._summarizer._llm = saying(llm, "both")
    assert str(await call(several, "query", QUESTION)) == "both"


async def test_sub_questions_are_asked_and_answered(
    llm: Any, index: SummaryIndex, call: Callable[..., Any]
) -> None:
    items = [{"sub_question": f"What of {name}?", "tool_name": name} for name in ("bridges", "towers")]
    generator = LLMQuestionGenerator.from_defaults(
        llm=saying(llm, json.dumps({"items": items}), max_new_tokens=500)
    )
    spied = Spied(llm)
    engine = SubQuestionQueryEngine.from_defaults(
        tools(llm, index), llm=llm, question_gen=generator, verbose=False,
        response_synthesizer=get_response_synthesizer(llm=spied.llm, use_async=False),
    )  # fmt: skip
    await call(engine, "query", "Bridges or towers?")
    shown = spied.only
    for part in ("What of bridges?", "a bridge", "What of towers?", "a tower"):
        assert part in shown


async def test_citations_number_the_passages(llm: Any, index: SummaryIndex, call: Callable[..., Any]) -> None:
    spied = Spied(llm)
    engine = CitationQueryEngine.from_args(index, llm=spied.llm)
    answer = await call(engine, "query", QUESTION)
    assert "Source 1:" in spied.only
    assert len(answer.source_nodes) == 3


async def test_a_keyword_table_is_made_by_the_models(llm: Any, documents: Any) -> None:
    extracts = saying(llm, "KEYWORDS: tower, bridge")
    index = KeywordTableIndex.from_documents(documents, llm=extracts, show_progress=False)
    assert set(index.index_struct.table) >= {"tower", "bridge"}
    engine = index.as_query_engine(llm=extracts)
    assert len((await engine.aquery("tower")).source_nodes) == 3


def test_a_tree_is_built_and_asked(llm: Any, documents: Any) -> None:
    index = TreeIndex.from_documents(documents, llm=saying(llm, "ANSWER: 1"), num_children=2)
    engine = index.as_query_engine(llm=saying(llm, "ANSWER: 1"))
    assert str(engine.query(QUESTION)) == "ANSWER: 1"


async def test_fusion_asks_for_other_questions(llm: Any, documents: Any, call: Callable[..., Any]) -> None:
    retriever = VectorStoreIndex.from_documents(documents).as_retriever(similarity_top_k=1)
    fusion = QueryFusionRetriever(
        [retriever], llm=saying(llm, "Who built the Kalo Bridge?"), num_queries=2, use_async=False,
        similarity_top_k=2,
    )  # fmt: skip
    found = await call(fusion, "retrieve", "Sora Tower 88 meters high")
    assert {each.text for each in found} == {documents[0].text, documents[1].text}


async def test_an_evaluator_reads_the_verdict(llm: Any) -> None:
    for said, passing in (("YES", True), ("NO", False)):
        evaluator = FaithfulnessEvaluator(llm=saying(llm, said))
        assert (await evaluator.aevaluate(response="x", contexts=["y"])).passing is passing


# Chat engines

CHAT_MODES = ("simple", "context", "condense_question", "condense_plus_context")


def chat_engine(llm: Any, mode: str, index: SummaryIndex) -> Any:
    memory = ChatMemoryBuffer.from_defaults(token_limit=3000)
    if mode == "simple":
        return SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    return index.as_chat_engine(chat_mode=mode, llm=llm, memory=memory)


@pytest.mark.parametrize("mode", CHAT_MODES)
async def test_chat_engines_remember_what_was_said(
    llm: Any, mode: str, index: SummaryIndex, call: Callable[..., Any]
) -> None:
    engine = chat_engine(saying(llm, "88 meters"), mode, index)
    for question in ("How high is it?", "And now?"):
        assert str(await call(engine, "chat", question)) == "88 meters"
    assert [each.content for each in engine.chat_history] == [
        "How high is it?", "88 meters", "And now?", "88 meters",
    ]  # fmt: skip
    engine.reset()
    assert engine.chat_history == []


@pytest.mark.parametrize("mode", CHAT_MODES)
async def test_streamed_chats_remember_exactly_what_was_streamed(
    llm: Any, mode: str, index: SummaryIndex
) -> None:
    said = "88 meters, and the bridge 41."
    for way in ("sync", "async"):
        engine = chat_engine(saying(llm, said), mode, index)
        for _ in range(2):
            if way == "sync":
                pieces = list(engine.stream_chat("How high?").response_gen)
            else:
                streamed = await engine.astream_chat("How high?")
                pieces = [each async for each in streamed.async_response_gen()]
                if task := streamed.awrite_response_to_history_task:
                    await task
            assert "".join(pieces) == said
            assert len(pieces) > 2
        assert [each.content for each in engine.chat_history] == ["How high?", said] * 2


async def test_a_chat_of_random_models_is_remembered(llm: Any, index: SummaryIndex) -> None:
    engine = chat_engine(llm, "simple", index)
    text = "".join(engine.stream_chat("Hello").response_gen)
    assert engine.chat_history[-1].content == text.strip()
    assert text == llm.chat([ChatMessage(role=USER, content="Hello")]).message.content


async def test_what_was_said_is_shown_again(llm: Any, index: SummaryIndex, call: Callable[..., Any]) -> None:
    spied = Spied(llm)
    history = [ChatMessage("ONE"), ChatMessage(role="assistant", content="TWO")]
    for mode in ("simple", "context"):
        engine = chat_engine(spied.llm, mode, index)
        await call(engine, "chat", "THREE", chat_history=history)
        shown = spied.only
        assert shown.index("ONE") < shown.index("TWO") < shown.index("THREE")
        assert ("Anra Velist" in shown) == (mode == "context")


# Errors: none of ours is an empty answer


def failing(llm: Any, how: str) -> tuple[CoSDLLM, type[CoSDError], str]:
    """A model, how it fails, and the passage that makes it fail."""
    if how == "overflow":  # LlamaIndex counts with another tokenizer
        return llm, ContextOverflowError, "internationalization " * 450
    if how == "processor":
        return llm.model_copy(update={"logits_processor": (Breaks(after=8),)}), LogitsProcessorError, "x"
    # as who sets a field of a copy, past its checks
    return llm.model_copy(update={"temperature": -1.0}), InvalidOptionError, "x"


every_failure = pytest.mark.parametrize("how", ["overflow", "processor", "option"])


@every_mode
@every_failure
async def test_errors_come_through_every_mode(llm: Any, how: str, mode: str) -> None:
    for way in ("sync", "async", "async inside"):
        broken, error, passage = failing(llm, how)
        index = SummaryIndex.from_documents([Document(text=passage)])
        engine = index.as_query_engine(llm=broken, response_mode=mode, use_async=way == "async inside")
        with pytest.raises(error):
            await within(
                engine.aquery(QUESTION) if way == "async" else asyncio.to_thread(engine.query, QUESTION)
            )


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize"])
@every_failure
async def test_errors_come_through_every_streaming_mode(llm: Any, how: str, mode: str) -> None:
    for way in ("sync", "async"):
        broken, error, passage = failing(llm, how)
        index = SummaryIndex.from_documents([Document(text=passage)])
        engine = index.as_query_engine(llm=broken, response_mode=mode, streaming=True)

        async def read() -> None:
            if way == "sync":  # noqa: B023 - it is awaited at once
                await asyncio.to_thread(lambda: list(engine.query(QUESTION).response_gen))  # noqa: B023
            else:
                streamed = await engine.aquery(QUESTION)  # noqa: B023
                async for _ in streamed.async_response_gen():
                    pass

        with pytest.raises(error):
            await within(read())


@pytest.mark.parametrize("mode", ["simple", "context"])
@every_failure
async def test_errors_come_through_chat_engines(
    llm: Any, how: str, mode: str, call: Callable[..., Any], index: SummaryIndex
) -> None:
    broken, error, passage = failing(llm, how)
    engine = chat_engine(broken, mode, index)
    with pytest.raises(error):
        await call(engine, "chat", passage)


# The thread that writes the memory raises too, besides handing the error on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("mode", ["simple", "context"])
@every_failure
async def test_errors_come_through_streamed_chats(llm: Any, how: str, mode: str, index: SummaryIndex) -> None:
    for way in ("sync", "async"):
        broken, error, passage = failing(llm, how)
        engine = chat_engine(broken, mode, index)

        async def read() -> None:
            if way == "sync":  # noqa: B023
                await asyncio.to_thread(lambda: list(engine.stream_chat(passage).response_gen))  # noqa: B023
            else:
                streamed = await engine.astream_chat(passage)  # noqa: B023
                async for _ in streamed.async_response_gen():
                    pass

        with pytest.raises(error):
            await within(read())


async def test_errors_come_through_structured_answers(llm: Any, call: Callable[..., Any]) -> None:
    class Flag(BaseModel):
        up: bool

    for mode in ("compact", "refine", "tree_summarize"):
        broken, error, passage = failing(llm, "processor")
        index = SummaryIndex.from_documents([Document(text=passage)])
        engine = index.as_query_engine(llm=broken, output_cls=Flag, response_mode=mode)
        with pytest.raises(error):
            await call(engine, "query", QUESTION)
        short = index.as_query_engine(llm=llm.model_copy(update={"max_new_tokens": 3}), output_cls=Flag,
                                      response_mode=mode)  # fmt: skip
        with pytest.raises(IncompleteAnswerError):
            await call(short, "query", QUESTION)
