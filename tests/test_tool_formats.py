"""Tool calls and reasoning of every model family: recognised, read, and held to what is allowed."""

import json
from functools import cache
from itertools import pairwise

import llguidance.hf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cosd_core.chat.events import (
    CallDelta,
    CallEnd,
    CallStart,
    InvalidCall,
    ParsedAnswer,
    TextDelta,
    merge_deltas,
)
from cosd_core.chat.formats import tool_format
from cosd_core.errors import InvalidOptionError


def _tool(name, properties=None, required=(), **more):
    parameters = {"type": "object", "properties": properties or {}, "required": list(required), **more}
    return {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}


PLACE = {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}
TOOLS = [
    _tool(
        "weather",
        {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "days": {"type": "integer"}},
        ["city"],
    ),
    {"type": "function", "function": {"name": "now", "description": "no arguments"}},
    _tool("go", {"to": {"$ref": "#/$defs/Place"}}, ["to"], **{"$defs": {"Place": PLACE}}),
]
LOOP = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}{{ tools }}{% endif %}"
TEMPLATES = {
    "hermes": LOOP + "<tool_call>\n</tool_call>",
    "thinking": LOOP + "<tool_call></tool_call>{% generation %}<think></think>{% endgeneration %}",
    "xml": LOOP + "<tool_call>\n<function=a>\n<parameter=b>",
    "llama3": LOOP + "<|python_tag|>",
    "mistral": LOOP + "[TOOL_CALLS]",
    "named": LOOP + "[TOOL_CALLS]x[ARGS]",
    "numbered": LOOP + "[TOOL_CALLS]x[CALL_ID]y[ARGS]",
    "none": "{% for m in messages %}{{ m.content }}{% endfor %}",
}
SPECIAL = ("<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|im_end|>")
ADDED = ("<tool_call>", "</tool_call>", "<think>", "</think>")


@cache
def tokenizer(family="none", tags="added"):
    """Bytes, with the families' special tokens; tags are added tokens, special ones, or plain text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE(vocab={symbol: at for at, symbol in enumerate(alphabet)}, merges=[]))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token="<eos>")
    made.add_tokens([AddedToken(tag, special=True, normalized=False) for tag in SPECIAL], special_tokens=True)
    if tags != "plain":
        is_special = tags == "special"
        tokens = [AddedToken(tag, special=is_special, normalized=False) for tag in ADDED]
        made.add_tokens(tokens, special_tokens=is_special)
    made.chat_template = TEMPLATES[family]
    return made


def fmt(family, tags="added"):
    return tool_format(tokenizer(family, tags))


def parse_answer(text, writing, tools=None, *, prompt=""):
    """An answer that has been written to its end."""
    parser = writing.parser(tools, prompt=prompt)
    return ParsedAnswer.of([*parser.feed(text), *parser.finish()])


@cache
def reading(tags):
    return llguidance.hf.from_tokenizer(tokenizer("none", tags))


def accepts(grammar, text, tags="added"):
    """Whether the grammar takes a text, token by token, as a whole."""
    matcher = LLMatcher(reading(tags), grammar.compiled(), log_level=0)
    assert not matcher.get_error()
    for token in tokenizer("none", tags).encode(text, add_special_tokens=False):
        if matcher.validate_tokens([token]) != 1:
            return False
        matcher.consume_token(token)
    return matcher.is_accepting()


def written(family, *calls):
    text = fmt(family).render_calls(calls)
    return text.replace("[ARGS]", "[CALL_ID]abcdefgh1[ARGS]") if family == "numbered" else text


FAMILIES = ["hermes", "xml", "llama3", "mistral", "named", "numbered"]
OSLO = ("weather", {"city": "Oslo"})
FULL = ("weather", {"city": 'a "b" {c} ü\\', "unit": "C", "days": 3})
NOW = ("now", {})
GO = ("go", {"to": {"lat": 1.5}})


@pytest.mark.parametrize(
    ("family", "name"),
    [
        (f, {"thinking": "hermes", "named": "mistral", "numbered": "mistral", "none": "hermes"}.get(f, f))
        for f in TEMPLATES
    ],
)
def test_families_are_recognised(family, name):
    assert fmt(family).name == name
    assert fmt(family).takes_tools == (family != "none")
    assert bool(fmt(family).reasoning_tags) == (family == "thinking")


def test_the_template_for_tools_goes_first():
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<eos>")
    made.chat_template = {"default": TEMPLATES["none"], "tool_use": TEMPLATES["hermes"]}
    assert tool_format(made).takes_tools
    made.chat_template = None
    assert not tool_format(made).takes_tools


def test_special_tags_must_be_visible():
    def visible(family, tags="added"):
        return set(tokenizer(family, tags).convert_ids_to_tokens(list(fmt(family, tags).visible_tokens)))

    assert visible("hermes") == visible("hermes", "plain") == set()
    assert visible("hermes", "special") == {"<tool_call>", "</tool_call>"}
    assert visible("thinking", "special") == set(ADDED)
    assert visible("llama3") == {"<|python_tag|>"}
    assert visible("named") == {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}


def test_reasoning_is_open_only_at_the_very_end_of_a_prompt():
    thinking = fmt("thinking")
    assert thinking.opens_reasoning("assistant\n<think>\n")
    assert not thinking.opens_reasoning("assistant\n<think>\n\n</think>\n\n")
    assert not thinking.opens_reasoning("user\nwhat is <think>?\nassistant\n")
    assert not fmt("hermes").opens_reasoning("<think>")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("calls", [[OSLO], [FULL], [NOW], [GO], [FULL, NOW, GO]], ids=str)
def test_what_is_written_is_read(family, calls):
    answer = parse_answer(written(family, *calls), fmt(family), TOOLS)
    assert [(call.name, call.arguments) for call in answer.calls] == calls
    assert [call.index for call in answer.calls] == list(range(len(calls)))
    assert (answer.text, answer.invalid_calls) == ("", ())


@pytest.mark.parametrize("family", FAMILIES)
def test_without_tools_all_is_text(family):
    text = written(family, OSLO)
    answer = parse_answer(text, fmt(family))
    assert (answer.text, answer.calls) == (text, ())


def test_reasoning_text_and_calls_are_told_apart():
    text = "<think>\nhm <tool_call>\n</think>\n\nLook. \n" + written("hermes", OSLO, NOW) + "\nDone.\n"
    answer = parse_answer(text, fmt("thinking"), TOOLS)
    assert answer.reasoning == "hm <tool_call>"
    assert answer.text == "Look. \nDone.\n"
    assert len(answer.calls) == 2
    opened = parse_answer("so\n</think>\n\n hi", fmt("thinking"), TOOLS, prompt="x<think>\n")
    assert (opened.reasoning, opened.text) == ("so", "hi")
    assert parse_answer("<think>a</think>b", fmt("hermes"), TOOLS).text == "<think>a</think>b"


def test_text_without_tags_stays_as_it_is():
    assert parse_answer("  a < b <tool {}\n", fmt("hermes"), TOOLS).text == "  a < b <tool {}\n"


def test_arguments_are_streamed_as_the_model_writes_them():
    parser = fmt("hermes").parser(TOOLS)
    assert parser.feed('Hi <tool_call>\n{"name": "weather"') == [TextDelta("Hi"), CallStart(0, "weather")]
    assert parser.feed(', "arguments": {"ci') == [CallDelta(0, '{"ci')]
    assert parser.feed('ty": "</tool_call>"}}\n</tool_call>')[-1] == CallEnd(
        0, "weather", {"city": "</tool_call>"}
    )
    assert parser.finish() == []


def test_arguments_before_the_name_wait_for_it():
    parser = fmt("hermes").parser(TOOLS)
    assert parser.feed('<tool_call>{"arguments": {"city": "Oslo"}, ') == []
    assert parser.feed('"name": "weather"') == [CallStart(0, "weather"), CallDelta(0, '{"city": "Oslo"}')]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ('{"name": "now", "arguments": {]}', "broken JSON"),
        ('{"name": "now", "arguments": {"a": "b}\n', "within a string"),
        ('{"name": "now", "arguments": {"a": NaN}}', "NaN"),
        ('{"name": "now", "arguments": ' + '{"a":' * 50_000, "broken JSON"),
        ('{"name": "now", "arguments": ' + "[" * 50_000 + "]" * 50_000 + "}", "nested too deeply"),
        ('{"arguments": {}}', "no name"),
        ('{"name": 5, "arguments": {}}', "name is not a string"),
        ('{"name": "now", "arguments": [1]}', "not an object"),
        ('{"name": "now", "arguments": null}', "not an object"),
        ('{"name": "now", "arguments": "x"}', "broken JSON"),
        ('{"name": "now", "arguments": {}, "arguments": {}}', "more than one"),
        ('{"name": "now", "arguments": {}}}', "should close it"),
        ('{"name": "now", "arguments": {},}', "comma"),
        ("now()", "does not begin"),
        ("", "unexpected"),
        ("<function=now>\nx</function>", "between"),
    ],
    ids=lambda value: value[:48],
)
def test_malformed_calls_are_named_and_the_answer_goes_on(body, error):
    text = f"a<tool_call>{body}</tool_call>\n<tool_call>" + '{"name": "now", "arguments": {}}</tool_call> z'
    answer = parse_answer(text, fmt("hermes"), TOOLS)
    (invalid,) = answer.invalid_calls
    assert error in invalid.error
    assert (invalid.index, invalid.text) == (0, body.strip())
    assert [call.index for call in answer.calls] == [1]
    assert answer.text == "a\nz"


@pytest.mark.parametrize("family", FAMILIES)
def test_calls_that_are_cut_off_are_invalid(family):
    text = written(family, OSLO)
    cut = text[: text.index("Oslo") + 2]
    answer = parse_answer(cut, fmt(family), TOOLS)
    (invalid,) = answer.invalid_calls
    assert (answer.calls, answer.text) == ((), "")
    assert "cut off" in invalid.error
    assert invalid.text.endswith("Os")


def test_leniences():
    def only(text, family="hermes"):
        (call,) = parse_answer(text, fmt(family), TOOLS).calls
        return call.name, call.arguments

    assert only('<tool_call>{"name": "now", "arguments": "{}"}</tool_call>') == NOW
    assert only('<tool_call>{"name": "now"}</tool_call>') == NOW
    assert only('<tool_call>{"name": "weather", "parameters": {"city": "Oslo"}}') == OSLO  # no closing tag
    assert only('{"type": "function", "name": "now", "parameters": {}};', "llama3") == NOW
    assert only('<|python_tag|>{"name": "now", "parameters": {}}', "llama3") == NOW
    assert only("[TOOL_CALLS]now{}", "named") == NOW
    assert only("<tool_call><function=unknown><parameter=a>5</parameter></function></tool_call>", "xml") == (
        "unknown",
        {"a": "5"},
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "now", "parameters": {}} is what I would call',
        'So: {"name": "now", "parameters": {}}',
        '{"name": "Alice"}',
        '{"answer": {"name": "now"}}',
        '{"name": "Alice", "age',
        "{not JSON} at all",
        " {",
    ],
)
def test_llama_calls_are_the_whole_answer_or_text(text):
    answer = parse_answer(text, fmt("llama3"), TOOLS)
    assert (answer.text, answer.calls, answer.invalid_calls) == (text, (), ())


@pytest.mark.parametrize("family", ["hermes", "none", "xml", "thinking"])
def test_calls_without_their_tags_are_calls_if_they_are_the_whole_answer(family):
    """As Qwen2.5-Coder 0.5B writes them."""
    calls = [{"name": name, "arguments": arguments} for name, arguments in (OSLO, NOW)]
    one, two = map(json.dumps, calls)
    for text, expected in ((one, [OSLO]), (f"\n{one}\n", [OSLO]), (f"{one}\n{two}", [OSLO, NOW])):
        answer = parse_answer(text, fmt(family), TOOLS)
        assert [(call.name, call.arguments) for call in answer.calls] == expected
        assert not answer.text.strip()
        assert answer.invalid_calls == ()
        assert parse_answer(text, fmt(family)).text == text, "without tools it is text"
    cut = parse_answer(f'{one}\n{two}\n{{"na', fmt(family), TOOLS)
    assert [call.name for call in cut.calls] == ["weather", "now"]
    assert [call.error for call in cut.invalid_calls] == ["cut off by the end of the text"]
    wrong = parse_answer('{"name": "weather", "arguments": {"city": 5}}', fmt(family), TOOLS)
    assert (len(wrong.calls), len(wrong.invalid_calls)) == (0, 1)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Anna", "arguments": {"age": 30}}', '{"name": "weather"}', '{"city": "Oslo"}', "{", "{}",
        '{"arguments": {"city": "Oslo"}, "name": "nobody"}', '{"name": "weather", "argu',
        'See: {"name": "weather", "arguments": {"city": "Oslo"}}',
        '{"name": "weather", "arguments": {"city": "Oslo"}} is what I would call.',
        '[{"name": "weather", "arguments": {"city": "Oslo"}}]',
    ],
)  # fmt: skip
def test_other_json_stays_text(text):
    answer = parse_answer(text, fmt("hermes"), TOOLS)
    assert (answer.text, answer.calls, answer.invalid_calls) == (text, (), ())
    tagged = '<tool_call>\n{"name": "nobody", "arguments": {}}\n</tool_call>'
    answer = parse_answer(tagged, fmt("hermes"), TOOLS)
    assert [call.name for call in answer.calls] == ["nobody"], "behind a tag any name is a call"


def test_mistral_goes_on_after_a_broken_call():
    answer = parse_answer("[TOOL_CALLS]now[ARGS]{'a'}[TOOL_CALLS]now[ARGS]{}", fmt("named"), TOOLS)
    assert [call.text for call in answer.invalid_calls] == ["now[ARGS]{'a'}"]
    assert [call.index for call in answer.calls] == [1]


def test_xml_values_are_typed_by_the_schema():
    kinds = {
        "text": {"type": "string"}, "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "flag": {"type": "boolean"}, "items": {"type": "array"}, "number": {"type": "number"},
    }  # fmt: skip
    given_ = {"text": "5", "maybe": "None", "flag": "True", "items": '["5"]', "number": "5", "other": "5"}
    text = fmt("xml").render_calls([("f", given_)])
    (call,) = parse_answer(text, fmt("xml"), [_tool("f", kinds)]).calls
    assert call.arguments == {
        "text": "5",
        "maybe": None,
        "flag": True,
        "items": ["5"],
        "number": 5,
        "other": "5",
    }


PIECES = st.lists(
    st.one_of(
        st.sampled_from([
            "<tool_call>", "</tool_call>", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]",
            "<tool",
            "<|python_tag|>",
            "{", "}", "[", "]", '"', "\\", ",", ":", "; ", "\n", " ",
            '"name": ', '"arguments": ', "<function=now>", "</function>",
            "<parameter=a>", "</parameter>",
            '{"name": "now", "parameters": {"a": "}\\"\\u00fc"}}',
            *(written(family, FULL) for family in FAMILIES),
        ]),
        st.text(max_size=6),
    ),
    max_size=12,
)  # fmt: skip


@pytest.mark.parametrize("family", ["thinking", "xml", "llama3", "named", "template"])
@settings(max_examples=120, deadline=None)
@given(pieces=PIECES, cuts=st.lists(st.integers(0, 400), max_size=12), opened=st.booleans())
def test_the_pieces_of_a_text_do_not_matter(family, pieces, cuts, opened):
    text, prompt = "".join(pieces), "<think>" if opened else ""
    writing = templated() if family == "template" else fmt(family)
    whole = writing.parser(TOOLS, prompt=prompt)
    parts = writing.parser(TOOLS, prompt=prompt)
    expected = merge_deltas([*whole.feed(text), *whole.finish()])
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    events = [event for a, b in pairwise(places) for event in parts.feed(text[a:b])]
    assert merge_deltas([*events, *parts.finish()]) == expected
    for end in (event for event in expected if isinstance(event, CallEnd)):
        deltas = "".join(e.arguments for e in expected if isinstance(e, CallDelta) and e.index == end.index)
        assert json.loads(deltas) == end.arguments
        assert CallStart(end.index, end.name) in expected
    ends = [event.index for event in expected if isinstance(event, (CallEnd, InvalidCall))]
    assert ends == list(range(len(ends)))


def templated():
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer().backend_tokenizer, eos_token="<eos>")
    made.add_tokens([AddedToken("<|im_end|>", special=True)], special_tokens=True)
    made.response_template = {
        "start_anchor": "assistant\n",
        "fields": {
            "reasoning_content": {"open": "<think>", "close": "</think>"},
            "tool_calls": {
                "open_pattern": r"\s*<tool_call>\s*<function=(?P<name>[^>]+)>",
                "close_pattern": r"</function>\s*</tool_call>",
                "repeats": True, "content": "xml-inline",
                "content_args": {
                    "tag_pattern": r"<parameter=(?P<key>[^>\n]+)>\s*(?P<value>.*?)\s*</parameter>"
                },
                "transform": {"type": "function", "function": {"name": "{name}", "arguments": "{content}"}},
            },
            "content": {"close": "<|im_end|>"},
        },
    }  # fmt: skip
    return tool_format(made)


def test_a_response_template_goes_first_and_never_raises():
    text = "<think>\nhm\n</think>\n\nLook.\n" + written("xml", FULL, NOW) + "<|im_end|>"
    answer = parse_answer(text, templated(), TOOLS)
    assert (answer.text, answer.reasoning) == ("Look.", "hm")
    assert [(call.name, call.arguments) for call in answer.calls] == [FULL, NOW]
    cut = parse_answer(text[: text.index("<parameter=unit>")], templated(), TOOLS)
    assert [call.error for call in cut.invalid_calls] == ["cut off by the end of the text"]
    assert cut.calls == ()
    assert len(templated().visible_tokens) == 1
    with pytest.raises(InvalidOptionError, match="cannot be enforced"):
        templated().grammar(TOOLS, choice="any", parallel=False)


@pytest.mark.parametrize("tags", ["added", "special", "plain"])
@pytest.mark.parametrize("family", FAMILIES)
def test_grammars_take_calls_and_nothing_else(family, tags):
    writing = fmt(family, tags)
    one, two = written(family, FULL), written(family, OSLO, NOW)
    named = writing.grammar(TOOLS, choice="weather", parallel=False)
    assert accepts(named, one, tags)
    assert accepts(named, written(family, OSLO), tags)
    assert not accepts(named, written(family, NOW), tags)
    assert not accepts(named, two, tags)
    assert not accepts(named, "text", tags)
    any_ = writing.grammar(TOOLS, choice="any", parallel=False)
    for call in (OSLO, NOW, GO):
        assert accepts(any_, written(family, call), tags)
    wrong = [
        ("weather", {}), ("weather", {"city": "x", "unit": "K"}), ("weather", {"city": "x", "days": "y"}),
        ("now", {"x": 1}), ("go", {"to": {"lat": "x"}}), ("go", {"to": {"lat": 1.5, "y": 1}}), ("other", {}),
    ]  # fmt: skip
    for call in wrong:
        assert not accepts(any_, written(family, call), tags), call
    several = writing.grammar(TOOLS, choice="any", parallel=True)
    assert accepts(several, one, tags)
    assert accepts(several, two, tags)
    assert not accepts(several, "", tags)


@pytest.mark.parametrize("tags", ["added", "special", "plain"])
@pytest.mark.parametrize("family", FAMILIES)
def test_free_text_may_hold_calls_that_are_valid_once_begun(family, tags):
    auto = fmt(family, tags).grammar(TOOLS, choice="auto", parallel=True)
    single = fmt(family, tags).grammar(TOOLS, choice="auto", parallel=False)
    before = "" if family == "llama3" else "Look: "
    for grammar in (auto, single):
        assert accepts(grammar, "Just text, a < b [x] ü\n", tags)
        assert accepts(grammar, before + written(family, FULL), tags)
        assert not accepts(grammar, before + written(family, ("other", {})), tags)
    assert accepts(auto, before + written(family, OSLO, NOW), tags)
    assert not accepts(single, before + written(family, OSLO, NOW), tags)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_may_be_held_to_a_schema(family):
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "n": {"type": "integer"}},
        "required": ["n"],
    }
    grammar = fmt(family).grammar(TOOLS, choice="auto", parallel=True, answer_schema=schema)
    assert accepts(grammar, '{"n": 5}')
    assert accepts(grammar, '{"name": "weather", "n": 5}')
    assert accepts(grammar, written(family, OSLO, NOW))
    assert not accepts(grammar, '{"n": "x"}')
    assert not accepts(grammar, "text")


@pytest.mark.parametrize("tags", ["added", "special", "plain"])
def test_thoughts_may_come_first_where_the_template_knows_them(tags):
    writing = fmt("thinking", tags)
    call = written("hermes", OSLO)
    thinks = writing.grammar(TOOLS, choice="any", parallel=False)
    assert accepts(thinks, call, tags)
    assert accepts(thinks, f"<think>\nhm\n</think>\n\n{call}", tags)
    assert not accepts(thinks, f"hm</think>{call}", tags)
    opened = writing.grammar(TOOLS, choice="any", parallel=False, prompt="x<think>\n")
    assert accepts(opened, f"hm</think>\n\n{call}", tags)
    assert not accepts(opened, call, tags)
    never = fmt("hermes", tags).grammar(TOOLS, choice="any", parallel=False)
    assert not accepts(never, f"<think>\nhm\n</think>\n\n{call}", tags)


def test_unsound_tools_are_refused():
    for wrong in ({}, {"function": {"name": 5}}, {"name": "x", "parameters": [1]}):
        with pytest.raises(InvalidOptionError):
            fmt("hermes").parser([wrong])
    with pytest.raises(InvalidOptionError, match="twice"):
        fmt("hermes").parser([TOOLS[0], TOOLS[0]])


def test_a_model_is_taught_what_its_template_does_not_know():
    writing = fmt("none")
    text = writing.instructions(TOOLS)
    assert all(json.dumps(tool) in text for tool in TOOLS)
    assert '<tool_call>\n{"name": "tool_name", "arguments": {"argument": "value"}}\n</tool_call>' in text
    assert json.loads(writing.render_result("now", "12 h", "7").split("\n")[1]) == {
        "name": "now", "id": "7", "content": "12 h",
    }  # fmt: skip
