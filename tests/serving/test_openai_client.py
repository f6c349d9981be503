"""The official client gets what a call of the decoder gives: texts, chats, streams, tools, schemas."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import openai
import pytest
from pydantic import BaseModel, Field

from cosd_core import Chat, Turn, explain
from tests.serving.servers import ASK_POPULATION, HELLO, POPULATION, Running, decoder, serving

SAMPLED = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "max_tokens": 24}
CORE_SAMPLED = {"temperature": 0.9, "top_p": 0.95, "seed": 7, "max_new_tokens": 24}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def expected(messages: list[dict[str, Any]], **options: Any) -> Any:
    turn = Turn(Chat(messages), decoder().models)
    return decoder().generate(turn.prompt, grammar=turn.grammar, **options)


def test_the_pair_is_the_one_model(client: openai.OpenAI, server: Running) -> None:
    assert [model.id for model in client.models.list()] == [server.name]
    assert client.models.retrieve(server.name).owned_by == "cosd"
    with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("asked", "options"), [({"max_tokens": 24}, {"max_new_tokens": 24}), (SAMPLED, CORE_SAMPLED)]
)
def test_a_completion_is_the_text_of_the_decoder(
    client: openai.OpenAI, server: Running, asked: Any, options: Any
) -> None:
    answer = client.completions.create(model=server.name, prompt="The town of", **asked)
    wanted = decoder().generate("The town of", **options)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == (wanted.text, wanted.finish_reason)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == wanted.prompt_tokens
    assert answer.usage.completion_tokens == len(wanted.token_ids)
    chunks = list(client.completions.create(model=server.name, prompt="The town of", stream=True, **asked))
    assert "".join(chunk.choices[0].text for chunk in chunks) == wanted.text
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == [
        wanted.finish_reason
    ]


def test_several_prompts_have_their_choices_in_order(client: openai.OpenAI, server: Running) -> None:
    prompts = ["The town of", decoder().draft.encode("Hello")]
    answer = client.completions.create(
        model=server.name, prompt=["The town of", "Hello"], n=2, temperature=1, seed=3, max_tokens=6
    )
    wanted = [
        decoder().generate(prompt, temperature=1.0, seed=3 + number, max_new_tokens=6).text
        for prompt in prompts
        for number in range(2)
    ]
    assert [choice.text for choice in answer.choices] == wanted
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert wanted[0] != wanted[1]


def test_a_prompt_of_token_ids_is_that_text(client: openai.OpenAI, server: Running) -> None:
    ids = decoder().draft.encode("The town of")
    by_ids = client.completions.create(model=server.name, prompt=ids, max_tokens=6)
    assert by_ids.choices[0].text == decoder().generate(ids, max_new_tokens=6).text


def test_a_chat_is_the_text_of_the_decoder(client: openai.OpenAI, server: Running) -> None:
    wanted = expected(HELLO, **CORE_SAMPLED)
    answer = client.chat.completions.create(model=server.name, messages=HELLO, **SAMPLED)
    assert answer.choices[0].message.content == wanted.text
    chunks = list(
        client.chat.completions.create(
            model=server.name,
            messages=HELLO,
            stream=True,
            stream_options={"include_usage": True},
            **SAMPLED,
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == wanted.text
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == answer.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_choices_of_a_chat_have_seeds_one_after_another(client: openai.OpenAI, server: Running) -> None:
    answer = client.chat.completions.create(model=server.name, messages=HELLO, n=2, **SAMPLED)
    wanted = [expected(HELLO, **{**CORE_SAMPLED, "seed": seed}).text for seed in (7, 8)]
    assert [choice.message.content for choice in answer.choices] == wanted


def test_an_answer_of_the_client_continues_the_chat(client: openai.OpenAI, server: Running) -> None:
    first = client.chat.completions.create(model=server.name, messages=HELLO, max_tokens=16)
    messages = [
        {"role": "developer", "content": "Be brief."},
        *HELLO,
        first.choices[0].message,
        {"role": "user", "content": [{"type": "text", "text": "Bye"}]},
    ]
    again = client.chat.completions.create(model=server.name, messages=messages, max_tokens=16)  # type: ignore[arg-type]
    core = [
        {"role": "system", "content": "Be brief."},
        *HELLO,
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": "Bye"},
    ]
    assert again.choices[0].message.content == expected(core, max_new_tokens=16).text


def test_a_tool_call_whole_and_in_a_stream(client: openai.OpenAI, server: Running) -> None:
    asked: Any = {"model": server.name, "messages": ASK_POPULATION, "tools": [POPULATION], "max_tokens": 64}
    answer = client.chat.completions.create(**asked)
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_population",
        {"town": "Tamiro"},
    )
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion()
    assert streamed.choices[0].finish_reason == "tool_calls"
    (same,) = streamed.choices[0].message.tool_calls or ()
    assert same.function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "977"}
    final = client.chat.completions.create(
        **{**asked, "messages": [*ASK_POPULATION, answer.choices[0].message, result]}
    )
    assert "977" in (final.choices[0].message.content or "")


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_population"}}])
def test_a_forced_tool_is_called_and_a_forbidden_one_is_not(
    client: openai.OpenAI, server: Running, choice: Any
) -> None:
    asked: Any = {"model": server.name, "messages": HELLO, "tools": [POPULATION], "max_tokens": 64}
    forced = client.chat.completions.create(**asked, tool_choice=choice)
    assert [call.function.name for call in forced.choices[0].message.tool_calls or ()] == ["get_population"]  # type: ignore[union-attr]
    free = client.chat.completions.create(**{**asked, "messages": ASK_POPULATION}, tool_choice="none")
    assert not free.choices[0].message.tool_calls


def test_a_call_that_is_cut_is_no_complete_one(client: openai.OpenAI, server: Running) -> None:
    answer = client.chat.completions.create(
        model=server.name, messages=ASK_POPULATION, tools=[POPULATION], tool_choice="required", max_tokens=8
    )  # type: ignore[call-overload]
    assert answer.choices[0].finish_reason == "length"
    assert "cut" in answer.choices[0].schema_error


class Town(BaseModel):
    """A town."""

    name: Annotated[str, Field(max_length=8)]
    population: Annotated[int, Field(ge=0, le=9999)]


def test_an_answer_follows_a_schema(client: openai.OpenAI, server: Running) -> None:
    asked: Any = {
        "model": server.name,
        "messages": [{"role": "user", "content": "Tamiro has 977 people."}],
        "max_tokens": 128,
    }
    answer = client.chat.completions.parse(**asked, response_format=Town)
    assert isinstance(answer.choices[0].message.parsed, Town)
    as_object = client.chat.completions.create(
        **{**asked, "max_tokens": 8}, response_format={"type": "json_object"}
    )
    text = as_object.choices[0].message.content or ""
    assert text.lstrip().startswith("{")


def test_logprobs_are_those_of_the_trace(client: openai.OpenAI, server: Running) -> None:
    asked: Any = {"model": server.name, "messages": HELLO, "max_tokens": 12}
    answer = client.chat.completions.create(
        **asked, logprobs=True, top_logprobs=2, extra_body={"provenance": True}
    )
    trace = explain.as_generation(answer.model_dump_json())
    assert trace.tokens == expected(HELLO, max_new_tokens=12).tokens
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert [entry.token for entry in logprobs.content or ()] == [token.text for token in trace.tokens]
    streamed = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2, stream=True)
    pieces = [chunk.choices[0].logprobs for chunk in streamed]
    assert [entry for piece in pieces if piece for entry in piece.content or ()] == logprobs.content
    text = client.completions.create(model=server.name, prompt="The town of", max_tokens=8, logprobs=1)
    legacy = text.choices[0].logprobs
    assert legacy is not None
    assert "".join(legacy.tokens or ()).startswith(text.choices[0].text)
    assert [len("".join((legacy.tokens or [])[:at])) for at in range(8)] == legacy.text_offset


def test_the_trace_of_a_stream_comes_token_by_token_and_whole(client: openai.OpenAI, server: Running) -> None:
    stream = client.chat.completions.create(
        model=server.name, messages=HELLO, max_tokens=12, stream=True, extra_body={"provenance": True}
    )
    pieces = [chunk.choices[0].provenance for chunk in stream]  # type: ignore[attr-defined]
    tokens = [token for piece in pieces[:-1] for token in piece["tokens"]]
    whole = pieces[-1]
    assert tokens == whole["tokens"][: len(tokens)]
    assert "".join(token["text"] for token in tokens).startswith(whole["text"])


def test_settings_of_the_pair_change_single_requests(client: openai.OpenAI, server: Running) -> None:
    def sources(**body: Any) -> set[str]:
        answer = client.completions.create(
            model=server.name, prompt="The town of", max_tokens=12, extra_body={"provenance": True, **body}
        )
        return {token["source"] for token in answer.choices[0].provenance["tokens"]}  # type: ignore[attr-defined]

    assert sources(alpha=0.0) == {"draft"}
    assert sources(verifier="draft") == {"draft"}
    assert "assistant" in sources(verifier="assistant")
    assert "assistant" in sources(alpha=1.0, beta=0.0)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"frequency_penalty": 1.5}, "frequency_penalty", "not supported"),
        ({"logit_bias": {"1": 2}}, "logit_bias", "not supported"),
        ({"extra_body": {"tree_path": "/etc/passwd"}}, "tree_path", "unknown option"),
        ({"extra_body": {"temprature": 1}}, "temprature", "did you mean 'temperature'"),
        ({"extra_body": {"alpha": "high"}}, "alpha", "valid number"),
        ({"extra_body": {"verifier": "oracle"}}, "verifier", "should be"),
        ({"extra_body": {"verifier": "draft", "alpha": 0.3}}, "alpha", "verifier"),
        ({"extra_body": {"draft_length": 0}}, "draft_length", "greater than or equal to 1"),
        ({"max_tokens": 100_000}, "max_tokens", "context window"),
        ({"stop": [""]}, "stop", "at least 1 character"),
        ({"tools": [{"type": "function"}]}, "tools", "should be"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "should be"),
        ({"top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "same limit"),
        ({"messages": []}, "messages", "at least 1 item"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages.0.role", "should be"),
        ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages.0.mood", "unknown key"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages", "text only"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_with_the_name_of_its_parameter(
    client: openai.OpenAI, server: Running, body: Any, param: str, words: str
) -> None:
    asked: Any = {"model": server.name, "messages": HELLO, **body}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked)
    assert caught.value.param == param
    assert words in caught.value.message
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [], "stream": True}, "prompt"),
        ({"prompt": ["x", ""], "stream": True}, "prompt"),
        ({"prompt": [100_000]}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 2}, "n"),
        ({"logprobs": 6}, "logprobs"),
        ({"extra_body": {"messages": []}}, "messages"),
    ],
    ids=str,
)
def test_a_wrong_completion_is_refused(client: openai.OpenAI, server: Running, body: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": server.name, "prompt": "x", **body})
    assert caught.value.param == param


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt", messages=HELLO)  # type: ignore[arg-type]
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_fields_that_cannot_change_a_text_have_no_effect(client: openai.OpenAI, server: Running) -> None:
    harmless: Any = {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
    answers = [
        client.chat.completions.create(model=server.name, messages=HELLO, max_tokens=8, **more)  # type: ignore[call-overload]
        for more in ({}, {**harmless, "presence_penalty": 0, "logit_bias": {}, "n": 1})
    ]
    assert answers[0].choices == answers[1].choices


def test_bytes_that_are_no_request_are_refused_in_words(server: Running) -> None:
    url = "/v1/chat/completions"
    as_json = {"content-type": "application/json"}
    for content, headers, words in (
        (b"{", as_json, "no JSON"),
        (b'{"model": NaN}', as_json, "model"),
        (b"[" * 5000, as_json, "body"),
        (b"\xff\xfe", as_json, "body"),
        (b"{}", {}, "application/json"),
        (b"{}", {"content-type": "text/plain"}, "application/json"),
        (b"", as_json, "JSON object"),
        (b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}', as_json, "model"),
    ):
        response = server.client.post(url, content=content, headers=headers)
        assert response.status_code in (400, 404), content
        assert words in response.json()["error"]["message"]
    assert server.client.get("/v2").status_code == 404
    assert server.client.get(url).status_code == 405
    assert server.client.get(url).json()["error"]["type"] == "invalid_request_error"
