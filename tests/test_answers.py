"""An answer of a framework, or a saved one, is explained like the generation that it came from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_core.outputs import Generation as LangChainGeneration
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import Response
from typer.testing import CliRunner

import langchain_cosd
import llama_index_cosd
from cosd_core import (
    AssistantVerifier,
    AverageVerifier,
    ConfidenceVerifier,
    CoSDDecoder,
    DraftVerifier,
    Generation,
    InvalidOptionError,
    Leaf,
    PanelVerifier,
    RuleVerifier,
    SpeculativeVerifier,
    Split,
    Stats,
    TracedToken,
    TraceError,
    TreeVerifier,
    explain,
)
from cosd_core.cli.app import app
from tests.chats import refused
from tests.models import ascii_model
from tests.test_explain import IRON

PAIR = [ascii_model(seed=seed, eos_token_id=None) for seed in (0, 1)]
OPTIONS = {"draft_model": PAIR[0], "assistant_model": PAIR[1], "max_tokens": 20, "return_trace": True}
CHAT = langchain_cosd.ChatCoSD(**OPTIONS)
COMPLETION = langchain_cosd.CoSDLLM(**OPTIONS)
INDEX = llama_index_cosd.CoSDLLM(**OPTIONS)
MESSAGE = CHAT.invoke("Hi")
CHATTED = Generation.from_dict(MESSAGE.response_metadata["trace"])
COMPLETED = CoSDDecoder(*PAIR).generate("Hi", max_new_tokens=20)


def streamed() -> AIMessageChunk:
    first, *others = CHAT.stream("Hi")
    for chunk in others:
        first = first + chunk  # type: ignore[assignment]
    return first  # type: ignore[return-value]


def timeless(answer: Any) -> str:
    """The page of an answer, whose figures do not depend on the clock."""
    generation = explain.as_generation(answer)
    return explain.to_html(replace(generation, stats=replace(generation.stats, seconds=1.0)))


ANSWERS: dict[str, Any] = {
    "a message": lambda: CHAT.invoke("Hi"),
    "a streamed message": streamed,
    "the last chunk of a stream": lambda: list(CHAT.stream("Hi"))[-1],
    "a result of chats": lambda: CHAT._generate([HumanMessage("Hi")]),
    "results of generate": lambda: CHAT.generate([[HumanMessage("Hi")]]),
    "one generation of them": lambda: CHAT.generate([[HumanMessage("Hi")]]).generations[0][0],
    "the state of an agent": lambda: {"messages": [HumanMessage("Hi"), CHAT.invoke("Hi")]},
    "a message as JSON": lambda: CHAT.invoke("Hi").model_dump_json(),
    "a message as plain data": lambda: CHAT.invoke("Hi").model_dump(),
    "a message as LangChain writes it": lambda: dumps(CHAT.invoke("Hi")),
    "the metadata of a message": lambda: CHAT.invoke("Hi").response_metadata,
    "the trace of a message": lambda: CHAT.invoke("Hi").response_metadata["trace"],
    "a response": lambda: INDEX.chat([ChatMessage("Hi")]),
    "the last response of a stream": lambda: list(INDEX.stream_chat([ChatMessage("Hi")]))[-1],
    "a response as JSON": lambda: INDEX.chat([ChatMessage("Hi")]).model_dump_json(),
    "a response with the metadata of an answer": lambda: Response(
        "", metadata=INDEX.chat([ChatMessage("Hi")]).raw
    ),
}
COMPLETIONS: dict[str, Any] = {
    "a result of texts": lambda: COMPLETION.generate(["Hi"]),
    "one generation of a text": lambda: COMPLETION.generate(["Hi"]).generations[0][0],
    "a completion": lambda: INDEX.complete("Hi"),
    "the last completion of a stream": lambda: list(INDEX.stream_complete("Hi"))[-1],
    "a generation": lambda: COMPLETED,
    "a generation as plain data": COMPLETED.to_dict,
    "a generation as JSON": lambda: json.dumps(COMPLETED.to_dict()),
    "a generation as JSON in bytes": lambda: json.dumps(COMPLETED.to_dict()).encode(),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_form_of_an_answer_to_a_chat_gives_the_same_page(kind: str) -> None:
    assert timeless(ANSWERS[kind]()) == timeless(CHATTED)


@pytest.mark.parametrize("kind", COMPLETIONS)
def test_every_form_of_a_completion_gives_the_same_page(kind: str) -> None:
    assert timeless(COMPLETIONS[kind]()) == timeless(COMPLETED)


def test_the_page_of_a_message_shows_the_prompt_and_both_models() -> None:
    page = explain.to_html(MESSAGE)
    assert "### User" in page
    assert "random-0, random-1" in page
    assert "alpha 0.5" in page


def test_the_terminal_shows_a_message_too() -> None:
    assert explain.to_text(MESSAGE) == explain.to_text(CHATTED)
    assert explain.to_text(MESSAGE).plain.startswith(MESSAGE.text[:8])


@pytest.mark.parametrize(
    "answer",
    [
        AIMessage("Hello"), AIMessage("Hello", response_metadata={"finish_reason": "stop"}),
        LLMResult(generations=[[LangChainGeneration(text="a")]]), ChatMessage("Hello"), Response("Hello"),
        ChatResult(generations=[ChatGeneration(message=AIMessage("Hello"))]),
        {"text": "Hello"}, [], "{}", "null", 3, None,
    ],
    ids=lambda answer: type(answer).__name__,
)  # fmt: skip
def test_an_answer_without_a_trace_is_refused_with_the_option_that_asks_for_it(answer: Any) -> None:
    refused(lambda: explain.to_html(answer), TraceError, "return_trace=True")


def test_a_conversation_with_several_traced_answers_is_refused() -> None:
    other = CHAT.invoke("What?")
    refused(lambda: explain.to_html({"messages": [MESSAGE, other]}), TraceError, "2 traces")
    assert explain.as_generation([MESSAGE, MESSAGE]) == CHATTED


@pytest.mark.parametrize("text", ["", "no JSON", "[" * 100_000, b"\xff"])
def test_text_that_is_no_json_is_refused(text: Any) -> None:
    refused(lambda: explain.to_html(text), TraceError, "no JSON")


def test_a_circular_answer_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["message"] = circle
    refused(lambda: explain.to_html(circle), TraceError, "return_trace=True")


class Cautious(ConfidenceVerifier):
    """A verifier of a user's own."""

    name = "cautious"

    def replaces(self, p: float, q: float) -> bool:
        return q - p > 0.25

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "gap": 0.25}


def test_a_users_own_verifier_is_shown_by_its_name_and_settings() -> None:
    answer = CHAT.invoke("Hi", verifier=Cautious())
    assert "cautious, gap 0.25" in explain.to_html(answer)
    read = explain.as_generation(answer)
    assert read.verifier.to_dict() == {"name": "cautious", "gap": 0.25}
    refused(lambda: CoSDDecoder(*PAIR, verifier=read.verifier).generate("Hi"), InvalidOptionError, "cautious")


# Round trips

finite = st.floats(0, 1)
rules = st.builds(RuleVerifier, alpha=finite, beta=st.floats(0, 1e6))
json_values = st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | finite | st.text())


@st.composite
def trees(draw: Any) -> TreeVerifier:
    thresholds = draw(st.lists(finite, max_size=3))
    nodes: list[Any] = []
    for threshold in thresholds:
        at = len(nodes)
        nodes += [Split(draw(st.sampled_from("pq")), threshold, at + 1, at + 2), Leaf(draw(st.booleans()))]
    return TreeVerifier((*nodes, Leaf(draw(st.booleans()))), about=draw(json_values))


singles = rules | trees() | st.sampled_from([DraftVerifier(), AssistantVerifier()])


@st.composite
def traced_tokens(draw: Any, assistants: int) -> TracedToken:
    source = draw(st.sampled_from(["draft", "assistant"]))
    ids = st.integers(0, 2**40)
    other = draw(st.text(min_size=1) | (st.none() if source == "draft" else st.text(min_size=1)))
    asked = source == "assistant" or draw(st.booleans())
    return TracedToken(
        id=draw(ids), text=draw(st.text()), source=source, p=draw(finite), draft_id=draw(ids),
        q=draw(finite) if asked else None, assistant_id=draw(ids) if asked else None, other_text=other,
        assistant_index=draw(st.integers(0, assistants - 1)) if asked else None,
    )  # fmt: skip


@st.composite
def generations(draw: Any) -> Generation:
    assistants = draw(st.integers(1, 3))
    panels = st.lists(singles, min_size=assistants, max_size=assistants).map(
        lambda members: PanelVerifier(tuple(members))
    )
    mixing: Any = st.builds(AverageVerifier, weight=finite)
    mixing = mixing | st.just(SpeculativeVerifier()) if assistants == 1 else mixing
    tokens = tuple(draw(st.lists(traced_tokens(assistants), max_size=4)))
    counts = draw(st.lists(st.integers(0, 10**9), min_size=9, max_size=9))
    each = {"min_size": assistants + 1, "max_size": assistants + 1}
    return Generation(
        text=draw(st.text()), token_ids=tuple(token.id for token in tokens), tokens=tokens,
        finish_reason=draw(st.sampled_from(["stop", "length"])), stop_sequence=draw(st.none() | st.text()),
        prompt=draw(st.text()), prompt_tokens=draw(st.integers(0, 10**9)),
        stats=Stats(*counts, seconds=draw(st.floats(0, 1e6))), verifier=draw(singles | panels | mixing),
        models=tuple(draw(st.lists(st.text(), **each))),
        calibration=tuple(draw(st.lists(st.floats(0.01, 100), **each))),
    )  # fmt: skip


@given(generations())
def test_a_generation_is_read_back_from_its_dictionary_and_from_json(generation: Generation) -> None:
    assert Generation.from_dict(generation.to_dict()) == generation
    saved = json.dumps(generation.to_dict())
    assert Generation.from_dict(json.loads(saved)) == generation
    assert Generation.from_dict(json.loads(saved)).to_dict() == generation.to_dict()
    assert explain.as_generation(saved) == generation


def test_what_a_tree_was_learned_from_is_read_back_too() -> None:
    tree = TreeVerifier((Leaf(True),), about={"models": ["a", "b"], "calibration": [1.5, 0.5]})
    read = Generation.from_dict(json.loads(json.dumps(replace(IRON, verifier=tree).to_dict())))
    assert read.verifier.calibration == (1.5, 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"text": 3}, ["text=3"]),
        ({"finish_reason": "tired"}, ["finish_reason='tired'", "'stop' or 'length'"]),
        ({"colour": "red"}, ["colour='red'"]),
        ({"prompt_tokens": True}, ["prompt_tokens=True"]),
        ({"tokens": "ab"}, ["tokens='ab'"]),
        ({"tokens": [{}]}, ["tokens.0.id"]),
        ({"tokens": [{**IRON.to_dict()["tokens"][0], "p": "high"}], "token_ids": [1]}, ["tokens.0.p='high'"]),
        ({"tokens": [{**IRON.to_dict()["tokens"][0], "p": 1.5}], "token_ids": [1]}, ["p=1.5", "0 and 1"]),
        ({"tokens": [{**IRON.to_dict()["tokens"][0], "assistant_index": 7}], "token_ids": [1]}, ["index=7"]),
        ({"tokens": [{**IRON.to_dict()["tokens"][18], "other_text": ""}], "token_ids": [2]}, ["replacement"]),
        ({"token_ids": [5]}, ["token_ids=(5,)"]),
        ({"stats": {"rounds": 1}}, ["stats.tokens"]),
        ({"models": ["alone"]}, ["models=('alone',)"]),
        ({"calibration": [1.0]}, ["calibration"]),
        ({"verifier": {}}, ["verifier={}", "name"]),
        ({"verifier": {"name": "rule", "alpha": -2}}, ["alpha=-2"]),
        ({"verifier": {"name": "rule", "gamma": 2}}, ["gamma"]),
        ({"verifier": {"name": "tree", "nodes": [{"leaf": 1}]}}, ["node 0"]),
        ({"verifier": {"name": "panel", "members": [{"name": "rule"}, {"name": "draft"}]}}, ["2 verifiers"]),
        ({"prompt": "\ud800"}, ["no saved generation"]),
        ({"stop_sequence": object()}, ["no saved generation"]),
    ],
)
def test_damaged_generations_are_refused_with_the_entry(changes: dict[str, Any], words: list[str]) -> None:
    refused(lambda: Generation.from_dict({**IRON.to_dict(), **changes}), TraceError, *words)
    if "tokens" not in changes or isinstance(changes["tokens"], list):
        refused(lambda: explain.to_html({**IRON.to_dict(), **changes}), TraceError, *words)


# The command line


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_a_saved_message_is_explained_on_the_command_line(source: str, tmp_path: Path) -> None:
    saved, page = tmp_path / "message.json", tmp_path / "page.html"
    saved.write_text(MESSAGE.model_dump_json(), encoding="utf-8")
    name, given = (str(saved), None) if source == "file" else ("-", saved.read_text(encoding="utf-8"))
    printed = CliRunner().invoke(app, ["explain", name], input=given)
    assert printed.exit_code == 0
    assert "### User" in printed.output
    assert "random-0, random-1" in printed.output
    written = CliRunner().invoke(app, ["explain", name, "--html", str(page)], input=given)
    assert (written.exit_code, written.output) == (0, "")
    assert page.read_text(encoding="utf-8") == explain.to_html(MESSAGE)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["missing.json"]),
        (b"\xff\xfe", ["cannot read"]),
        (b"{}", ["return_trace=True"]),
        (b"{", ["JSON"]),
    ],
)
def test_a_file_that_cannot_be_explained_is_named(
    content: bytes | None, words: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "missing.json"
    if content is not None:
        file.write_bytes(content)
    error = CliRunner().invoke(app, ["explain", str(file)]).exception
    assert isinstance(error, TraceError)
    assert all(word in str(error) for word in ["missing.json", *words])
    assert len(str(error).splitlines()) == 1
