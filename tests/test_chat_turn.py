"""Claim: a turn says what the models may write, and reads it as it comes: text, thoughts, and calls."""

from itertools import product
from typing import Any

import pytest

from cosd_core import Chat, CoSDDecoder, Grammar, InvalidOptionError, LogitsProcessorError, Turn
from cosd_core.chat.events import (
    CallDelta,
    CallEnd,
    CallStart,
    InvalidAnswer,
    InvalidCall,
    ParsedAnswer,
    ReasoningDelta,
    TextDelta,
    merge_deltas,
)
from tests.chats import NOW, OSLO, WEATHER, answered, chat_model, recited, refused
from tests.grids import covering

HI = [{"role": "user", "content": "Hi"}]
UNIQUE = {
    "type": "function",
    "function": {
        "name": "unique",
        "parameters": {"properties": {"a": {"type": "array", "uniqueItems": True}}, "required": ["a"]},
    },
}
ANSWER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
AB = Grammar.regex("(ab)+")
CALL_NOW = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
WRONG = '<tool_call>\n{"name": "weather", "arguments": {"town": 5}}\n</tool_call>'


def pair(draft: str = "hermes", assistant: str = "chatml") -> CoSDDecoder:
    return CoSDDecoder(chat_model(draft), chat_model(assistant, seed=1))


def turn(
    decoder: CoSDDecoder, *tools: dict[str, Any], chat: dict[str, Any] | None = None, **more: Any
) -> Turn:
    return Turn(Chat(HI, tools, **(chat or {})), decoder.models, **more)


def takes(decoder: CoSDDecoder, text: str, *tools: dict[str, Any], **more: Any) -> bool:
    """Whether the models may write all of this text."""
    made = turn(decoder, *tools, **more)
    options = recited(decoder, text, len(made.prompt.ids[0]))
    try:
        return decoder.generate(made.prompt, grammar=made.grammar, **options).text == text
    except LogitsProcessorError:  # what the grammar leaves is not what is recited
        return False


@pytest.mark.parametrize(
    ("tools", "more", "takes_words", "takes_call", "takes_wrong", "takes_json"),
    [
        ([], {}, True, True, True, True),
        ([], {"strict": True}, True, True, True, True),
        ([], {"tool_choice": "none"}, True, True, True, True),
        ([NOW, WEATHER], {"tool_choice": "none"}, True, False, False, True),
        ([NOW, WEATHER], {"tool_choice": "none", "strict": True}, True, False, False, True),
        ([NOW, WEATHER], {"tool_choice": "none", "strict": False}, True, False, False, True),
        ([NOW, WEATHER], {"strict": False}, True, True, True, True),
        ([NOW, WEATHER, UNIQUE], {}, True, True, False, True),
        ([NOW, WEATHER, UNIQUE], {"strict": True}, True, True, False, True),
        ([NOW, WEATHER, UNIQUE], {"tool_choice": "any"}, False, True, False, False),
        ([NOW, UNIQUE], {"tool_choice": "unique", "strict": False}, False, False, False, False),
        ([NOW, UNIQUE], {"answer_schema": ANSWER}, False, True, False, True),
        ([NOW, WEATHER], {}, True, True, False, True),
        ([NOW, WEATHER], {"strict": True}, True, True, False, True),
        ([NOW, WEATHER], {"tool_choice": "any"}, False, True, False, False),
        ([NOW, WEATHER], {"tool_choice": "any", "strict": False}, False, True, False, False),
        ([NOW, WEATHER], {"tool_choice": "now"}, False, True, False, False),
        ([NOW, WEATHER], {"tool_choice": "weather"}, False, False, False, False),
        ([NOW, UNIQUE], {"tool_choice": "now"}, False, True, False, False),
        ([], {"answer_schema": ANSWER}, False, False, False, True),
        ([NOW, WEATHER], {"answer_schema": ANSWER}, False, True, False, True),
        ([NOW, WEATHER], {"answer_schema": ANSWER, "strict": False}, False, True, False, True),
        ([NOW, WEATHER], {"answer_schema": ANSWER, "tool_choice": "none"}, False, False, False, True),
        ([NOW, WEATHER], {"answer_schema": ANSWER, "tool_choice": "any"}, False, True, False, False),
    ],
    ids=str,
)
def test_what_the_models_may_write(tools, more, takes_words, takes_call, takes_wrong, takes_json):
    decoder = pair()
    is_free = takes_words and takes_wrong
    assert (turn(decoder, *tools, **more).grammar is None) == is_free
    assert takes(decoder, "Just words.", *tools, **more) == takes_words
    assert takes(decoder, CALL_NOW, *tools, **more) == takes_call
    assert takes(decoder, WRONG, *tools, **more) == takes_wrong
    assert takes(decoder, '{"n": 5}', *tools, **more) == takes_json


def test_there_may_be_several_calls_if_asked_for_or_if_there_need_be_none():
    decoder, several = pair(), f"{CALL_NOW}\n{OSLO}"
    for choice in ("auto", "any"):
        assert takes(decoder, several, NOW, WEATHER, tool_choice=choice) == (choice == "auto")
        assert takes(decoder, several, NOW, WEATHER, tool_choice=choice, parallel_tool_calls=True)
        assert not takes(decoder, several, NOW, WEATHER, tool_choice=choice, parallel_tool_calls=False)
        assert takes(decoder, OSLO, NOW, WEATHER, tool_choice=choice, parallel_tool_calls=False)


@pytest.mark.parametrize(
    ("tools", "more", "needed"),
    [
        ([], {"tool_choice": "any"}, ["tool_choice='any'", "no tools"]),
        ([], {"tool_choice": "now"}, ["tool_choice='now'"]),
        ([NOW, WEATHER], {"tool_choice": "then"}, ["tool_choice='then'", "now, weather"]),
        ([NOW], {"tool_choice": None}, ["tool_choice=None"]),
        ([NOW], {"tool_choice": ["now"]}, ["tool_choice=['now']"]),
        ([NOW], {"tool_choice": {"name": "now"}}, ["tool_choice={'name': 'now'}"]),
        ([NOW], {"strict": "yes"}, ["strict='yes'"]),
        ([NOW], {"strict": 1}, ["strict=1"]),
        ([NOW], {"parallel_tool_calls": "yes"}, ["parallel_tool_calls='yes'"]),
        ([NOW], {"parallel_tool_calls": 0}, ["parallel_tool_calls=0"]),
        ([NOW], {"grammar": AB, "tool_choice": "any"}, ["grammar=", "ab", "tool_choice='any'"]),
        ([NOW], {"grammar": AB, "tool_choice": "now"}, ["grammar=", "tool_choice='now'"]),
        ([], {"grammar": AB, "answer_schema": ANSWER}, ["grammar=", "schema"]),
        ([], {"answer_schema": {"type": "array", "uniqueItems": "yes"}}, ["uniqueItems", "'yes'"]),
        ([], {"answer_schema": {"type": "array", "minItems": 2, "maxItems": 1}}, ["contradicts itself"]),
        ([], {"answer_schema": {"type": "nonsense"}}, ["nonsense"]),
        ([], {"answer_schema": 5}, ["answer_schema=5"]),
        ([], {"answer_schema": "x"}, ["answer_schema='x'"]),
        ([], {"answer_schema": [1]}, ["answer_schema=[1]"]),
        ([], {"answer_schema": {"type": {1}}}, ["answer_schema={'type': {1}}"]),
    ],
    ids=str,
)
def test_what_cannot_be_asked_of_a_turn_is_refused_by_name(tools, more, needed):
    refused(lambda: turn(pair(), *tools, **more), InvalidOptionError, *needed)


def test_a_grammar_of_the_users_own_goes_first():
    decoder = pair()
    for more in ({}, {"strict": True}, {"tool_choice": "none"}):
        assert turn(decoder, NOW, UNIQUE, grammar=AB, **more).grammar is AB
        assert takes(decoder, "abab", NOW, UNIQUE, grammar=AB, **more)
        assert not takes(decoder, CALL_NOW, NOW, UNIQUE, grammar=AB, **more)


def test_an_unusual_but_sound_schema_is_no_error_in_any_family():
    odd = {"properties": {"a": True, "b": {}, "c": {"enum": [1, "x", None]}, "d": False}, "required": None}
    xml = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<tool_call><function={% endif %}"
    tool = {"type": "function", "function": {"name": "odd", "parameters": odd}}
    for template in (None, xml):
        made = turn(pair(), tool, chat={"chat_template": template})
        assert made.prompt.format.name == ("xml" if template else "hermes")


def test_an_answers_schema_is_told_to_the_models():
    def shown(schema: Any, *messages: dict[str, Any]) -> str:
        return Turn(Chat([*messages, *HI]), pair().models, answer_schema=schema).prompt.text

    schema_instruction = (
        'Answer with JSON for this schema:\n{"type": "object", "properties": {"n": {"type": "integer"}}'
    )
    assert shown(ANSWER).count(schema_instruction) == 1
    assert f"system\nBe brief.\n\n{schema_instruction}" in shown(
        ANSWER, {"role": "system", "content": "Be brief."}
    )
    assert "schema" not in shown({"type": "object"})


def test_the_events_of_an_answer():
    decoder = pair()
    made = turn(decoder, NOW, WEATHER)
    assert answered(made, decoder, f"Look: {OSLO}\n{CALL_NOW}") == [
        TextDelta("Look:"),
        CallStart(0, "weather"), CallDelta(0, '{"city": "Oslo"}'), CallEnd(0, "weather", {"city": "Oslo"}),
        CallStart(1, "now"), CallDelta(1, "{}"), CallEnd(1, "now", {}),
    ]  # fmt: skip
    assert answered(turn(decoder, NOW), decoder, "a < b") == [TextDelta("a < b")]
    assert answered(turn(decoder), decoder, CALL_NOW) == [TextDelta(CALL_NOW)]
    assert answered(turn(decoder, NOW), decoder, "") == []


def test_an_answer_may_be_read_as_a_whole():
    decoder = pair()
    for said, whole in ((f"Look: {OSLO}", True), (OSLO[:-20], False), ("a < b", True)):
        made = turn(decoder, WEATHER)
        options = recited(decoder, said, len(made.prompt.ids[0]), whole=whole)
        generation = decoder.generate(made.prompt, grammar=made.grammar, **options)
        assert generation.text == said
        streamed = answered(turn(decoder, WEATHER), decoder, said, whole=whole)
        assert merge_deltas(made.read(generation)) == streamed


def test_events_come_as_soon_as_they_are_certain():
    decoder = CoSDDecoder(*pair().models, draft_length=1)
    made = turn(decoder, WEATHER)
    options = recited(decoder, OSLO, len(made.prompt.ids[0]))
    heard = [
        (chunk.text, event) for chunk in decoder.stream(made.prompt, grammar=made.grammar, **options)
        for event in made.read(chunk)
    ]  # fmt: skip
    starts = [text for text, event in heard if isinstance(event, CallStart)]
    assert starts == ['"']
    deltas = [event.arguments for _, event in heard if isinstance(event, CallDelta)]
    assert "".join(deltas) == '{"city": "Oslo"}'
    assert len(deltas) == len('{"city": "Oslo"}'), "byte by byte"


@pytest.mark.parametrize("strict", [True, False])
def test_an_answer_that_is_cut_off_has_an_invalid_call(strict):
    decoder = pair()
    cut = OSLO[: OSLO.index("slo")]
    events = answered(turn(decoder, WEATHER, strict=strict), decoder, cut, whole=False)
    assert events[:2] == [CallStart(0, "weather"), CallDelta(0, '{"city": "O')]
    (invalid,) = events[2:]
    assert isinstance(invalid, InvalidCall)
    assert "cut off" in invalid.error
    assert invalid.text.endswith('"city": "O')
    broken = answered(turn(decoder, WEATHER, strict=False), decoder, f"{WRONG}<tool_call>what?</tool_call>!")
    assert [type(event) for event in broken if not isinstance(event, CallDelta)] == [
        CallStart, CallEnd, InvalidCall, TextDelta,
    ]  # fmt: skip


def test_a_prompt_that_ends_in_an_open_thought_makes_the_answer_begin_with_one():
    decoder = pair("thinking", "thinking")
    assert turn(decoder, NOW).prompt.text.endswith("<think>\n")
    said = answered(turn(decoder, NOW), decoder, f"\nhm\n</think>\n\nSo: {CALL_NOW}")
    assert said[:2] == [ReasoningDelta("hm"), TextDelta("So:")]
    assert said[-1] == CallEnd(0, "now", {})
    assert answered(turn(decoder), decoder, "hm") == [ReasoningDelta("hm")]
    not_now = {"chat_template_kwargs": {"enable_thinking": False}}
    assert answered(turn(decoder, NOW, chat=not_now), decoder, "hm") == [TextDelta("hm")]
    again = answered(turn(decoder, NOW, chat=not_now), decoder, "<think>a</think>b")
    assert again == [ReasoningDelta("a"), TextDelta("b")]


@pytest.mark.parametrize("more", [{"tool_choice": "any"}, {"answer_schema": ANSWER}], ids=str)
def test_what_is_asked_for_may_be_thought_about_first(more):
    decoder = pair("thinking", "chatml")
    asked = CALL_NOW if "tool_choice" in more else '{"n": 5}'
    assert takes(decoder, f"hm\n</think>\n\n{asked}", NOW, **more)
    assert not takes(decoder, f"hm\n</think>\n\nwords {asked}", NOW, **more)
    assert not takes(decoder, asked, NOW, **more), "the thought that the prompt opened should be closed"
    closed = {**more, "chat": {"chat_template_kwargs": {"enable_thinking": False}}}
    assert takes(decoder, asked, NOW, **closed)
    assert takes(decoder, f"<think>hm</think>\n\n{asked}", NOW, **closed)


@pytest.mark.parametrize("templates", [("reasons", "hermes"), ("hermes", "thinking"), ("chatml", "thinking")])
def test_a_thought_is_one_whichever_template_knows_of_it(templates):
    decoder = pair(*templates)
    opened = decoder.draft.name.startswith("reasons")
    for tools in ([], [NOW]):
        events = answered(turn(decoder, *tools), decoder, f"{'' if opened else '<think>'}hm</think>Hi")
        assert events == [ReasoningDelta("hm"), TextDelta("Hi")]


def test_where_only_the_assistants_template_knows_tools_its_calls_are_read():
    decoder = pair("chatml", "mistral")
    made = turn(decoder, NOW, WEATHER)
    calls = [("weather", {"city": "Oslo"}), ("now", {})]
    said = made.prompt.format.render_calls(calls)
    answer = ParsedAnswer.of(answered(made, decoder, f"Look: {said}"))
    assert [(call.name, call.arguments) for call in answer.calls] == calls
    assert answer.text == "Look:"
    text = decoder.generate(made.prompt, **recited(decoder, said, len(made.prompt.ids[0]))).text
    assert text == said, "the special token is in the text"


@pytest.mark.parametrize("templates", [("hermes", "chatml"), ("none", "strict"), ("chatml", "mistral")])
@pytest.mark.parametrize("how", [{}, {"temperature": 1.5, "seed": 1}], ids=str)
def test_models_that_know_nothing_still_make_the_call_they_must_make(templates, how):
    decoder = pair(*templates)
    made = turn(decoder, NOW, WEATHER, tool_choice="now", parallel_tool_calls=False)
    chunks = list(decoder.stream(made.prompt, grammar=made.grammar, max_new_tokens=90, **how))
    assert chunks[-1].finish_reason == "stop"
    assert merge_deltas(event for chunk in chunks for event in made.read(chunk))[-1] == CallEnd(0, "now", {})


# Tools that may not be called


def said_without_grammar(made: Turn, decoder: CoSDDecoder, text: str) -> list[Any]:
    """The events of an answer that no grammar restricts."""
    chunks = decoder.stream(made.prompt, **recited(decoder, text, len(made.prompt.ids[0])))
    return merge_deltas(event for chunk in chunks for event in made.read(chunk))


@pytest.mark.parametrize("text", [CALL_NOW, WRONG, f"Look: {OSLO}\n{CALL_NOW}", "<tool_call>\n{broken"])
def test_the_markup_of_a_forbidden_call_never_becomes_text(text):
    decoder = pair()
    events = said_without_grammar(turn(decoder, NOW, WEATHER, tool_choice="none"), decoder, text)
    assert events == ([TextDelta("Look:")] if text.startswith("Look") else [])
    assert not takes(decoder, text, NOW, WEATHER, tool_choice="none")


@pytest.mark.parametrize("template", ["hermes", "mistral", "chatml", "none"])
def test_random_models_write_no_call_that_is_forbidden(template):
    decoder = pair(template, template)
    made = turn(decoder, NOW, WEATHER, tool_choice="none")
    for seed in range(5):
        options = {"temperature": 2.0, "seed": seed, "max_new_tokens": 40}
        generation = decoder.generate(made.prompt, grammar=made.grammar, **options)
        opener = made.prompt.format.tags[0]
        assert opener not in generation.text


# Schemas that no grammar enforces as a whole


def test_a_call_whose_arguments_do_not_match_the_schema_is_invalid_and_names_the_keyword():
    decoder = pair()
    twice = '<tool_call>\n{"name": "unique", "arguments": {"a": [1, 1]}}\n</tool_call>'
    made = turn(decoder, NOW, UNIQUE)
    *_, invalid, start, delta, now = answered(made, decoder, f"{twice}\n{CALL_NOW}")
    assert isinstance(invalid, InvalidCall)
    assert "uniqueItems at $.a" in invalid.error
    assert invalid.text == '{"name": "unique", "arguments": {"a": [1, 1]}}'
    assert [start, delta, now] == [CallStart(1, "now"), CallDelta(1, "{}"), CallEnd(1, "now", {})]
    loose = turn(decoder, NOW, UNIQUE, strict=False)
    assert answered(loose, decoder, twice)[-1] == CallEnd(0, "unique", {"a": [1, 1]})
    forced = turn(decoder, NOW, UNIQUE, tool_choice="unique", strict=False)
    assert isinstance(answered(forced, decoder, twice)[-1], InvalidCall)


def test_an_answer_that_does_not_match_its_schema_ends_with_an_event_that_names_the_keyword():
    decoder = pair()
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    assert answered(turn(decoder, answer_schema=schema), decoder, "[1, 2]") == [TextDelta("[1, 2]")]
    events = answered(turn(decoder, answer_schema=schema), decoder, "[1, 1]")
    assert isinstance(events[-1], InvalidAnswer)
    assert "uniqueItems at $" in events[-1].error
    assert ParsedAnswer.of(events).schema_error == events[-1].error
    cut = answered(turn(decoder, answer_schema=schema), decoder, "[1, ", whole=False)
    assert "cannot be read as JSON" in ParsedAnswer.of(cut).schema_error
    called = answered(turn(decoder, NOW, answer_schema=schema), decoder, CALL_NOW)
    assert called[-1] == CallEnd(0, "now", {})


ODD_SCHEMAS = [
    {"properties": {"f": {"type": "object", "propertyNames": {"type": "string"}}}},
    {"properties": {"f": {"not": {"type": "integer"}}}, "required": ["f"]},
    {"properties": {"f": {"type": "string", "pattern": "^(?!no)"}}},
    {"if": {"required": ["f"]}, "then": {"required": ["g"]}, "properties": {"f": {}, "g": {}}},
    {"properties": {"f": {}}, "dependentRequired": {"f": ["g"]}},
    {"patternProperties": {"^a": {}, "b$": {"type": "integer"}}},
    {"properties": {"f": {"oneOf": [{"type": "integer"}, {"minimum": 2}]}}},
    {"properties": {"child": {"$ref": "#", "minProperties": 1}}},
    {"properties": {"f": {"type": "integer", "minimum": 3, "maximum": 1}}, "required": ["f"]},
    {"properties": {"f": {"enum": list(range(100)), "multipleOf": 0.123456789}}},
]


STRICTER = [{}, {"strict": True}, {"tool_choice": "any"}, {"tool_choice": "weather"}]


@pytest.mark.parametrize(
    ("schema", "how", "template"), covering(product(ODD_SCHEMAS, STRICTER, ["hermes", "mistral"])), ids=str
)
def test_the_schema_of_a_tool_changes_no_other_tools_grammar(schema, how, template):
    decoder = pair(template, template)
    odd = {"type": "function", "function": {"name": "odd", "parameters": {"type": "object", **schema}}}
    form = turn(decoder, WEATHER).prompt.format
    right, wrong = (form.render_calls([("weather", {"city": city})]) for city in ("Oslo", 5))
    assert takes(decoder, right, WEATHER, odd, **how)
    assert takes(decoder, right, odd, WEATHER, **how)
    assert not takes(decoder, wrong, WEATHER, odd, **how)
    assert not takes(decoder, wrong, odd, WEATHER, **how)


def test_an_invalid_schema_of_a_tool_is_refused_by_tool_keyword_and_path():
    broken = {"name": "broken", "parameters": {"properties": {"a": {"type": "strin"}}}}
    refused(
        lambda: turn(pair(), NOW, {"type": "function", "function": broken}),
        InvalidOptionError, "'broken'", "type", "$.properties.a.type", "'strin'",
    )  # fmt: skip
