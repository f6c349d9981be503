"""Claim: a chat is written as if every model had read it in its own words; bad ones are refused by name."""

import asyncio
import re
from functools import cache
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import (
    AdaptiveSchedule,
    AverageVerifier,
    Chat,
    ContextOverflowError,
    CoSDDecoder,
    Generation,
    InvalidOptionError,
    InvalidPromptError,
    LanguageModel,
    RuleVerifier,
    TreeVerifier,
    Verifier,
)
from cosd_core.chat.rendering import render
from cosd_core.generation.detokenizer import Detokenizer
from cosd_core.verifiers import AssistantVerifier, Leaf, SpeculativeVerifier, Split
from tests.chats import EOS, NOW, SPECIAL, TAGS, WEATHER, chat_model, recited, refused, tokenizer
from tests.grids import covering, exhaustive
from tests.joining import decode_joining
from tests.reference import Tree, Written, assert_agrees, write

HI = [{"role": "user", "content": "Hi"}]
TALKS = [
    HI,
    [{"role": "user", "content": "The quick brown fox?"}, {"role": "assistant", "content": "Jumps."},
     {"role": "user", "content": "Over?"}],
    [{"role": "user", "content": "naïve 你好 🦊."}],
    [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"},
     {"role": "user", "content": "z"}, {"role": "assistant", "content": ""}],
]  # fmt: skip
TEXTS = ["Hello", "1 + 1 = "]


# Written as if every model had read it in its own words

_TREE = TreeVerifier((Split("p", 0.6, 1, 4), Split("q", 0.2, 2, 3), Leaf(False), Leaf(True), Leaf(False)))
VERIFIERS: dict[str, tuple[Verifier, Tree | None]] = {
    "rule": (RuleVerifier(), None),
    "often": (RuleVerifier(alpha=1.01, beta=0.1), None),
    "tree": (_TREE, lambda p, q: p <= 0.6 and q > 0.2),
    "assistant": (AssistantVerifier(), None),
    "average": (AverageVerifier(weight=0.4), None),
    "speculative": (SpeculativeVerifier(), None),
}
HOW: dict[str, dict[str, Any]] = {
    "greedy": {"max_new_tokens": 16},
    "sampled": {"max_new_tokens": 14, "temperature": 0.8, "top_k": 50, "seed": 3},
    "ended": {"max_new_tokens": 16, "eos_token_id": list(range(60, 80)), "min_new_tokens": 3,
              "stop": ("a", "q")},
}  # fmt: skip
SETTINGS: list[dict[str, Any]] = [
    {"schedule": "adaptive", "draft_length": 8},
    {"schedule": "fixed", "draft_length": 1, "batch_size": 3},
    {"schedule": "fixed", "draft_length": 5, "batch_size": 2},
    {"schedule": AdaptiveSchedule(assistant_cost=5), "draft_length": 64, "batch_size": 4},
    {"schedule": AdaptiveSchedule(assistant_cost=0.2), "draft_length": 3, "batch_size": 1},
]
GROUPS = {
    "two templates": ("chatml", "strict"),
    "no template": ("strict", "none"),
    "two assistants": ("none", "strict", "chatml"),
}


def models(group: str) -> list[LanguageModel]:
    return [chat_model(template, seed=seed) for seed, template in enumerate(GROUPS[group])]


def shown_by_hand(model: LanguageModel, talk: list[dict[str, Any]]) -> list[int]:
    """The prompt of one model, without any help of ours."""
    if model.tokenizer.chat_template:
        shown = model.tokenizer.apply_chat_template(talk, add_generation_prompt=True)
        return list(shown["input_ids"])
    said = [f"### {each['role'].title()}\n{each['content']}\n\n" for each in talk]
    return model.encode("".join([*said, "### Assistant\n"]))


@cache
def written(group: str, name: str, how: str, at: int) -> Written:
    draft, *assistants = models(group)
    verifier, tree = VERIFIERS[name]
    options = dict(HOW[how])
    if "none" in GROUPS[group]:
        options["stop"] = (*options.get("stop", ()), "\n### ")
    shown = [shown_by_hand(model, TALKS[at]) for model in (draft, *assistants)]
    return write(draft, assistants, verifier, "", tree=tree, shown=shown, **options)


CASES = [
    (group, name, how)
    for group in GROUPS
    for name in VERIFIERS
    for how in HOW
    if name != "speculative" or (how == "sampled" and group != "two assistants")
]


@pytest.mark.parametrize(("group", "name", "how"), covering(CASES))
def test_a_chat_is_written_as_if_every_model_had_read_it_in_its_own_words(group, name, how):
    draft, *assistants = models(group)
    verifier, tree = VERIFIERS[name]
    texts = [write(draft, assistants, verifier, text, tree=tree, **HOW[how]) for text in TEXTS]
    expected = [*(written(group, name, how, at) for at in range(len(TALKS))), *texts]
    prompts = [*map(Chat, TALKS), *TEXTS]
    for number, setting in enumerate(SETTINGS):
        decoder = CoSDDecoder(draft, assistants, verifier=verifier, **setting)
        order = sorted(range(len(prompts)), key=lambda at: (at * 5 + number) % len(prompts))
        generations = decoder.generate([prompts[at] for at in order], **HOW[how])
        for at, generation in zip(order, generations, strict=True):
            assert_agrees(generation, expected[at], asked=setting["schedule"] == "fixed")
            if at < len(TALKS):
                shown = shown_by_hand(draft, TALKS[at])
                assert generation.prompt.removeprefix("<bos>") == draft.decode(shown).removeprefix("<bos>")
                assert generation.prompt_tokens == len(shown)


@pytest.mark.parametrize(("group", "name"), covering(sorted({(group, name) for group, name, _ in CASES})))
def test_chats_that_join_a_running_batch_are_written_so_too(group, name):
    draft, *assistants = models(group)
    cases = [(at, how) for at in range(len(TALKS)) for how in HOW if (group, name, how) in CASES]
    decoder = CoSDDecoder(draft, assistants, verifier=VERIFIERS[name][0], draft_length=4)
    generations = decode_joining(decoder, [(Chat(TALKS[at]), HOW[how]) for at, how in cases], seed=len(name))
    for (at, how), generation in zip(cases, generations, strict=True):
        assert_agrees(generation, written(group, name, how, at), asked=False)


@exhaustive
def test_among_the_cases_the_prompts_and_the_texts_differ():
    draft, assistant = models("two templates")
    replaced, ended, other = 0, 0, 0
    for group, name, how in CASES:
        for at in range(len(TALKS)):
            text = written(group, name, how, at)
            replaced += 0 < text.replaced < len(text.ids)
            ended += text.finish_reason == "stop"
    for at, talk in enumerate(TALKS):
        ours, theirs = shown_by_hand(draft, talk), shown_by_hand(assistant, talk)
        assert len(ours) != len(theirs)
        same = write(draft, [assistant], RuleVerifier(), ours, **HOW["greedy"])
        other += same.ids != written("two templates", "rule", "greedy", at).ids
    assert replaced >= 40
    assert ended >= 10
    assert other >= 2, "it should matter that the assistant reads its own prompt"


def without_seconds(generation: Generation) -> dict[str, Any]:
    values = generation.to_dict()
    del values["stats"]["seconds"], values["stats"]["tokens_per_second"]
    return values


@pytest.mark.parametrize(("template", "how"), covering(product(["chatml", "strict", "hermes"], HOW)))
def test_models_of_one_template_write_what_they_write_to_the_rendered_ids(template, how):
    pair = [chat_model(template), chat_model(template, seed=1)]
    decoder = CoSDDecoder(*pair, schedule="fixed", draft_length=4)
    for talk in TALKS:
        chat = decoder.generate(Chat(talk), **HOW[how])
        ids = decoder.generate(shown_by_hand(pair[0], talk), **HOW[how])
        assert without_seconds(chat) == without_seconds(ids)


@pytest.mark.parametrize("how", HOW)
def test_streams_and_async_twins_tell_the_same(how):
    draft, *assistants = models("two assistants")
    decoder = CoSDDecoder(draft, assistants, schedule="fixed", batch_size=2)
    prompts = [*map(Chat, TALKS), *TEXTS]
    expected = decoder.generate(prompts, **HOW[how])
    assert decoder.generate(prompts[1], **HOW[how]).token_ids == expected[1].token_ids

    async def run() -> Any:
        whole = await decoder.agenerate(prompts, **HOW[how])
        return whole, [chunk async for chunk in decoder.astream(prompts, **HOW[how])]

    whole, chunks = asyncio.run(run())
    assert list(map(without_seconds, whole)) == list(map(without_seconds, expected))
    for pieces in (chunks, list(decoder.stream(prompts, **HOW[how]))):
        for at, generation in enumerate(expected):
            own = [chunk for chunk in pieces if chunk.index == at]
            assert "".join(chunk.text for chunk in own) == generation.text
            assert without_seconds(own[-1].generation) == without_seconds(generation)


def test_a_penalty_looks_at_what_each_model_was_shown():
    """So that the assistant alone still writes what ``generate`` writes."""
    draft, assistant = models("two templates")
    decoder = CoSDDecoder(draft, assistant, verifier="assistant")
    options = {"max_new_tokens": 16, "repetition_penalty": 1.5}
    ids = shown_by_hand(assistant, TALKS[1])
    alone = write(assistant, [assistant], AssistantVerifier(), ids, **options)
    assert decoder.generate(Chat(TALKS[1]), **options).token_ids == alone.ids


def test_a_prompt_may_be_rendered_once_and_used_often():
    decoder = CoSDDecoder(*models("two templates"))
    chat = Chat(TALKS[1])
    shown = render(chat, decoder.models)
    one, two, three = decoder.generate([shown, chat, shown], max_new_tokens=8)
    assert one.token_ids == two.token_ids == three.token_ids
    assert decoder.generate(shown, max_new_tokens=8).text == one.text


# Bad input


def calling(call: Any) -> list[dict[str, Any]]:
    return [*HI, {"role": "assistant", "content": "", "tool_calls": [call]}]


@pytest.mark.parametrize(
    ("messages", "needed"),
    [
        ([], ["messages=[]", "at least one"]),
        ((), ["messages=()"]),
        (None, ["None"]),
        ("Hi", ["'Hi'", "list"]),
        ({"role": "user", "content": "Hi"}, ["'role': 'user'", "list"]),
        (iter(HI), ["list_iterator", "list"]),
        (["Hi"], ["message 0", "'Hi'", "dictionary"]),
        ([*HI, None], ["message 1", "None"]),
        ([*HI, ("user", "Hi")], ["message 1", "('user', 'Hi')"]),
        ([{}], ["message 0", "role=None", "system, user, assistant, tool"]),
        ([{"content": "Hi"}], ["role=None"]),
        ([{"role": "User", "content": "Hi"}], ["role='User'"]),
        ([{"role": ["user"], "content": "Hi"}], ["role=['user']"]),
        ([{"role": "user", "contents": "Hi"}], ["unknown key 'contents'", "reasoning_content"]),
        ([{"role": "user", 5: "Hi"}], ["unknown key 5"]),
        ([{"role": "user", "content": 5}], ["message 0", "content=5", "text"]),
        ([{"role": "user", "content": b"Hi"}], ["content=b'Hi'"]),
        ([{"role": "user", "content": {"text": "Hi"}}], ["content={'text': 'Hi'}"]),
        ([{"role": "user", "content": ["Hi", 5]}], ["message 0", "'int'"]),
        ([{"role": "user", "content": [["Hi"]]}], ["'list'"]),
        ([{"role": "user", "content": [{"type": "image_url"}]}], ["message 0", "'image_url'", "text only"]),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], ["message 0", "'text'"]),
        ([{"role": "user", "content": "a\ud800b"}], ["message 0", "content=", "surrogate"]),
        ([{"role": "user", "content": ["a", "b\ud800"]}], ["message 0", "content=", "surrogate"]),
        ([{"role": "user", "content": "Hi", "name": 5}], ["message 0", "name=5"]),
        ([{"role": "tool", "content": "Hi", "tool_call_id": 5}], ["tool_call_id=5"]),
        ([{"role": "assistant", "content": "Hi", "reasoning_content": ["x"]}], ["reasoning_content=['x']"]),
        ([{"role": "user", "content": "Hi", "tool_calls": [{"name": "now"}]}], ["message 0", "tool_calls="]),
        ([*HI, {"role": "assistant", "tool_calls": {"name": "now"}}], ["message 1", "={'name': 'now'}"]),
        ([*HI, {"role": "assistant", "tool_calls": "now"}], ["message 1", "'now'", "list"]),
        (calling("now"), ["message 1", "tool call 'now'", "function"]),
        (calling({}), ["tool call {}"]),
        (calling({"function": "now"}), ["'now'"]),
        (calling({"function": {"arguments": {}}}), ["'arguments'"]),
        (calling({"name": 5}), ["5"]),
        (calling({"name": "now", "arguments": None}), ["None"]),
        (calling({"name": "now", "arguments": "{"}), ["'{'"]),
        (calling({"name": "now", "arguments": ""}), ["''"]),
        (calling({"name": "now", "arguments": "[1]"}), ["'[1]'"]),
        (calling({"name": "now", "arguments": "[" * 100_000}), ["[[[["]),
        (calling({"name": "now", "arguments": {"a": {1}}}), ["{1}"]),
        (calling({"name": "now", "arguments": {(1, 2): 3}}), ["(1, 2)"]),
        (calling({"name": "now", "arguments": {"a": "\ud800"}}), ["ud800"]),
    ],
    ids=lambda value: repr(value)[:40].split(" object")[0],
)  # fmt: skip
def test_messages_of_a_wrong_shape_are_refused_by_name(messages, needed):
    refused(lambda: Chat(messages), InvalidPromptError, *needed)


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ({"tools": None}, ["tools=None", "list"]),
        ({"tools": 5}, ["tools=5", "list"]),
        ({"tools": "now"}, ["tools='now'", "list"]),
        ({"tools": NOW}, ["tools=", "list"]),
        ({"tools": iter([NOW])}, ["tools=", "list"]),
        ({"tools": [5]}, ["tool 5"]),
        ({"tools": ["now"]}, ["tool 'now'"]),
        ({"tools": [{}]}, ["tool {}"]),
        ({"tools": [{"function": {"name": 5}}]}, ["5"]),
        ({"tools": [{"name": ""}]}, ["''"]),
        ({"tools": [{"name": "a", "parameters": [1]}]}, ["parameters=[1]", "'a'"]),
        ({"tools": [NOW, NOW]}, ["'now'", "twice"]),
        ({"tools": [{"name": "a", "parameters": {"properties": {"b": {1}}}}]}, ["tools=", "JSON", "set"]),
        ({"tools": [{"name": "a", "description": "\ud800"}]}, ["tools=", "JSON"]),
        ({"chat_template": 5}, ["chat_template=5"]),
        ({"chat_template": ["x"]}, ["chat_template=['x']"]),
        ({"chat_template_kwargs": None}, ["chat_template_kwargs=None"]),
        ({"chat_template_kwargs": ["x"]}, ["chat_template_kwargs=['x']"]),
        ({"chat_template_kwargs": {5: 1}}, ["chat_template_kwargs", "5"]),
        ({"chat_template_kwargs": {"messages": []}}, ["chat_template_kwargs", "'messages'"]),
        ({"chat_template_kwargs": {"tools": []}}, ["'tools'"]),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, ["'add_generation_prompt'"]),
        ({"chat_template_kwargs": {"return_tensors": "pt"}}, ["'return_tensors'"]),
        ({"chat_template_kwargs": {"truncation": True, "max_length": 3}}, ["'truncation'"]),
        ({"chat_template_kwargs": {"sanitize_control_tokens": False}}, ["'sanitize_control_tokens'"]),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value))[:60],
)
def test_tools_and_templates_of_a_wrong_shape_are_refused_by_name(more, needed):
    refused(lambda: Chat(HI, **more), InvalidOptionError, *needed)


@pytest.mark.parametrize(
    "template",
    ["", "{% if", "{{ nope() }}", "{{ messages[5].content.x }}", "{{ messages | nope }}", "default"],
)
def test_templates_that_do_not_work_are_refused_with_what_is_wrong(template):
    decoder = CoSDDecoder(*models("two templates"))
    chat = Chat(HI, chat_template=template)
    refused(lambda: decoder.generate(chat), InvalidPromptError, "chat template", "chatml 0")


@pytest.mark.parametrize("prompts", [[Chat(HI), 5], [Chat(HI), None], [[Chat(HI)]], {"a": Chat(HI)}])
def test_lists_of_chats_and_other_things_are_refused(prompts):
    decoder = CoSDDecoder(*models("two templates"))
    refused(lambda: decoder.generate(prompts), InvalidPromptError, "prompt")


def test_a_chat_that_renders_to_nothing_is_an_empty_prompt():
    chat = Chat([{"role": "user", "content": ""}], chat_template="{{ messages[0].content }}")
    refused(lambda: CoSDDecoder(*models("two templates")).generate(chat), InvalidPromptError, "empty")


def test_a_prompt_rendered_for_other_models_is_refused():
    decoder = CoSDDecoder(*models("two templates"))
    shown = render(Chat(HI), [decoder.draft])
    refused(lambda: decoder.generate(shown), InvalidPromptError)


def test_a_chat_keeps_what_it_was_made_of():
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
    tools, variables = [NOW], {"enable_thinking": False}
    chat = Chat(messages, tools, chat_template_kwargs=variables)
    messages[0]["content"] = "Bye"
    messages.append({"role": "assistant", "content": "x"})
    tools.append(WEATHER)
    variables["messages"] = 5
    assert chat == Chat(HI, [NOW], chat_template_kwargs={"enable_thinking": False})


# Context windows


def window(draft: int, assistant: int) -> CoSDDecoder:
    return CoSDDecoder(
        chat_model("strict", max_position_embeddings=draft),
        chat_model("none", seed=1, max_position_embeddings=assistant),
    )


def test_a_chat_fits_if_every_models_own_prompt_does():
    """[INST] Hi [/INST] has 18 tokens, the plain headings have 36."""
    ours, theirs = (len(each) for each in render(Chat(HI), window(64, 64).models).ids)
    assert ours < theirs
    decoder = window(64, 64)
    room = 64 - theirs
    assert decoder.generate(Chat(HI), max_new_tokens=room).prompt_tokens == ours
    refused(
        lambda: decoder.generate(["x", Chat(HI)], max_new_tokens=room + 1),
        ContextOverflowError,
        f"{theirs} tokens", f"max_new_tokens={room + 1}", "64", "truncation=True",
    )  # fmt: skip
    refused(lambda: decoder.generate(Chat(HI), max_new_tokens=64), ContextOverflowError, "no room", "64")
    refused(lambda: window(4096, 32).generate(Chat(HI)), ContextOverflowError, "32", "none 1")


def test_a_prompt_is_held_to_the_window_of_the_model_that_reads_it():
    ours, theirs = (len(each) for each in render(Chat(HI), window(64, 64).models).ids)
    decoder = window(theirs, 64)
    assert decoder.generate(Chat(HI), max_new_tokens=min(theirs - ours, 64 - theirs)).prompt_tokens == ours


def test_truncation_keeps_the_end_of_every_prompt():
    decoder = window(64, 64)
    chat = Chat([{"role": "user", "content": "x" * 100}])
    shown = [list(ids) for ids in render(chat, decoder.models).ids]
    draft, assistant = decoder.models
    expected = write(
        draft, [assistant], RuleVerifier(), "", shown=[ids[-44:] for ids in shown],
        max_new_tokens=20, stop=("\n### ",),
    )  # fmt: skip
    generation = decoder.generate(chat, max_new_tokens=20, truncation=True)
    assert_agrees(generation, expected, asked=False)
    assert generation.prompt_tokens == 44


# Special tokens in the text


def test_special_tokens_that_a_format_needs_are_in_the_text_and_others_are_not():
    decoder = CoSDDecoder(chat_model("mistral"), chat_model("chatml", seed=1))
    answer = "<|im_start|>So[TOOL_CALLS]now[ARGS]{}<|python_tag|><tool_call>é<|im_end|>"
    options = recited(decoder, answer, len(render(Chat(HI), decoder.models).ids[0]))
    generation = decoder.generate(Chat(HI), **options)
    assert generation.text == "So[TOOL_CALLS]now[ARGS]{}<tool_call>é"
    chunks = list(decoder.stream(Chat(HI), **options))
    assert "".join(chunk.text for chunk in chunks) == generation.text
    assert "[TOOL_CALLS]" in [token.text for chunk in chunks for token in chunk.tokens]
    ids = render(Chat(HI), decoder.models).ids[0]
    assert decoder.generate(list(ids), **options).text == "Sonow{}<tool_call>é", (
        "a plain prompt hides them all"
    )
    both = decoder.generate([Chat(HI), list(ids)], **options)
    assert [each.text for each in both] == [generation.text, "Sonow{}<tool_call>é"]


IDS = st.lists(st.integers(0, EOS + len(SPECIAL) + len(TAGS)), max_size=40)


@settings(deadline=None, max_examples=150)
@given(prompt=IDS, ids=IDS, visible=st.frozensets(st.integers(EOS, EOS + len(SPECIAL)), max_size=4))
def test_pieces_add_up_to_the_text_with_the_visible_tokens_in_it(prompt, ids, visible):
    given_ = [*prompt, *tokenizer().encode("x", add_special_tokens=False)]
    detokenizer = Detokenizer(tokenizer(), given_, visible)
    pieces = [detokenizer.push(each) for each in ids] + [detokenizer.flush()]
    kept = [each for each in ids if not EOS <= each <= EOS + len(SPECIAL) or each in visible]
    expected = tokenizer().decode(kept, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == expected
