"""LangChain's and LlamaIndex's clients of OpenAI's API get what cosd's own classes for them give."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, Field

from langchain_cosd import ChatCoSD
from llama_index_cosd import CoSDLLM
from tests.serving.servers import ASK_POPULATION, Running, chat_pair, serving

SAMPLED: dict[str, Any] = {"temperature": 0.9, "seed": 5, "max_tokens": 20}


def get_population(town: str) -> int:
    """Look up the population of a town."""
    return {"Tamiro": 977}[town]


class Town(BaseModel):
    """A town."""

    name: Annotated[str, Field(max_length=8)]
    population: Annotated[int, Field(ge=0, le=9999)]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    draft, assistant = chat_pair()
    return {"draft_model": draft, "assistant_model": assistant, "alpha": 0.9}


@pytest.fixture
def chat(server: Running) -> ChatOpenAI:
    return ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", model=server.name, max_retries=0)  # type: ignore[arg-type]


@pytest.fixture
def llm(server: Running) -> OpenAILike:
    return OpenAILike(
        api_base=f"{server.url}/v1", api_key="none", model=server.name, is_chat_model=True,
        is_function_calling_model=True, max_retries=0, temperature=0.0, max_tokens=64,
    )  # fmt: skip


def test_langchain_invokes_and_streams(chat: ChatOpenAI, own: dict[str, Any]) -> None:
    wanted = ChatCoSD(**own).invoke("Hello", **SAMPLED)
    answer = chat.invoke("Hello", **SAMPLED)
    assert answer.content == wanted.content
    assert answer.usage_metadata is not None
    assert wanted.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == wanted.usage_metadata["output_tokens"]
    chunks = list(chat.stream("Hello", **SAMPLED))
    assert len(chunks) > 2
    assert "".join(str(chunk.content) for chunk in chunks) == wanted.content


async def test_langchain_batches(chat: ChatOpenAI, own: dict[str, Any]) -> None:
    questions = ["Hello", "How many people live in Tamiro?", "Bye"]
    wanted = [each.content for each in ChatCoSD(**own, max_tokens=12).batch(questions)]
    assert [each.content for each in await chat.abatch(questions, max_tokens=12)] == wanted


def test_a_langchain_tool_is_called_and_its_result_read(chat: ChatOpenAI) -> None:
    with_tools = chat.bind_tools([get_population], max_tokens=64)
    messages: list[BaseMessage] = [HumanMessage(str(ASK_POPULATION[0]["content"]))]
    called = with_tools.invoke(messages)
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("get_population", {"town": "Tamiro"})
    messages += [called, ToolMessage("977", tool_call_id=call["id"])]
    assert "977" in str(with_tools.invoke(messages).content)
    streamed = AIMessageChunk(content="")
    for chunk in with_tools.stream(messages[:1]):
        streamed += chunk
    assert [(each["name"], each["args"]) for each in streamed.tool_calls] == [(call["name"], call["args"])]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_langchain_gets_structured_output(chat: ChatOpenAI, method: Any) -> None:
    structured = chat.bind(max_tokens=128).bound.with_structured_output(Town, method=method)  # type: ignore[attr-defined]
    assert isinstance(structured.invoke("Tamiro has 977 people."), Town)


def test_llama_index_chats_completes_and_streams(llm: OpenAILike, own: dict[str, Any]) -> None:
    wanted = CoSDLLM(**own, max_tokens=64).chat([ChatMessage(role="user", content="Hello")])
    messages = [ChatMessage(role="user", content="Hello")]
    assert llm.chat(messages).message.content == wanted.message.content
    *_, last = llm.stream_chat(messages)
    assert last.message.content == wanted.message.content


def test_a_llama_index_tool_is_called(llm: OpenAILike) -> None:
    tool = FunctionTool.from_defaults(get_population)
    response = llm.chat_with_tools([tool], user_msg=str(ASK_POPULATION[0]["content"]))
    (call,) = llm.get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("get_population", {"town": "Tamiro"})


def test_llama_index_gets_structured_output(llm: OpenAILike) -> None:
    structured = llm.as_structured_llm(Town)
    town = structured.chat([ChatMessage(role="user", content="Tamiro has 977 people.")]).raw
    assert isinstance(town, Town)
