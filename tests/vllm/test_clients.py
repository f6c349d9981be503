"""Clients of OpenAI's API, LangChain's and LlamaIndex's among them, against `cosd serve --engine vllm`."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("llama_index.llms.openai_like")

from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from openai import BadRequestError, NotFoundError, OpenAI
from pydantic import BaseModel, Field

from cosd_core import LanguageModel, RuleVerifier
from cosd_core.serving.vllm import read_provenance
from tests.models import byte_tokenizer
from tests.reference import write
from tests.vllm.conftest import CONTEXT
from tests.vllm.servers import served_by_cosd

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
PROMPT = "The capital of"
LENGTH = 16
ALPHA = 0.8


class Town(BaseModel):
    """A town."""

    name: Literal["Rome", "Oslo"]  # vLLM's grammar admits wrong characters in free strings
    population: Annotated[int, Field(ge=0, le=9999)]


def get_population(town: Literal["Rome", "Oslo"]) -> int:
    """Look up the population of a town."""
    raise NotImplementedError(town)


@pytest.fixture(scope="module")
def url(folders: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "template.jinja").write_text(TEMPLATE, encoding="utf-8")
    arguments = [
        *(folders["draft"], folders["assistant"], "--name", "pair"),
        *("--alpha", str(ALPHA), "--draft-length", "4"),
        f"--vllm-arg=--chat-template={folder / 'template.jinja'}", "--vllm-arg=--tool-call-parser=hermes",
        "--vllm-arg=--enable-auto-tool-choice",
    ]  # fmt: skip
    with served_by_cosd(*arguments, log=folder / "log.txt") as address:
        yield f"{address}/v1"


@pytest.fixture
def client(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="none", max_retries=0)


@pytest.fixture
def chat(url: str) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=url, api_key="none", model="pair", temperature=0, max_tokens=LENGTH, max_retries=0
    )  # type: ignore[arg-type]


@pytest.fixture
def llm(url: str) -> OpenAILike:
    return OpenAILike(
        api_base=url, api_key="none", model="pair", is_chat_model=True, is_function_calling_model=True,
        max_retries=0, temperature=0.0, max_tokens=LENGTH,
    )  # fmt: skip


@pytest.fixture(scope="module")
def text(draft: LanguageModel, assistant: LanguageModel) -> str:
    """The text of the pair behind the prompt; vLLM leaves out an unfinished character at the end."""
    ids = byte_tokenizer()(PROMPT)["input_ids"]
    written = write(draft, [assistant], RuleVerifier(ALPHA), ids, max_new_tokens=LENGTH)
    assert written.replaced
    return str(byte_tokenizer().decode(written.ids)).rstrip("\ufffd")


def test_openai_completes_chats_and_streams(client: OpenAI, text: str) -> None:
    options: dict[str, Any] = {"model": "pair", "max_tokens": LENGTH, "temperature": 0}
    completion = client.completions.create(prompt=PROMPT, **options)
    assert completion.choices[0].text == text
    assert completion.usage is not None
    assert completion.usage.completion_tokens == LENGTH
    messages: Any = [{"role": "user", "content": PROMPT}]
    answer = client.chat.completions.create(
        messages=messages, extra_body={"return_token_ids": True}, **options
    )
    assert answer.choices[0].message.content == text
    assert len(read_provenance(answer.choices[0].model_dump())) == LENGTH
    stream = client.chat.completions.create(messages=messages, stream=True, **options)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == text


def test_openai_gets_errors_of_the_right_class(client: OpenAI) -> None:
    with pytest.raises(NotFoundError):
        client.completions.create(model="other", prompt=PROMPT)
    with pytest.raises(BadRequestError, match="did you mean 'alpha'"):
        client.completions.create(model="pair", prompt=PROMPT, extra_body={"vllm_xargs": {"alpa": 1}})


def test_openai_gets_a_call_of_a_named_tool_and_an_answer_of_a_schema(client: OpenAI) -> None:
    schema = Town.model_json_schema()
    tool: Any = {"type": "function", "function": {"name": "found", "parameters": schema, "strict": True}}
    options: Any = {
        "model": "pair", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0,
        "max_tokens": 170,
    }  # fmt: skip
    chosen: Any = {"type": "function", "function": {"name": "found"}}
    answer = client.chat.completions.create(tools=[tool], tool_choice=chosen, **options)
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.function.name == "found"
    Town.model_validate_json(call.function.arguments)
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "town", "schema": schema}}
    answer = client.chat.completions.create(response_format=wanted, **options)
    Town.model_validate_json(answer.choices[0].message.content or "")


async def test_langchain(chat: ChatOpenAI, text: str) -> None:
    assert chat.invoke(PROMPT).content == text
    assert "".join(str(chunk.content) for chunk in chat.stream(PROMPT)) == text
    assert [each.content for each in await chat.abatch([PROMPT] * 3)] == [text] * 3
    town = chat.with_structured_output(Town, method="json_schema").invoke(PROMPT, max_tokens=170)
    assert isinstance(town, Town)
    (call,) = (
        chat.bind_tools([get_population], tool_choice="get_population", strict=True)
        .invoke(PROMPT, max_tokens=170)
        .tool_calls
    )
    assert call["name"] == "get_population"
    assert list(call["args"]) == ["town"]


def test_llama_index(llm: OpenAILike, text: str) -> None:
    messages = [ChatMessage(role="user", content=PROMPT)]
    assert llm.chat(messages).message.content == text
    *_, last = llm.stream_chat(messages)
    assert last.message.content == text
    schema = {"type": "json_schema", "json_schema": {"name": "town", "schema": Town.model_json_schema()}}
    longer = llm.model_copy(update={"max_tokens": 100})
    answer = longer.chat(messages, response_format=schema).message.content
    Town.model_validate_json(answer or "")


def test_a_context_that_is_too_small_is_an_error(client: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="max_tokens"):
        client.completions.create(model="pair", prompt=PROMPT, max_tokens=CONTEXT + 1)
