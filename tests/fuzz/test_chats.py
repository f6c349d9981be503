"""Arbitrary messages, tools, templates and answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosd_core import Chat, Chunk, CoSDDecoder, Turn
from cosd_core.chat import rendering
from cosd_core.chat.formats import takes_tools
from tests.chats import NOW, SPECIAL, TAGS, WEATHER, chat_model
from tests.fuzz.survival import fuzzed, survive
from tests.fuzz.values import mutated, nests, texts, values

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "me"},
    {"role": "assistant", "content": "", "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}},
    ]},
    {"role": "tool", "content": "sun", "tool_call_id": "1"},
    {"role": "assistant", "content": "It is", "reasoning_content": "sun"},
]  # fmt: skip
TURN_OPTIONS = ("tool_choice", "parallel_tool_calls", "strict", "answer_schema", "grammar")
JINJA = (
    "{{", "}}", "{%", "%}", "{#", "#}", "{{ messages }}", "{% for m in messages %}", "{% endfor %}",
    "{{ m.content }}", "{{ messages[0].content }}", "{% if tools %}", "{% endif %}",
    "{{ tools | tojson }}", "{% set x = 1 %}", "{{ x }}", "{{ raise_exception('no') }}",
    "{% macro a(b) %}", "{% endmacro %}", "{{ a(1) }}", "{{ loop.index }}", "{{ ns.a }}",
    "{% set ns = namespace(a='x') %}", "{% set ns.a = ns.a ~ ns.a %}", "{% generation %}",
    "{% endgeneration %}", "{{ strftime_now('%Y') }}", "{% break %}", "{% raw %}", "{% endraw %}",
    "{{ range(99999) | list }}", "{{ 1 / 0 }}", "{% for i in range(99999) %}",
    "{{ messages | map(attribute='role') | join }}", "{{ bos_token }}", "{{ self }}", "{{ cycler }}",
    "{{ lipsum() }}", "{% call a(1) %}", "{% endcall %}", "{% filter upper %}", "{% endfilter %}",
    "{{ m.tool_calls[0].function.arguments.items() }}", "{{ x.__class__ }}", "{% include 'a' %}",
    "{% block b %}", "{% endblock %}", "{{ messages.append(1) }}", "{{ '%s' % x }}",
    "{{ '{0.a}'.format(x) }}", "{{ x | sort }}", *SPECIAL, *TAGS,
)  # fmt: skip
PIECES = (
    *SPECIAL, *TAGS, '{"name": "weather", "arguments": {"city": "Oslo"}}', '{"name"', ": ", "{", "}", "[",
    "]", '"', ",", "\\", "\\u12", "<function=weather>", "<parameter=city>", "</parameter>", "</function>",
    "null", "1e999", "\n", "weather", '{"name": "now", "parameters": {}}', "[", "call_1", "NaN",
)  # fmt: skip


@pytest.fixture(scope="module")
def decoder() -> CoSDDecoder:
    return CoSDDecoder(chat_model("chatml"), chat_model("hermes", seed=1))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "TEMPLATE_SECONDS", 1.0)


@fuzzed
@given(messages=mutated(MESSAGES) | values, tools=mutated([WEATHER, NOW]) | values, flag=st.booleans())
def test_messages_and_tools(decoder: CoSDDecoder, messages: Any, tools: Any, flag: bool) -> None:
    for each in ((), tools):
        chat = survive(lambda each=each: Chat(messages, each, continue_final_message=flag))
        if chat is not None:
            survive(lambda chat=chat: Turn(chat, decoder.models))
            survive(lambda chat=chat: Turn(chat, decoder.models, tool_choice="any", answer_schema=None))


# A template that is ended may be in a destructor just then; the stop is repeated behind it.
@pytest.mark.filterwarnings(
    r"ignore:(?s).*cosd_core\.utils\.threads\._Stop:pytest.PytestUnraisableExceptionWarning"
)
@fuzzed
@given(
    template=st.lists(st.sampled_from(JINJA) | texts, max_size=12).map("".join) | nests,
    kwargs=st.dictionaries(texts, values, max_size=2),
)
def test_templates(decoder: CoSDDecoder, template: str, kwargs: dict[str, Any]) -> None:
    takes_tools(template)
    for tools in ((), (WEATHER,)):
        chat = survive(lambda tools=tools: Chat(MESSAGES, tools, template, kwargs))
        if chat is not None:
            survive(lambda chat=chat: Turn(chat, decoder.models))


@fuzzed
@given(
    pieces=st.lists(st.sampled_from(PIECES) | texts, max_size=15),
    family=st.sampled_from(["none", "hermes", "thinking", "mistral", "reasons"]),
    choice=st.sampled_from(["auto", "none"]),
)
def test_answers(pieces: list[str], family: str, choice: str) -> None:
    turn = Turn(Chat(MESSAGES[:2], [WEATHER, NOW]), [chat_model(family)], tool_choice=choice)
    for piece in pieces:
        survive(lambda piece=piece: turn.read(Chunk(piece, (), 0, None, None)))
    survive(lambda: turn._parser.finish())


@fuzzed
@given(options=st.dictionaries(st.sampled_from(TURN_OPTIONS), values, max_size=3))
def test_options_of_a_turn(decoder: CoSDDecoder, options: dict[str, Any]) -> None:
    survive(lambda: Turn(Chat(MESSAGES, [WEATHER]), decoder.models, **options))
