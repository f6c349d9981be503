"""Structured predictions: values of pydantic classes, valid by construction, or an error.

What the models write is random at temperature 1 here; a grammar holds it to the schema.
"""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from llama_index.core import SummaryIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.types import PydanticProgramMode
from pydantic import BaseModel, Field, ValidationError, field_validator

from cosd_core import GenerationError, IncompleteAnswerError, InvalidOptionError, SchemaMismatchError
from llama_index_cosd import CoSDLLM, CoSDProgram
from tests.llama_index.conftest import SYSTEM, USER, Spied, saying, scripted, within

# StructuredLLM calls json() of pydantic 1.
pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")

PROMPT = PromptTemplate("Tell me of {whom}.")
LONG = {"temperature": 1.0, "max_new_tokens": 400}


class Mood(Enum):
    GOOD = "good"
    BAD = "bad"


class Pet(BaseModel):
    """A pet."""

    name: str = Field(pattern="^[a-z]{1,5}$")
    mood: Mood


class Person(BaseModel):
    """A person."""

    name: str = Field(pattern="^[a-z]{1,5}$")
    age: int = Field(ge=0, le=99)


class Owner(BaseModel):
    """Nested, optional, lists, enumerations."""

    person: Person
    pets: list[Pet] = Field(max_length=2)
    town: str | None = Field(default=None, pattern="^[a-z]{1,5}$")
    kind: Literal["a", "b"]


class Tree(BaseModel):
    """Refers to itself."""

    up: bool
    kids: list["Tree"] = Field(default=[], max_length=1)


class Even(BaseModel):
    """Says more than its schema."""

    number: Literal[1, 2]

    @field_validator("number")
    @classmethod
    def _is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("odd numbers are not even")
        return value


@pytest.fixture
def wild(llm: Any) -> CoSDLLM:
    return llm.model_copy(update=LONG)


WAYS = (
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
)


async def predictions(
    llm: Any, way: str, cls: type[BaseModel], prompt: Any = PROMPT, **options: Any
) -> list[Any]:
    result = getattr(llm, way)(cls, prompt, llm_kwargs=options or None, whom="Anna")
    if way.startswith("a"):
        result = await result
    if "stream" not in way:
        return [result]
    return [each async for each in result] if way.startswith("a") else list(result)


every_way = pytest.mark.parametrize("way", WAYS)


# Valid by construction


@pytest.mark.parametrize("schema", [Person, Owner, Pet, Tree], ids=lambda each: each.__name__)
async def test_an_answer_is_valid_or_an_error(wild: Any, schema: type[BaseModel]) -> None:
    whole = 0
    for seed in range(2):
        for way in WAYS:
            with contextlib.suppress(IncompleteAnswerError):
                *_, value = await predictions(wild, way, schema, seed=seed)
                assert type(value) is schema
                whole += 1
    assert whole >= 4


async def test_all_ways_predict_the_same(wild: Any) -> None:
    values = [(await predictions(wild, way, Owner, seed=2))[-1] for way in WAYS]
    assert all(value == values[0] for value in values)
    other = await predictions(wild, "structured_predict", Owner, seed=3)
    assert other != values[:1]


@pytest.mark.parametrize("way", WAYS[2:])
async def test_a_stream_grows_to_the_whole(wild: Any, way: str) -> None:
    *partial, whole = await predictions(wild, way, Owner, seed=2)
    assert type(whole) is Owner
    assert len(partial) > 3
    named = [each.person for each in partial if getattr(each, "person", None)]
    assert named, "a part is shown before the whole"


async def test_no_alias_or_default_breaks_a_prediction(wild: Any) -> None:
    class Aliased(BaseModel):
        """Fields by other names."""

        up: bool = Field(alias="isUp")
        down: bool = True

    for way in WAYS:
        *_, value = await predictions(wild, way, Aliased, seed=1)
        assert isinstance(value, Aliased)


async def test_chat_prompts_and_partial_prompts_are_understood(wild: Any) -> None:
    chat = ChatPromptTemplate([ChatMessage(role=SYSTEM, content="Be brief."), ChatMessage("Who is {whom}?")])
    for prompt in (chat, PROMPT.partial_format(other="x")):
        for way in WAYS:
            *_, value = await predictions(wild, way, Person, prompt, seed=1)
            assert isinstance(value, Person)


async def test_the_prompt_is_shown_filled_in_with_the_schema(llm: Any) -> None:
    spied = Spied(llm)
    for way in WAYS:
        with pytest.raises(IncompleteAnswerError):
            await predictions(spied.llm, way, Person)
        shown = spied.only
        assert "Tell me of Anna." in shown
        assert shown.count('"pattern": "^[a-z]{1,5}$"') == 1
        assert "{{" not in shown, "braces are not doubled"


async def test_the_prompt_object_is_left_as_it_was(wild: Any) -> None:
    prompt = PromptTemplate("Tell me of {whom}.")
    before = prompt.model_dump()
    for way in WAYS:
        await predictions(wild, way, Person, prompt, seed=1)
    assert prompt.output_parser is None
    assert prompt.model_dump() == before
    assert prompt.format(whom="Anna") == "Tell me of Anna."


async def test_options_of_a_call_reach_it_and_the_dictionary_is_left(wild: Any) -> None:
    options = {"seed": 4, "max_tokens": 300}
    value = wild.structured_predict(Person, PROMPT, llm_kwargs=options, whom="Anna")
    assert options == {"seed": 4, "max_tokens": 300}
    assert value == wild.model_copy(update={"seed": 4}).structured_predict(Person, PROMPT, whom="Anna")
    for way in WAYS:
        with pytest.raises(InvalidOptionError, match="bananas"):
            await predictions(wild, way, Person, bananas=1)


async def test_one_prediction_is_one_start_and_one_end(wild: Any, events: Any) -> None:
    for way in WAYS[:2]:
        await predictions(wild, way, Person, seed=1)
        names = [name for name in events.names() if name.startswith("LLM") and "InProgress" not in name]
        assert names == [
            "LLMStructuredPredictStartEvent", "LLMChatStartEvent", "LLMChatEndEvent",
            "LLMStructuredPredictEndEvent",
        ]  # fmt: skip
        events.seen.clear()


async def test_many_predictions_at_once_do_not_mix(wild: Any) -> None:
    async def predict(seed: int) -> Any:
        return await wild.astructured_predict(Person, PROMPT, llm_kwargs={"seed": seed}, whom="Anna")

    expected = [
        wild.structured_predict(Person, PROMPT, llm_kwargs={"seed": seed}, whom="Anna") for seed in range(8)
    ]
    assert await within(asyncio.gather(*map(predict, range(8)))) == expected


# Refused


@every_way
async def test_what_a_validator_refuses_is_our_error(llm: Any, way: str) -> None:
    numbers = {"logits_processor": [Last(llm, "1")]}
    with pytest.raises(
        GenerationError, match=r"Even refuses the answer .*odd numbers are not even"
    ) as caught:
        await predictions(llm, way, Even, max_tokens=60, **numbers)
    assert not isinstance(caught.value, ValueError | TypeError | IncompleteAnswerError)
    *_, value = await predictions(llm, way, Even, max_tokens=60, logits_processor=[Last(llm, "2")])
    assert value.number == 2


class Last:
    """Makes the models write this character wherever they may."""

    stateless = True

    def __init__(self, llm: Any, character: str) -> None:
        (self._id,) = llm.get_tokenizer().encode(character, add_special_tokens=False)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if scores[0, self._id].isfinite():
            scores[:, self._id] += 1000
        return scores


@every_way
async def test_what_max_tokens_cuts_is_an_error(llm: Any, way: str) -> None:
    for length in (1, 5, 12):
        with pytest.raises(IncompleteAnswerError, match=f"max_new_tokens after {length} tokens") as caught:
            await predictions(llm, way, Person, max_tokens=length)
        assert not isinstance(caught.value, ValueError | TypeError)


@every_way
async def test_what_a_stop_string_cuts_is_an_error(wild: Any, way: str) -> None:
    with pytest.raises(IncompleteAnswerError, match="the stop string 'age'"):
        await predictions(wild, way, Person, stop=["age"], seed=1)


@every_way
async def test_an_answer_that_ends_with_the_last_token_allowed_is_whole_or_an_error(
    llm: Any, way: str
) -> None:
    """JSON that is whole but for its end is not told apart from JSON that is cut."""

    class Flag(BaseModel):
        up: Literal[True]

    text = '{"up":true}'
    seen = set()
    for length in range(1, len(text) + 3):
        try:
            *_, value = await predictions(llm, way, Flag, max_tokens=length)
            assert value.up is True
            seen.add(True)
        except IncompleteAnswerError:
            seen.add(False)
    assert seen == {True, False}


# Structured LLMs and engines


FORMS = ("complete", "acomplete", "chat", "achat", "stream_chat", "astream_chat")


@pytest.mark.parametrize("form", FORMS)
async def test_a_structured_llm_answers_in_every_form(wild: Any, form: str) -> None:
    seeded = wild.model_copy(update={"seed": 2})
    structured = seeded.as_structured_llm(Person)
    asked: Any = (
        [ChatMessage(role=USER, content="Anna, with {braces}")] if "chat" in form else "Anna, with {braces}"
    )
    result = getattr(structured, form)(asked)
    if form.startswith("a"):
        result = await result
    if "stream" in form:
        *_, result = [each async for each in result] if form.startswith("a") else list(result)
    assert type(result.raw) is Person
    told = json.loads(result.text if "complete" in form else result.message.content)
    assert Person.model_validate(told) == result.raw
    assert result.raw == seeded.structured_predict(
        Person, PromptTemplate("{text}"), text="Anna, with {braces}"
    )


def test_a_structured_llm_passes_options_on(wild: Any) -> None:
    structured = wild.as_structured_llm(Person)
    assert structured.complete("x", seed=1).raw == structured.complete("x", seed=1).raw
    with pytest.raises(IncompleteAnswerError):
        structured.complete("x", max_tokens=3)


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize"])
async def test_a_query_engine_answers_with_a_class(
    wild: Any, mode: str, documents: Any, call: Callable[..., Any]
) -> None:
    seeded = wild.model_copy(update={"seed": 2})
    index = SummaryIndex.from_documents(documents)
    if mode != "simple_summarize":  # which knows no output_cls
        engine = index.as_query_engine(llm=seeded, output_cls=Person, response_mode=mode)
        assert isinstance((await call(engine, "query", "Who?")).response, Person)
    engine = index.as_query_engine(llm=seeded.as_structured_llm(Person), response_mode=mode)
    value = (await call(engine, "query", "Who?")).response
    assert isinstance(Person.model_validate_json(value) if isinstance(value, str) else value, Person)


# The other programs


def test_the_text_program_works_on_request(llm: Any) -> None:
    text = 'Here it is: {"name": "anna", "age": 30} Bye.'
    for mode in (PydanticProgramMode.LLM, "llm"):
        other = saying(llm, text)
        other.pydantic_program_mode = mode
        assert other.structured_predict(Person, PromptTemplate("Who is {x}?"), x="y") == Person(
            name="anna", age=30
        )
    program = LLMTextCompletionProgram.from_defaults(
        output_parser=PydanticOutputParser(Person), llm=saying(llm, text), prompt_template_str="Who?"
    )
    assert program() == Person(name="anna", age=30)


async def test_the_text_program_works_asynchronously(llm: Any) -> None:
    other = saying(llm, '{"name": "anna", "age": 30}', pydantic_program_mode=PydanticProgramMode.LLM)
    for way in WAYS:
        *_, value = await predictions(other, way, Person)
        assert value == Person(name="anna", age=30)


def by_function(llm: Any, **settings: Any) -> CoSDLLM:
    mode = {"is_function_calling_model": True, "pydantic_program_mode": PydanticProgramMode.FUNCTION}
    return llm.model_copy(update={**LONG, **mode, **settings})


@pytest.mark.parametrize("way", WAYS[:2])
async def test_function_calls_predict_on_request(llm: Any, way: str) -> None:
    for seed in range(3):
        (value,) = await predictions(by_function(llm, seed=seed, system_prompt="Be kind."), way, Person)
        assert isinstance(value, Person)


def mark_of(llm: Any) -> str:
    return "<|im_start|>assistant\n" if llm.metadata.is_chat_model else "### Assistant\n"


@pytest.mark.parametrize("way", WAYS[2:])
async def test_function_calls_are_streamed_on_request(llm: Any, way: str) -> None:
    """LlamaIndex leaves it to the models here whether they call, so what they write is given."""
    call = '<tool_call>\n{"name": "Person", "arguments": {"name": "anna", "age": 30}}\n</tool_call>'
    partial = await predictions(scripted(by_function(llm, draft_length=2), call, mark_of(llm)), way, Person)
    assert partial[-1] == Person(name="anna", age=30)
    assert len({(each.name, each.age) for each in partial}) > 2, "it grows"


async def test_a_function_call_that_is_cut_is_no_prediction(llm: Any) -> None:
    for way in WAYS[:2]:
        with pytest.raises((GenerationError, ValueError), match="tool"):
            await predictions(by_function(llm, max_new_tokens=30), way, Person)


async def test_function_calling_programs_work_themselves(llm: Any, call: Callable[..., Any]) -> None:
    calling = llm.model_copy(update={**LONG, "seed": 1, "is_function_calling_model": True})
    program: Any = FunctionCallingProgram.from_defaults(Person, "Who is {whom}?", llm=calling)
    assert isinstance(program(whom="Anna"), Person)
    assert isinstance(await program.acall(whom="Anna"), Person)


def test_function_programs_need_a_model_that_calls_functions(llm: Any) -> None:
    llm.pydantic_program_mode = PydanticProgramMode.FUNCTION
    llm.is_function_calling_model = False
    with pytest.raises(ValueError, match="does not support"):
        llm.structured_predict(Person, PROMPT, whom="Anna")


def test_the_flag_does_not_change_how_structures_are_predicted(wild: Any) -> None:
    calling = wild.model_copy(update={"is_function_calling_model": True, "seed": 3})
    plain = wild.model_copy(update={"seed": 3})
    for model in (calling, plain):
        assert isinstance(model.structured_predict(Person, PROMPT, whom="Anna"), Person)
    assert calling.structured_predict(Person, PROMPT, whom="x") == plain.structured_predict(
        Person, PROMPT, whom="x"
    )


def test_the_program_can_be_used_by_itself(wild: Any) -> None:
    program = CoSDProgram(Person, wild.model_copy(update={"seed": 1}), PROMPT)
    assert program.output_cls is Person
    assert isinstance(program(whom="Anna"), Person)
    assert asyncio.run(program.acall(whom="Anna")) == program(whom="Anna")


@pytest.mark.parametrize("method", ["complete", "chat"])
def test_response_format_holds_a_direct_call(llm: Any, method: str) -> None:
    asked: Any = "Who?" if method == "complete" else [ChatMessage("Who?")]
    form = {"type": "json_schema", "json_schema": {"name": "Person", "schema": Person.model_json_schema()}}
    answer = getattr(llm, method)(asked, response_format=form, seed=1, **LONG)
    Person.model_validate_json(answer.text if method == "complete" else answer.message.content)
    with pytest.raises(InvalidOptionError, match="response_format="):
        getattr(llm, method)(asked, response_format={"type": "xml"})


def test_the_bundled_pair_fills_in_a_class(bundled: Any) -> None:
    class Citizen(BaseModel):
        """A person."""

        name: str
        age: int = Field(ge=0, le=150)
        city: str

    text = "Venra Holm is 44 years old and lives in Lasko."
    citizen = bundled.structured_predict(Citizen, PromptTemplate("{text}"), text=text)
    assert citizen == Citizen(name="Venra Holm", age=44, city="Lasko")


def test_errors_of_pydantic_do_not_come_through(llm: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A ValidationError is a ValueError, which LlamaIndex takes for an empty answer."""
    with caplog.at_level(logging.WARNING), pytest.raises(GenerationError) as caught:
        llm.structured_predict(
            Even, PROMPT, {"logits_processor": [Last(llm, "1")], "max_tokens": 60}, whom="x"
        )
    assert isinstance(caught.value.__cause__, ValidationError)


def test_thoughts_before_a_structure_are_no_part_of_it(chat: Any) -> None:
    thinking = "{% for m in messages %}{{ m.content }}\n{% endfor %}<|im_start|>assistant\n<think>\n"
    told = scripted(chat, 'hm\n</think>\n\n{"name": "anna", "age": 30}', "<think>", chat_template=thinking)
    assert told.structured_predict(Person, PROMPT, whom="Anna") == Person(name="anna", age=30)


class Twice(BaseModel):
    """The only answer that its grammar admits has equal items."""

    items: set[Annotated[int, Field(ge=1, le=1)]] = Field(min_length=2, max_length=2)


@pytest.mark.parametrize("way", WAYS)
async def test_an_answer_that_breaks_a_rule_no_grammar_enforces_raises(way: str, llm: Any) -> None:
    with pytest.raises(SchemaMismatchError, match=r"schema of Twice: uniqueItems at \$\.items"):
        await predictions(llm, way, Twice, **LONG)


def test_a_call_that_breaks_a_rule_no_grammar_enforces_is_no_call(chat: Any) -> None:
    tool = {"type": "function", "function": {"name": "twice", "parameters": Twice.model_json_schema()}}
    options = {"tools": [tool], "tool_choice": "twice", "max_new_tokens": 400}
    response = chat.chat([ChatMessage(content="Hi")], **options)
    assert "tool_calls" not in response.message.additional_kwargs
    (error,) = response.additional_kwargs["invalid_tool_calls"]
    assert "uniqueItems at $.items" in error
    with pytest.raises(GenerationError, match=r"the tool call is invalid: .*uniqueItems"):
        chat.get_tool_calls_from_response(response)
