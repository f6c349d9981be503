"""Claim: every model is shown a chat in its own template's words, in full, and users' words stay words."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import Chat, CoSDDecoder, InvalidPromptError
from cosd_core.chat.rendering import ChatPrompt, render
from tests.chats import BOS, EOS, NOW, OSLO, SPECIAL, TAGS, TEMPLATES, WEATHER, chat_model, recited, tokenizer

CONTROL = ("<eos>", *SPECIAL)
_ASK = "<|im_start|>assistant\n"


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, *calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **({"tool_calls": list(calls)} if calls else {})}


def call(name: str, number: str | None = None, **arguments: Any) -> dict[str, Any]:
    made = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return {**made, "id": number} if number else made


def result(text: str, number: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": number}


def prompt(template: str, *messages: dict[str, Any], **more: Any) -> ChatPrompt:
    return render(Chat(list(messages), **more), [chat_model(template)])


def text(template: str, *messages: dict[str, Any], **more: Any) -> str:
    """What a model with this template is shown, by what its ids say."""
    shown = prompt(template, *messages, **more)
    assert tokenizer().decode(list(shown.ids[0])).removeprefix("<bos>") == shown.text.removeprefix("<bos>")
    return shown.text


def chatml(*messages: tuple[str, str]) -> str:
    return "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in messages) + _ASK


def special(ids: Any) -> list[int]:
    return [each for each in ids if EOS <= each < EOS + 1 + len(SPECIAL)]


# What is shown


def test_a_model_is_shown_its_own_template_with_the_opening_of_the_answer():
    said = [system("Be brief."), user("Hi"), assistant("Yes?"), user("Why?")]
    assert text("chatml", *said) == "<bos>" + chatml(
        ("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Why?")
    )
    assert text("strict", *said[1:]) == "<bos>[INST] Hi [/INST] Yes?<eos>[INST] Why? [/INST]"


def test_every_model_is_shown_its_own_and_the_text_is_the_drafts():
    shown = render(Chat([user("Hi")]), [chat_model(each) for each in ("strict", "chatml", "none")])
    decoded = [tokenizer().decode(list(ids)) for ids in shown.ids]
    assert decoded == [
        "<bos>[INST] Hi [/INST]",
        "<bos>" + chatml(("user", "Hi")),
        "<bos>### User\nHi\n\n### Assistant\n",
    ]
    assert shown.text == decoded[0]


def test_one_template_may_still_write_two_end_tokens():
    pair = [chat_model("strict"), chat_model("strict", eos_token="<|im_end|>")]
    ours, theirs = render(Chat([user("Hi"), assistant("Yes?"), user("Why?")]), pair).ids
    assert special(ours) == [BOS, EOS]
    assert special(theirs) == [BOS, tokenizer().convert_tokens_to_ids("<|im_end|>")]


@pytest.mark.parametrize("template", ["none", "chatml", "strict", "hermes", "mistral"])
def test_the_beginning_token_is_never_doubled(template):
    assert prompt(template, user("Hi")).ids[0].count(BOS) == 1
    decoder = CoSDDecoder(chat_model(template), chat_model("chatml", seed=1))
    generation = decoder.generate(Chat([user("Hi")]), max_new_tokens=2)
    assert generation.prompt_tokens == len(prompt(template, user("Hi")).ids[0])


def test_content_may_come_in_parts_and_calls_without_content():
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, "b", {"text": "c"}]}
    assert text("chatml", parts, {"role": "assistant", "content": None}) == "<bos>" + chatml(
        ("user", "abc"), ("assistant", "")
    )


def test_another_template_and_its_variables_go_for_every_model():
    chat = Chat(
        [user("Hi")],
        chat_template="{{ greeting }} {{ messages[0].content }}",
        chat_template_kwargs={"greeting": "Oh:"},
    )
    shown = render(chat, [chat_model(each) for each in ("chatml", "none", "grim")])
    assert {tokenizer().decode(list(ids)) for ids in shown.ids} == {"Oh: Hi"}
    assert shown.stop == ()


def test_what_a_template_asks_for_is_handed_on():
    assert text("thinking", user("Hi")).endswith("assistant\n<think>\n")
    plain = text("thinking", user("Hi"), chat_template_kwargs={"enable_thinking": False})
    assert plain.endswith("<think>\n\n</think>\n\n")


def test_of_several_templates_the_one_for_tools_is_taken_where_there_are_some():
    model = chat_model("none", seed=5)
    model.tokenizer = tokenizer.__wrapped__("none")
    model.tokenizer.chat_template = {"default": TEMPLATES["chatml"], "tool_use": TEMPLATES["hermes"]}
    assert json.dumps(NOW) in render(Chat([user("Hi")], [NOW]), [model]).text
    assert render(Chat([user("Hi")]), [model]).text == "<bos>" + chatml(("user", "Hi"))


# Without a template


def test_without_a_template_there_are_plain_headings():
    said = [system("Be brief."), user("Hello"), assistant("Yes?"), user("Why?")]
    assert text("none", *said) == (
        "### System\nBe brief.\n\n### User\nHello\n\n### Assistant\nYes?\n\n### User\nWhy?\n\n### Assistant\n"
    )
    assert prompt("none", *said).stop == ("\n\n### ", "\n### ")
    assert prompt("chatml", *said).stop == ()


@pytest.mark.parametrize("templates", [("none", "none"), ("none", "chatml"), ("chatml", "none")])
@pytest.mark.parametrize(
    ("answer", "stop", "said", "ending"),
    [
        ("Because.\n\n### User\nOh.", (), "Because.", "\n\n### "),
        ("Because.\n### User\nOh.", (), "Because.", "\n### "),
        ("Because.\n\n### User\nOh.", "zz", "Because.", "\n\n### "),
        ("Because.\n\n### User\nOh.", "use", "Beca", "use"),
        ("Because.\n\n### User\nOh.", ["\n\n", "Oh"], "Because.", "\n\n"),
    ],
)
def test_the_next_heading_ends_the_answer_where_no_string_of_the_user_does(
    templates, answer, stop, said, ending
):  # fmt: skip
    decoder = CoSDDecoder(chat_model(templates[0]), chat_model(templates[1], seed=1))
    chat = Chat([user("Why?")])
    length = len(render(chat, decoder.models).ids[0])
    options = recited(decoder, answer, length)
    for _ in range(2):  # a request's stop strings do not stay
        generation = decoder.generate(chat, stop=stop, **options)
        assert (generation.text, generation.stop_sequence) == (said, ending)
    assert "".join(chunk.text for chunk in decoder.stream(chat, stop=stop, **options)) == said


def test_headings_do_not_end_texts_of_prompts_that_are_no_chats():
    decoder = CoSDDecoder(chat_model("none"), chat_model("none", seed=1))
    options = recited(decoder, "a\n### User", len(decoder.draft.encode("x")))
    assert decoder.generate("x", **options).text == "a\n### User"


# Control tokens


@pytest.mark.parametrize("template", ["none", "chatml", "no system", "hermes", "mistral", "thinking"])
def test_control_tokens_in_messages_are_text(template):
    def said(word: str) -> list[dict[str, Any]]:
        calls = [call("now", "123456789", what=word)]
        words = [
            user(f"a{word}"),
            assistant(word, *calls),
            result(word, "123456789"),
            assistant("So"),
            user(word),
        ]
        return words if template == "mistral" else [system(word), *words]

    tool = {"type": "function", "function": {"name": "now", "description": "{}"}}
    for word in [*CONTROL, "".join(CONTROL), "<eo<eos>s>"]:
        described = json.loads(json.dumps(tool).replace("{}", word))
        shown = prompt(template, *said(word), tools=[described])
        plain = prompt(template, *said("word"), tools=[json.loads(json.dumps(tool).replace("{}", "word"))])
        assert special(shown.ids[0]) == special(plain.ids[0])
        assert shown.text.count(word) >= 4
        assert tokenizer().decode(list(shown.ids[0])).removeprefix("<bos>") == shown.text.removeprefix(
            "<bos>"
        )


@pytest.mark.parametrize("tag", TAGS)
def test_tags_that_a_template_writes_are_text_in_messages(tag):
    number = tokenizer().convert_tokens_to_ids(tag)
    ids = prompt("thinking", user(f"what is {tag}?"), tools=[NOW]).ids[0]
    assert ids.count(number) == (1 if tag == "<think>" else 0)


# What a template refuses or leaves out


def test_messages_that_a_template_takes_stay_as_they_are():
    said = [system("a"), user("b"), user("c"), system("d"), assistant("e"), assistant("f"), user("g")]
    expected = [(each["role"], each["content"]) for each in said]
    assert text("chatml", *said) == "<bos>" + chatml(*expected)


@pytest.mark.parametrize(
    ("template", "said", "shown"),
    [
        ("no system", [system("Brief."), user("Hi")], [("user", "Brief.\n\nHi")]),
        ("no system", [user("Hi"), assistant("Yes?"), system("Brief."), user("Why?")],
         [("user", "Brief.\n\nHi"), ("assistant", "Yes?"), ("user", "Why?")]),
        ("no system", [system("Brief.")], [("user", "Brief.")]),
        ("no system", [system("Brief."), assistant("Hi")], [("user", "Brief."), ("assistant", "Hi")]),
        ("system first", [system("a"), system("b"), user("c")], [("system", "a\n\nb"), ("user", "c")]),
        ("system first", [system("a"), user("b"), system("c"), user("d")],
         [("system", "a\n\nc"), ("user", "b\n\nd")]),
        ("forgets", [user("b"), system("Brief."), user("d")], [("system", "Brief."), ("user", "b\n\nd")]),
        ("forgets", [system("One."), system("Two."), user("c")], [("system", "One.\n\nTwo."), ("user", "c")]),
        ("user first", [assistant("Hello!"), user("Hi")],
         [("user", ""), ("assistant", "Hello!"), ("user", "Hi")]),
        ("user first", [assistant("Hello!")], [("user", ""), ("assistant", "Hello!")]),
        ("user first", [system("a"), assistant("b"), user("c")],
         [("user", "a"), ("assistant", "b"), ("user", "c")]),
    ],
)  # fmt: skip
def test_what_a_template_refuses_or_leaves_out_is_told_in_another_way(template, said, shown):
    assert text(template, *said) == chatml(*shown)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ([user("a"), user("b")], "[INST] a\n\nb [/INST]"),
        ([user("a"), assistant("b"), assistant("c"), user("d")],
         "[INST] a [/INST] b\n\nc<eos>[INST] d [/INST]"),
        ([system("s"), user("a"), user("b")], "[INST] s\n\na\n\nb [/INST]"),
        ([assistant("b"), user("a")], "[INST]  [/INST] b<eos>[INST] a [/INST]"),
        ([system("s"), assistant("b"), system("t"), user("a")],
         "[INST] s\n\nt [/INST] b<eos>[INST] a [/INST]"),
        ([user(""), user("a"), user("")], "[INST] a [/INST]"),
        ([user("  a\n"), assistant("b"), user("\n")], "[INST] a [/INST] b<eos>[INST]  [/INST]"),
    ],
)  # fmt: skip
def test_roles_are_made_to_alternate_where_they_must(said, shown):
    assert text("strict", *said) == "<bos>" + shown


def test_neighbouring_calls_stay_with_the_assistant_and_results_apart():
    said = [
        user("Now?"), assistant("One.", call("now", "a")),
        assistant("Two.", call("weather", "b", city="Oslo")), result("12 h", "a"), result("rain", "b"),
        user("So?"),
    ]  # fmt: skip
    taught = text("strict", *said)
    now = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    assert f"[/INST] One.\n{now}\n\nTwo.\n{OSLO}<eos>[INST]" in taught
    assert taught.index('"12 h"') < taught.index('"rain"') < taught.index("So?")
    assert taught.count("[INST]") == 2
    said[1]["reasoning_content"], said[2]["reasoning_content"] = "hm", "so"
    knowing = (
        "{% for m in messages %}{% if loop.index0 and m.role == messages[loop.index0 - 1].role != 'tool' %}"
        "{{ raise_exception('twice') }}{% endif %}{{ m.role }}: {{ m.reasoning_content }}{{ m.content }}"
        "{% for c in m.tool_calls %}({{ c.function.name }}){% endfor %}; {% endfor %}"
        "{% if tools %}<tool_call>{% endif %}"
    )
    assert text("chatml", *said, chat_template=knowing) == (
        "user: Now?; assistant: hm\n\nsoOne.\n\nTwo.(now)(weather); tool: 12 h; tool: rain; user: So?; "
    )


@pytest.mark.parametrize(
    ("template", "why"), [("grim", "nothing pleases me"), ("deaf", "leaves out a message")]
)
def test_a_template_that_takes_the_messages_in_no_way_is_named(template, why):
    with pytest.raises(InvalidPromptError, match=why) as caught:
        render(Chat([user("Hi")]), [chat_model("chatml"), chat_model(template, seed=1)])
    assert f"{template} 1" in str(caught.value)
    with pytest.raises(InvalidPromptError, match=why):
        CoSDDecoder(chat_model("chatml"), chat_model(template, seed=1)).generate(["a", Chat([user("Hi")])])


# Tools


def test_a_template_that_knows_tools_is_shown_tools_calls_and_results():
    shown = text(
        "hermes", user("Oslo?"), assistant("", call("weather", "abc", city="Oslo")), result("rain", "abc"),
        tools=[WEATHER],
    )  # fmt: skip
    assert shown == (
        f"<bos><|im_start|>system\n{json.dumps(WEATHER)}\n<|im_end|>\n<|im_start|>user\nOslo?<|im_end|>\n"
        f"<|im_start|>assistant\n{OSLO}<|im_end|>\n<tool_response>weather: rain</tool_response>\n{_ASK}"
    )


def test_arguments_may_be_text_and_a_result_learns_its_tools_name():
    said = {"id": "7", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    shown = text("hermes", user("?"), assistant("", said), result("rain", "7"), result("?", "8"))
    assert OSLO in shown
    assert "<tool_response>weather: rain<" in shown
    assert "<tool_response>: ?<" in shown
    named = {**result("rain", "7"), "name": "other"}
    assert "<tool_response>other: rain<" in text("hermes", user("?"), assistant("", said), named)


def test_mistral_is_given_ids_of_nine_characters_that_still_belong_together():
    number = "call_" + "x" * 30
    said = [
        user("?"), assistant("", call("now", number), call("now", "abcdefgh1"), call("weather", city="Oslo")),
        result("12 h", number), result("13 h", "abcdefgh1"),
    ]  # fmt: skip
    shown = text("mistral", *said, tools=[NOW, WEATHER])
    calls = json.loads(shown[shown.index("[TOOL_CALLS] ") + 13 : shown.index("<eos>")])
    results = [json.loads(each.split("[/")[0]) for each in shown.split("[TOOL_RESULTS] ")[1:]]
    ids = [each["id"] for each in calls]
    assert ids[1] == "abcdefgh1"
    assert [each["call_id"] for each in results] == ids[:2]
    assert len(set(ids)) == 3
    assert all(len(each) == 9 and each.isalnum() for each in ids)
    assert Chat(said).messages[1]["tool_calls"][0]["id"] == number, "the chat itself stays as it was"


@pytest.mark.parametrize("template", ["none", "chatml", "no system", "strict"])
def test_a_template_that_knows_no_tools_is_taught_them(template):
    said = [
        system("Be brief."), user("Oslo?"), assistant("Look:", call("weather", "abc", city="Oslo")),
        result('rain "now"', "abc"),
    ]  # fmt: skip
    shown = text(template, *said, tools=[WEATHER, NOW])
    response = json.dumps({"name": "weather", "id": "abc", "content": 'rain "now"'})
    told = [
        "Be brief.\n\nYou can call these tools", json.dumps(WEATHER), json.dumps(NOW), "tool_name", "Oslo?",
        f"Look:\n{OSLO}", f"<tool_response>\n{response}\n</tool_response>",
    ]  # fmt: skip
    places = [shown.index(each) for each in told]
    assert places == sorted(places)
    instructions = text(template, user("Hi"), tools=[NOW])
    assert instructions.index("You can call these tools") < instructions.index("Hi")


def test_where_only_the_assistants_template_knows_tools_its_writing_is_taught_to_the_draft():
    chat = Chat([user("Now?")], [NOW])
    shown = render(chat, [chat_model("chatml"), chat_model("mistral", seed=1)])
    assert shown.format.name == "mistral"
    draft, theirs = (tokenizer().decode(list(ids)) for ids in shown.ids)
    assert '[TOOL_CALLS] [{"name": "tool_name"' in draft
    assert theirs == f"<bos>[AVAILABLE_TOOLS] [{json.dumps(NOW)}][/AVAILABLE_TOOLS][INST] Now?[/INST]"
    assert render(chat, [chat_model("mistral"), chat_model("hermes", seed=1)]).format.name == "mistral"


def test_the_thoughts_of_either_model_are_known_as_such():
    for templates in (("reasons", "hermes"), ("hermes", "reasons"), ("chatml", "thinking")):
        pair = [chat_model(each, seed=at) for at, each in enumerate(templates)]
        writing = render(Chat([user("Hi")], [NOW]), pair).format
        assert (writing.name, writing.reasoning_tags) == ("hermes", ("<think>", "</think>"))
    assert not render(Chat([user("Hi")]), [chat_model("hermes"), chat_model("chatml")]).format.reasoning_tags


# Whatever is said


PIECES = st.one_of(
    st.sampled_from([
        *CONTROL, *TAGS, "{{", "}}", "{%", "%}", "{#", "{{ messages }}", "{% endfor %}", "\n", "\n\n",
        " ", "\t", "### User\n", "[INST]", "[/INST]", "\\", '"', "\x00", "é", "你好", "🦊", "\u2028",
        "\r\n", "",
    ]),
    st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=8),
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=5).map("".join)
CALLS = st.lists(st.builds(lambda said: call("now", "id", what=said), TEXTS), max_size=2)
MESSAGES = st.lists(
    st.one_of(
        st.builds(system, TEXTS), st.builds(user, TEXTS), st.builds(user, TEXTS),
        st.builds(lambda said, calls: assistant(said, *calls), TEXTS, CALLS),
        st.builds(lambda said: result(said, "id"), TEXTS),
    ),
    min_size=1, max_size=7,
)  # fmt: skip


@settings(deadline=None, max_examples=100)
@given(messages=MESSAGES, tools=st.sampled_from([(), (NOW, WEATHER)]), marked=st.booleans())
def test_whatever_is_said_is_shown_in_full(messages, tools, marked):
    if marked:  # so that no text is part of another
        messages = [{**each, "content": f"({at}:{each['content']}:{at})"} for at, each in enumerate(messages)]
    names = ["strict", "none", "no system", "system first", "forgets", "user first", "chatml"]
    shown = render(Chat(messages, tools), [chat_model(each) for each in names])
    for name, ids in zip(names, shown.ids, strict=True):
        # A heading in what was said is escaped.
        decoded = tokenizer().decode(list(ids)).replace("\\###", "###")
        for message in messages:
            if message["role"] in ("system", "user"):
                assert message["content"].strip().replace("\\###", "###") in decoded, name
        answers = sum(each["role"] == "assistant" for each in messages)
        if name == "none":
            assert special(ids) == [BOS]
        elif name == "strict":
            assert special(ids)[0] == BOS
            assert set(special(ids)[1:]) <= {EOS}
            assert len(special(ids)) <= 1 + answers
    with pytest.raises(InvalidPromptError):
        render(Chat(messages, tools), [chat_model("grim")])


TEMPLATE_PIECES = st.sampled_from([
    "{{ messages }}", "{{ messages[0].content }}", "{{ messages[-1]['content'] }}", "{% for m in messages %}",
    "{% endfor %}", "{{", "}}", "{%", "%}", "{{ raise_exception('x') }}", "{% if tools %}", "{% endif %}",
    "{{ nothing.at.all }}", "{{ 1 / 0 }}", "{{ 'a' * 3 }}", "{{ m.content | tojson }}",
    "{{ m.content | nope }}",
    "{{ ''.__class__ }}", "{% generation %}", "{% endgeneration %}", "{% break %}", "<think>", "<tool_call>",
    "[TOOL_CALLS]", "{% set messages = messages[1:] %}", "{% include 'x' %}", "text",
])  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(
    template=st.lists(TEMPLATE_PIECES, min_size=1, max_size=6).map("".join)
    | st.text(min_size=1, max_size=12),
    tools=st.sampled_from([(), (NOW,)]),
)
def test_whatever_a_template_does_the_prompt_is_whole_or_refused(template, tools):
    chat = Chat([system("Be brief."), user("What is it?")], tools, chat_template=template)
    try:
        shown = render(chat, [chat_model("chatml"), chat_model("none", seed=1)])
    except InvalidPromptError:
        pass
    else:
        assert "Be brief." in shown.text
        assert "What is it?" in shown.text
