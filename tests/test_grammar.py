"""A grammar masks every model before they are fused; what is reported whole is of the grammar."""

import json
import random
import re
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from transformers import LogitsProcessor
from typing_extensions import TypedDict

from cosd_core import (
    CoSDDecoder,
    FixedSchedule,
    GenerationError,
    GenerationOptions,
    Grammar,
    InvalidOptionError,
    LanguageModel,
)
from cosd_core.sampling.grammar_matcher import GrammarMatcher
from tests.models import ascii_model, random_model, word_tokenizer
from tests.reference import assert_agrees, write
from tests.schemas import enforces
from tests.tokenizers import gpt2

PATTERNS = ["(ab|ba|c){2,7}", "[a-e]+[0-9]{2}", "(no|yes)(, (no|yes))*", "x?y?z?", "a[a-y, ]{3,12}z"]


class Person(BaseModel):
    name: str
    age: int
    tags: list[str] = []


class Place(TypedDict):
    city: str


# What is written


@pytest.mark.parametrize("verifier", ["rule", "draft", "assistant", "average", "speculative"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_texts_and_traces_equal_the_uncached_reference(verifier: str, temperature: float) -> None:
    """The reference takes its masks from the partial matches of the ``regex`` library."""
    for at, pattern in enumerate(PATTERNS):
        models = ascii_model(seed=2 * at), ascii_model(seed=2 * at + 1)
        schedule = FixedSchedule() if at % 2 else "adaptive"
        decoder = CoSDDecoder(*models, verifier=verifier, schedule=schedule, draft_length=1 + at)
        options: dict[str, Any] = {"max_new_tokens": 14, "temperature": temperature, "seed": at}
        written = write(models[0], models[1:], decoder.verifier, "hello", pattern=pattern, **options)
        generation = decoder.generate("hello", grammar=Grammar.regex(pattern), **options)
        assert_agrees(generation, written, asked=bool(at % 2), tolerance=1e-6)
        if generation.finish_reason == "stop":
            assert re.fullmatch(pattern, generation.text)


def test_the_grammar_shapes_confidence_by_renormalising() -> None:
    decoder = CoSDDecoder(random_model(seed=0), random_model(seed=1))
    forced = decoder.generate("hello", grammar=Grammar.regex("only this"))
    assert forced.text == "only this"
    assert {token.p for token in forced.tokens} == {1.0}


@settings(max_examples=40, deadline=None)
@given(
    pattern=st.sampled_from(PATTERNS), seed=st.integers(0, 99), length=st.integers(1, 9),
    schedule=st.sampled_from(["adaptive", "fixed"]), limit=st.integers(1, 20),
)  # fmt: skip
def test_block_length_schedule_and_batch_do_not_matter(
    pattern: str, seed: int, length: int, schedule: str, limit: int
) -> None:
    """A matcher is rolled back wherever a drafted token was rejected, or the texts would differ."""
    draft, assistant = random_model(seed=0), random_model(seed=1)
    options: dict[str, Any] = {
        "grammar": Grammar.regex(pattern), "temperature": 1.0, "seed": seed, "max_new_tokens": limit,
    }  # fmt: skip
    one = CoSDDecoder(draft, assistant, schedule="fixed", draft_length=1)
    other = CoSDDecoder(draft, assistant, schedule=schedule, draft_length=length)
    alone = [one.generate(prompt, **options) for prompt in ("hello", "a longer prompt", "x")]
    batch = other.generate(["hello", "a longer prompt", "x"], **options)
    assert [each.token_ids for each in batch] == [each.token_ids for each in alone]


def _random_schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    kinds = ["integer", "number", "boolean", "null", "string", "enum", "const", "pattern"]
    if depth < 3:
        kinds += ["object", "object", "array", "anyOf", "$ref"][: 5 if depth == 0 else 4]
    kind = (
        rng.choice(kinds) if depth else rng.choice(["object", "object", "object", "array", "anyOf", "$ref"])
    )
    inner = lambda: _random_schema(rng, depth + 1)  # noqa: E731
    if kind == "integer":
        low = rng.randint(-50, 50)
        return {"type": "integer", "minimum": low, "exclusiveMaximum": low + rng.randint(1, 2000)}
    if kind == "number":
        return {"type": "number", "minimum": 0, "maximum": rng.randint(1, 9)}
    if kind == "string":
        return {"type": "string", "minLength": rng.randint(0, 2), "maxLength": rng.randint(2, 6)}
    if kind == "enum":
        return {
            "enum": rng.sample(["a", "B c", "é", 1, 2.5, None, True, '"quoted"', "🦊"], rng.randint(1, 5))
        }
    if kind == "const":
        return {"const": rng.choice(["fixed", 7, [1, 2], {"k": "v"}])}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-f]{2,5}$", "^\\d{2}-\\d{2}$", "^(ja|nein)$"])}
    if kind == "array":
        least = rng.randint(0, 2)
        return {"type": "array", "items": inner(), "minItems": least, "maxItems": least + rng.randint(0, 2)}
    if kind == "anyOf":
        return {"anyOf": [inner() for _ in range(rng.randint(2, 3))]}
    if kind == "$ref":
        return {"$defs": {"it": inner()}, "type": "object", "properties": {"of": {"$ref": "#/$defs/it"}},
                "required": ["of"]}  # fmt: skip
    if kind == "object":
        names = rng.sample(
            ["name", "age", "größe", "a b", "x", "format", "type", "properties"], rng.randint(0, 3)
        )
        required = [name for name in names if rng.random() < 0.7]
        return {"type": "object", "title": "T", "properties": {name: inner() for name in names},
                "required": required}  # fmt: skip
    return {"type": kind}


def test_a_panic_of_the_compiler_is_an_error_of_ours() -> None:
    """It cuts the value of a keyword at byte 100 for its message, also where that is inside a character."""
    messages = []
    for at in range(2):
        with pytest.raises(InvalidOptionError, match="is not usable") as caught:
            Grammar.lark(f'start: %json {{"minItems": "{"a" * at}{"é" * 80}"}}')
        messages.append(str(caught.value))
    assert sum("llguidance failed" in each for each in messages) <= 1


def test_200_random_schemas_sampled_at_temperature_1_are_valid_wherever_they_are_whole() -> None:
    decoders = [CoSDDecoder(random_model(seed=2 * at), random_model(seed=2 * at + 1)) for at in range(5)]
    whole = 0
    for seed in range(200):
        rng = random.Random(seed)
        schema = _random_schema(rng)
        prompt = "".join(rng.choices('abc {}[]"0:,', k=rng.randint(1, 12)))
        generation = decoders[seed % 5].generate(
            prompt, grammar=schema, temperature=1.0, seed=seed, max_new_tokens=80
        )
        if generation.finish_reason == "length":
            continue
        whole += 1
        value = json.loads(generation.text)
        jsonschema.validate(value, schema)
        assert list(_open_objects(schema, value)) == []
    assert whole > 150, "most answers should end within the limit"


def _open_objects(schema: dict[str, Any], value: Any) -> Any:
    """Objects with properties that their schema does not name."""
    if schema.get("type") == "object" and isinstance(value, dict):
        if extra := set(value) - set(schema["properties"]):
            yield extra
        for name in value:
            yield from _open_objects(schema["properties"].get(name, {}), value[name])


def test_an_answer_cut_by_the_limit_is_reported_as_cut(
    draft: LanguageModel, assistant: LanguageModel
) -> None:
    decoder = CoSDDecoder(draft, assistant)
    generation = decoder.generate("x", grammar={"type": "string", "minLength": 50}, max_new_tokens=9)
    assert (generation.finish_reason, len(generation.token_ids)) == ("length", 9)
    assert decoder.generate("x", grammar=Grammar.regex("abc"), max_new_tokens=3).finish_reason == "stop"
    assert decoder.generate("x", grammar=Grammar.regex("abc"), max_new_tokens=2).finish_reason == "length"


def test_a_text_that_nothing_can_continue_ends_without_an_end_token(draft: LanguageModel) -> None:
    """So a grammar also ends the texts of models that have no end token."""
    endless = random_model(seed=3, eos_token_id=None)
    generation = CoSDDecoder(endless, endless).generate("x", grammar=Grammar.regex("ab{2}"), eos_token_id=[])
    assert (generation.text, generation.token_ids) == (
        "abb",
        tuple(b"BCC") if False else generation.token_ids,
    )
    assert len(generation.token_ids) == 3


def test_an_end_token_is_only_admitted_where_the_text_is_whole(draft: LanguageModel) -> None:
    decoder, b = CoSDDecoder(draft, draft), draft.tokenizer.convert_tokens_to_ids("b")
    for seed in range(20):
        options: dict[str, Any] = {"eos_token_id": b, "temperature": 2.0, "seed": seed}
        # "b" ends a text. Before the "c" the grammar would take one, and the text would not be whole.
        assert re.fullmatch("a*c", decoder.generate("x", grammar=Grammar.regex("[ab]{0,9}c"), **options).text)
    with pytest.raises(
        GenerationError, match="after 1 tokens the grammar can only go on with tokens that end"
    ):
        decoder.generate("x", grammar=Grammar.regex("abc"), eos_token_id=b)


def test_a_long_text_does_not_pile_up_masks(draft: LanguageModel) -> None:
    matcher = GrammarMatcher(Grammar.regex("[ab]*"), draft.tokenizer, 257, frozenset())
    tokens = draft.encode("ab" * 400)
    masks = [matcher.allowed(tokens[:length]) for length in range(800)]
    assert len(matcher._masks) == 256
    assert matcher.allowed(tokens[:700]).equal(masks[700])
    assert matcher.allowed(tokens[:3]).equal(masks[3]), "an old one is made again"


def test_a_mask_is_made_once_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    make = GrammarMatcher._compute_mask
    recording = lambda self: made.append(len(self._tokens)) or make(self)  # noqa: E731
    monkeypatch.setattr(GrammarMatcher, "_compute_mask", recording)
    decoder = CoSDDecoder(random_model(seed=0), random_model(seed=1), verifier="assistant", draft_length=4)
    generation = decoder.generate("x", grammar=Grammar.regex("[a-z]{30}"))
    assert generation.stats.replaced
    # One for each drafted place, and one for the place ahead that the assistants look at.
    assert len(made) <= generation.stats.drafted + generation.stats.rounds


def test_min_new_tokens_prefers_the_longer_texts_of_a_grammar(draft: LanguageModel) -> None:
    decoder = CoSDDecoder(draft, draft)
    for seed in range(10):
        options: dict[str, Any] = {"temperature": 1.0, "seed": seed, "min_new_tokens": 6}
        assert decoder.generate("x", grammar=Grammar.regex("ab"), **options).text == "ab"
        assert (
            len(decoder.generate("x", grammar=Grammar.regex("[ab]*"), max_new_tokens=9, **options).text) >= 6
        )


async def test_streams_and_asyncio_obey_it_too(draft: LanguageModel, assistant: LanguageModel) -> None:
    decoder = CoSDDecoder(draft, assistant)
    options: dict[str, Any] = {"grammar": Person, "max_new_tokens": 60, "temperature": 0.7, "seed": 2}
    whole = decoder.generate("x", **options)
    assert "".join(chunk.text for chunk in decoder.stream("x", **options)) == whole.text
    assert (await decoder.agenerate("x", **options)).token_ids == whole.token_ids
    assert whole.text.startswith('{"name": "')


# What a grammar can be made of


@pytest.mark.parametrize(
    ("schema", "begins"),
    [
        (Person, '{"name": "'),
        (Place, '{"city": "'),
        (Person.model_json_schema(), '{"name": "'),
        (list[int], "["),
        ({"type": "object", "properties": {}}, "{}"),
    ],
)
def test_schemas_may_be_classes_and_dictionaries(schema: Any, begins: str, draft: LanguageModel) -> None:
    text = (
        CoSDDecoder(draft, draft).generate("x", grammar=Grammar.json_schema(schema), max_new_tokens=20).text
    )
    assert text.startswith(begins)


def test_objects_are_closed_unless_the_schema_says_otherwise() -> None:
    a, b = ({"type": "object", "properties": {name: {"type": "integer"}}} for name in "ab")
    assert enforces(a, {"a": 1})
    assert not enforces(a, {"z": 1})
    assert enforces({**a, "additionalProperties": True}, {"z": 1})
    assert enforces({"type": "object"}, {"z": 1})
    assert enforces({**a, "patternProperties": {"^z": {}}}, {"z": 1})
    assert not enforces({"type": "array", "items": a}, [{"z": 1}])
    for together in (
        {"allOf": [a, b]},
        {**a, "anyOf": [b]},
        {**a, "oneOf": [b]},
        {**a, "$ref": "#/$defs/b", "$defs": {"b": b}},
    ):
        assert enforces(together, {"a": 1, "b": 2}), together
        assert not enforces(together, {"z": 1}), together
    assert enforces({**a, "required": ["z"]}, {"a": 1, "z": 2})
    assert not enforces({"anyOf": [a, b]}, {"a": 1, "b": 2}), "alternatives do not share properties"
    assert enforces({"anyOf": [a, {**b, "additionalProperties": True}]}, {"b": 1, "z": 2})


def test_lark_rules_may_hold_schemas(draft: LanguageModel) -> None:
    spacing = '"x-guidance": {"whitespace_flexible": false}'
    rules = f'start: "call " %json {{"type": "object", "additionalProperties": false, {spacing}}}'
    assert CoSDDecoder(draft, draft).generate("x", grammar=Grammar.lark(rules)).text == "call {}"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Grammar.regex("(a"), r"grammar '\(a' is not usable: .*unclosed group"),
        (lambda: Grammar.regex(3), "pattern=3 should be a string"),
        (lambda: Grammar.lark("start: foo"), "unknown name"),
        (lambda: Grammar.json_schema({"type": "nonsense"}), r"type of the schema .* at \$\.type: 'nonsense'"),
        (
            lambda: Grammar.json_schema({"properties": {"a": {"minLength": -1}}}),
            r"\$\.properties\.a\.minLength: -1",
        ),
        (
            lambda: Grammar.json_schema({"pattern": "[a"}),
            "pattern='\\[a' of the schema is no regular expression",
        ),
        (lambda: Grammar.json_schema(False), "contradicts itself"),
        (
            lambda: Grammar.json_schema({"type": "integer", "minimum": 3, "maximum": 1}),
            "minimum .3. is greater",
        ),
        (lambda: Grammar.json_schema(3), "neither a dictionary nor a class"),
        (lambda: Grammar.json_schema({"default": object()}), "should be a JSON Schema"),
        (lambda: Grammar.json_schema({"$ref": "http://example.org/x"}), "http://example.org/x"),
        (lambda: GenerationOptions(grammar="[a-z]+"), r"grammar='\[a-z\]\+' should say what it is"),
        (lambda: GenerationOptions(grammar=3), "grammar=3 should be"),
    ],
)
def test_what_is_no_grammar_is_refused(make: Any, words: str) -> None:
    with pytest.raises(InvalidOptionError, match=words):
        make()


def test_a_tokenizer_without_bytes_is_refused_before_any_work() -> None:
    words = random_model(seed=0, vocabulary=3)
    model = LanguageModel(words.model, word_tokenizer("<e>", "a", "b"), name="words")
    with pytest.raises(InvalidOptionError, match="cannot follow a grammar"):
        CoSDDecoder(model, model).steps([1], grammar=Grammar.regex("a"))


def test_a_tokenizer_that_puts_a_space_before_texts_can_follow_forced_beginnings() -> None:
    tokenizer = gpt2(400, space=True)
    models = [
        LanguageModel(
            ascii_model(seed=seed, vocabulary=len(tokenizer)).model, tokenizer, name=f"spaced-{seed}"
        )
        for seed in (1, 2)
    ]
    for schema in ({"type": "array", "items": {"type": "integer"}}, {"type": "object"}, {"const": "x"}):
        for verifier in ("rule", "assistant"):
            decoder = CoSDDecoder(*models, verifier=verifier)
            for found in decoder.generate(["ab", "x y"], grammar=schema, max_new_tokens=40):
                if found.finish_reason == "stop":
                    json.loads(found.text)
                assert not found.text.startswith(" ")


class _Keeps(LogitsProcessor):
    """Changes nothing; beside a processor of the user's no token is forced."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores


@pytest.mark.parametrize("verifier", ["rule", "assistant", "average"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_without_alternative_take_no_pass(verifier: str, temperature: float) -> None:
    """The same text, at a draft pass per choice; ``average`` needs the draft's logits everywhere."""
    models = random_model(seed=1), random_model(seed=2)
    decoder = CoSDDecoder(*models, verifier=verifier, deterministic=True)  # no measured time changes a block
    options: dict[str, Any] = {
        "grammar": Grammar.regex("Paris (is|was) a city[.!]"),
        "temperature": temperature,
    }
    short = decoder.generate("Q", seed=1, **options)
    whole = decoder.generate("Q", seed=1, logits_processor=[_Keeps()], **options)
    assert short.token_ids == whole.token_ids
    assert whole.stats.draft_passes >= len(whole.tokens)
    if verifier == "rule":
        assert short.stats.draft_passes <= 4  # two choices, of which one or both may be drafted again
    if verifier == "average":
        assert short.stats.draft_passes == whole.stats.draft_passes
