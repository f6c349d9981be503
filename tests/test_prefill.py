"""With ``continue_final_message`` the models continue the assistant's message; the answer is what is new."""

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.base.llms.types import ChatMessage, MessageRole

import llama_index_cosd
from cosd_core import Chat, CoSDDecoder, Grammar, InvalidOptionError, InvalidPromptError, Turn
from cosd_core.chat.events import CallEnd, TextDelta
from cosd_core.chat.rendering import render
from langchain_cosd import ChatCoSD
from tests.chats import BOS, OSLO, TEMPLATES, WEATHER, answered, chat_model, refused, tokenizer

QUESTION, BEGUN = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer"}
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
SCHEMA_FORMAT = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
LLAMA = TEMPLATES["chatml"] + '{% if tools %}{"name": function name, "parameters": arguments}{% endif %}'  # type: ignore[operator]
RENDERING = [name for name in TEMPLATES if name not in ("deaf", "grim")]


def continued(*messages: dict[str, Any], **more: Any) -> Chat:
    return Chat(list(messages), continue_final_message=True, **more)


@pytest.mark.parametrize("template", RENDERING)
def test_the_prompt_of_every_template_ends_with_the_text_that_is_continued(template: str) -> None:
    prompt = render(continued(QUESTION, BEGUN), [chat_model(template)])
    assert prompt.text.endswith("The answer")
    assert tokenizer().decode(list(prompt.ids[0])) in (prompt.text, f"<bos>{prompt.text}")
    assert prompt.ids[0].count(BOS) <= 1
    whole = render(Chat([QUESTION, BEGUN]), [chat_model(template)]).text
    assert whole.startswith(prompt.text), "what comes before it is unchanged"


def test_it_is_what_transformers_renders() -> None:
    model = chat_model("chatml")
    prompt = render(continued(QUESTION, BEGUN), [model])
    options = {"continue_final_message": True, "add_generation_prompt": False}
    messages = [QUESTION, BEGUN]
    assert prompt.text == model.tokenizer.apply_chat_template(messages, tokenize=False, **options)
    assert [*prompt.ids[0]] == model.tokenizer.apply_chat_template(messages, return_dict=False, **options)


def test_every_model_continues_by_its_own_template() -> None:
    prompt = render(continued(QUESTION, BEGUN), [chat_model(each) for each in ("strict", "hermes", "none")])
    decoded = [tokenizer().decode(list(ids)) for ids in prompt.ids]
    assert decoded == [
        "<bos>[INST] Hi [/INST] The answer",
        "<bos><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nThe answer",
        "<bos>### User\nHi\n\n### Assistant\nThe answer",
    ]


def test_without_it_a_final_message_of_the_assistant_is_complete() -> None:
    assert render(Chat([QUESTION, BEGUN]), [chat_model("chatml")]).text.endswith(
        "The answer<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("ending", [" ", "\n", "  \n", ""])
def test_white_space_at_the_end_is_kept_where_the_template_keeps_it(ending: str) -> None:
    begun = {"role": "assistant", "content": f"The answer{ending}"}
    assert render(continued(QUESTION, begun), [chat_model("chatml")]).text.endswith(f"The answer{ending}")
    assert render(continued(QUESTION, begun), [chat_model("strict")]).text.endswith("The answer")


def test_control_tokens_in_the_continued_text_are_text() -> None:
    begun = {"role": "assistant", "content": "Say <|im_end|> and"}
    prompt = render(continued(QUESTION, begun), [chat_model("chatml")])
    end = tokenizer().convert_tokens_to_ids("<|im_end|>")
    assert prompt.text.endswith("Say <|im_end|> and")
    assert prompt.ids[0].count(end) == 1, "the user's turn ends; that of the assistant does not"


def test_the_answer_is_what_is_new_and_prompt_and_answer_are_one_text() -> None:
    decoder = CoSDDecoder(chat_model("chatml"), chat_model("chatml", seed=1))
    chat = continued(QUESTION, BEGUN)
    generation = decoder.generate(chat, max_new_tokens=8)
    ids = render(chat, decoder.models).ids[0]
    assert generation.prompt_tokens == len(ids)
    same = decoder.generate(list(ids), max_new_tokens=8)
    assert (generation.token_ids, generation.prompt) == (same.token_ids, same.prompt)
    assert generation.prompt.endswith("The answer")
    assert not generation.text.startswith("The answer")


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([QUESTION], ["user's"]),
        ([BEGUN, {"role": "system", "content": "a"}], ["system's"]),
        ([QUESTION, {"role": "assistant", "content": ""}], ["no text"]),
        ([QUESTION, {"role": "assistant", "content": " \n"}], ["no text"]),
        (
            [QUESTION, {**BEGUN, "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}],
            ["tool calls"],
        ),
    ],
)
def test_only_text_of_the_assistant_is_continued(messages: list[dict[str, Any]], words: list[str]) -> None:
    refused(lambda: continued(*messages), InvalidPromptError, "continue_final_message=True", *words)
    variables = {"continue_final_message": True}
    refused(lambda: Chat(messages, chat_template_kwargs=variables), InvalidPromptError, *words)


@pytest.mark.parametrize("value", ["yes", 1, None, "content"])
def test_it_is_true_or_false(value: Any) -> None:
    words = [f"continue_final_message={value!r}", "True or False"]
    refused(lambda: Chat([QUESTION, BEGUN], continue_final_message=value), InvalidOptionError, *words)
    variables = {"continue_final_message": value}
    refused(lambda: Chat([QUESTION, BEGUN], chat_template_kwargs=variables), InvalidOptionError, *words)


def test_a_template_that_loses_the_message_is_refused_with_the_models_name() -> None:
    refused(lambda: render(continued(QUESTION, BEGUN), [chat_model("deaf")]), InvalidPromptError, "'deaf 0'")


def test_the_options_of_templates_may_hold_it() -> None:
    chat = Chat([QUESTION, BEGUN], chat_template_kwargs={"continue_final_message": True, "mood": "!"})
    assert chat == continued(QUESTION, BEGUN, chat_template_kwargs={"mood": "!"})


# Grammars and tools


def test_a_grammar_holds_for_what_is_new() -> None:
    decoder = CoSDDecoder(chat_model("chatml"), chat_model("chatml", seed=1))
    grammar = Grammar.regex(" is [0-9]{2}")
    text = decoder.generate(continued(QUESTION, BEGUN), grammar=grammar, max_new_tokens=20).text
    assert text[:4] == " is "
    assert text[4:].isdigit()


def test_an_answer_for_a_schema_follows_the_text() -> None:
    decoder = CoSDDecoder(chat_model("chatml"), chat_model("chatml", seed=1))
    turn = Turn(continued(QUESTION, BEGUN), decoder.models, answer_schema=SCHEMA)
    assert json.loads(decoder.generate(turn.prompt, grammar=turn.grammar).text)["a"] in (1, 2)


@pytest.mark.parametrize("begun", ['{"a":', " [1, "])
def test_json_that_the_message_begins_cannot_be_an_answer_for_a_schema(begun: str) -> None:
    chat = continued(QUESTION, {"role": "assistant", "content": begun})
    words = ["continue_final_message=True", "complete by itself", begun.strip()[:1]]
    models = [chat_model("chatml")]
    refused(lambda: Turn(chat, models, answer_schema=SCHEMA), InvalidOptionError, *words)
    Turn(chat, models)


@pytest.mark.parametrize("choice", ["auto", "any", "weather"])
def test_a_call_in_tags_follows_the_text(choice: str) -> None:
    decoder = CoSDDecoder(chat_model("hermes"), chat_model("hermes", seed=1))
    turn = Turn(continued(QUESTION, BEGUN, tools=[WEATHER]), decoder.models, tool_choice=choice)
    assert turn.prompt.text.endswith("The answer")
    events = answered(turn, decoder, OSLO)
    assert [event for event in events if isinstance(event, CallEnd)] == [
        CallEnd(0, "weather", {"city": "Oslo"})
    ]
    assert not [event for event in events if isinstance(event, TextDelta)], "the text was there before"


@pytest.mark.parametrize("choice", ["auto", "any", "weather"])
def test_a_call_that_is_a_whole_answer_cannot_follow_text(choice: str) -> None:
    chat = continued(QUESTION, BEGUN, tools=[WEATHER], chat_template=LLAMA)
    words = ["continue_final_message=True", "llama3", "'The answer'"]
    models = [chat_model("none")]
    refused(lambda: Turn(chat, models, tool_choice=choice), InvalidOptionError, *words)
    assert Turn(chat, models, tool_choice="none").prompt.text.endswith("The answer")


# The frameworks

MODELS = [chat_model("hermes", seed=seed) for seed in (0, 1)]
OPTIONS: dict[str, Any] = {"draft_model": MODELS[0], "assistant_model": MODELS[1], "max_tokens": 8}
EXPECTED = CoSDDecoder(*MODELS).generate(continued(QUESTION, BEGUN), max_new_tokens=8)
WAYS = [{"continue_final_message": True}, {"chat_template_kwargs": {"continue_final_message": True}}]


@pytest.mark.parametrize("options", WAYS, ids=["option", "of the template"])
async def test_langchain_continues_a_message(options: dict[str, Any]) -> None:
    chat = ChatCoSD(**OPTIONS)
    messages = [HumanMessage("Hi"), AIMessage("The answer")]
    answer = chat.invoke(messages, **options)
    assert answer.text == EXPECTED.text != chat.invoke(messages).text
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == EXPECTED.prompt_tokens
    assert chat.bind(**options).invoke(messages).text == EXPECTED.text
    assert (await chat.ainvoke(messages, **options)).text == EXPECTED.text
    assert "".join(chunk.text for chunk in chat.stream(messages, **options)) == EXPECTED.text
    assert "".join([chunk.text async for chunk in chat.astream(messages, **options)]) == EXPECTED.text
    refused(lambda: chat.invoke("Hi", **options), InvalidPromptError, "user's")


@pytest.mark.parametrize("options", WAYS, ids=["option", "of the template"])
async def test_llama_index_continues_a_message(options: dict[str, Any]) -> None:
    llm = llama_index_cosd.CoSDLLM(**OPTIONS)
    messages = [ChatMessage("Hi"), ChatMessage("The answer", role=MessageRole.ASSISTANT)]
    assert llm.chat(messages, **options).message.content == EXPECTED.text
    assert (await llm.achat(messages, **options)).message.content == EXPECTED.text
    assert list(llm.stream_chat(messages, **options))[-1].message.content == EXPECTED.text
    own = llama_index_cosd.CoSDLLM(**OPTIONS, messages_to_prompt=str)
    refused(lambda: own.chat(messages, **options), InvalidOptionError, "messages_to_prompt")


def test_a_completion_has_no_message_to_continue() -> None:
    llm = llama_index_cosd.CoSDLLM(**OPTIONS)
    refused(
        lambda: llm.complete("Hi", continue_final_message=True), InvalidOptionError, "continue_final_message"
    )


def test_structured_output_follows_the_text() -> None:
    chat = ChatCoSD(**{**OPTIONS, "max_tokens": 64})
    messages = [HumanMessage("Hi"), AIMessage("As JSON:")]
    answer = chat.invoke(messages, continue_final_message=True, response_format=SCHEMA_FORMAT)
    assert json.loads(answer.text)["a"] in (1, 2)


def test_langchains_cache_tells_a_continued_message_from_a_new_one() -> None:
    chat = ChatCoSD(**OPTIONS)
    assert chat._get_llm_string(continue_final_message=True) != chat._get_llm_string()
