"""A stream tells the same story as the whole: its chunks add up, end once, and never show what is hidden."""

import asyncio
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import (
    AdaptiveSchedule,
    Chunk,
    CoSDDecoder,
    FixedSchedule,
    Generation,
    LanguageModel,
    RuleVerifier,
    Step,
)
from tests.models import counted_passes, random_model, table_model, word_tokenizer

properties = settings(deadline=None, max_examples=20)
PROMPTS = ["The capital", "é😀", "x = 1\n", "a"]


@cache
def decoder(seed: int, draft_length: int, fixed: bool, alpha: float, assistants: int) -> CoSDDecoder:
    return CoSDDecoder(
        random_model(seed=seed),
        [random_model(seed=seed + 1 + at) for at in range(assistants)],
        verifier=RuleVerifier(alpha=alpha),
        schedule=FixedSchedule() if fixed else AdaptiveSchedule(assistant_cost=1.0),
        draft_length=draft_length,
        batch_size=3,
    )


decoders = st.builds(
    decoder,
    st.sampled_from([0, 10, 20]),
    st.integers(1, 8),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 0.9, 2.0]),
    st.integers(1, 2),
)
options = st.fixed_dictionaries(
    {"max_new_tokens": st.integers(1, 40), "seed": st.integers(0, 5)},
    optional={
        "temperature": st.sampled_from([0.0, 0.7, 1.5]),
        "top_k": st.integers(0, 50),
        "eos_token_id": st.lists(st.integers(0, 256), min_size=20, max_size=60, unique=True),
        "min_new_tokens": st.integers(0, 10),
    },
)
prompts = st.sampled_from(PROMPTS) | st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=5)


def whole(decoder: CoSDDecoder, prompts: Any, options: dict[str, Any]) -> list[Generation]:
    result = decoder.generate(prompts, **options)
    return [result] if isinstance(result, Generation) else result


def with_stops(data: st.DataObject, decoder: CoSDDecoder, prompts: Any, options: dict[str, Any]) -> None:
    """Add stop strings that occur in what would be written without them, for some examples."""
    text = data.draw(st.sampled_from(whole(decoder, prompts, options))).text
    if text and data.draw(st.booleans()):
        starts = data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3))
        options["stop"] = [text[start : start + data.draw(st.integers(1, 5))] for start in starts]


def without_seconds(generation: Generation) -> dict[str, Any]:
    values = generation.to_dict()
    del values["stats"]["seconds"], values["stats"]["tokens_per_second"]
    return values


@properties
@given(data=st.data(), decoder=decoders, prompts=prompts, options=options)
def test_the_chunks_of_every_prompt_add_up_to_its_generation(data, decoder, prompts, options):
    with_stops(data, decoder, prompts, options)
    expected = whole(decoder, prompts, options)
    chunks = list(decoder.stream(prompts, **options))
    assert {chunk.index for chunk in chunks} == set(range(len(expected)))
    for index, generation in enumerate(expected):
        own = [chunk for chunk in chunks if chunk.index == index]
        assert "".join(chunk.text for chunk in own) == generation.text
        assert tuple(token for chunk in own for token in chunk.tokens) == generation.tokens
        assert all(chunk.text for chunk in own[:-1]), "an empty chunk that is not the last"
        assert [chunk.generation is not None for chunk in own] == [False] * (len(own) - 1) + [True]
        assert [chunk.finish_reason for chunk in own] == [None] * (len(own) - 1) + [generation.finish_reason]
        assert without_seconds(own[-1].generation) == without_seconds(generation)


@properties
@given(data=st.data(), decoder=decoders, prompts=prompts, options=options)
def test_no_stop_string_is_visible_at_any_moment(data, decoder, prompts, options):
    with_stops(data, decoder, prompts, options)
    stops, shown = options.get("stop", []), {}
    for chunk in decoder.stream(prompts, **options):
        shown[chunk.index] = shown.get(chunk.index, "") + chunk.text
        assert not any(stop in shown[chunk.index] for stop in stops)
        if chunk.generation and chunk.generation.stop_sequence is not None:
            assert chunk.finish_reason == "stop"
            assert chunk.generation.stop_sequence in stops


@properties
@given(data=st.data(), decoder=decoders, prompts=prompts, options=options)
def test_steps_say_what_was_proposed_thought_and_kept(data, decoder, prompts, options):
    with_stops(data, decoder, prompts, options)
    for step in decoder.steps(prompts, **options):
        verdict, replacement = step.verdict, step.verdict.replacement
        assert 1 <= len(step.proposal) <= decoder.draft_length
        assert len(step.opinions) == len(step.proposal)
        assert all(opinions is None or len(opinions) == len(decoder.assistants) for opinions in step.opinions)
        assert verdict.kept + (replacement is not None) <= len(step.proposal)
        stands = verdict.kept + (replacement is not None)
        assert len(step.tokens) == stands or (step.generation and 1 <= len(step.tokens) < stands)
        for at, token in enumerate(step.tokens):
            proposed, opinions = step.proposal[at], step.opinions[at]
            assert (token.draft_id, token.p) == (proposed.id, proposed.confidence)
            assert (token.q is None) == (token.assistant_id is None) == (opinions is None)
            if at < verdict.kept:
                assert (token.id, token.source) == (proposed.id, "draft")
            else:
                assert (token.id, token.source) == (replacement.id, "assistant")
                assert token.id != proposed.id
                assert token.assistant_index == replacement.assistant_index
            if opinions is not None:
                opinion = opinions[token.assistant_index]
                assert (token.assistant_id, token.q) == (opinion.id, opinion.confidence)
            disagreed = opinions is not None and any(each.id != proposed.id for each in opinions)
            assert (token.other_text is not None) == disagreed


@properties
@given(data=st.data(), decoder=decoders, prompts=prompts, options=options)
def test_the_figures_of_a_generation_are_the_sums_of_its_steps(data, decoder, prompts, options):
    with_stops(data, decoder, prompts, options)
    by_prompt: dict[int, list[Step]] = {}
    for step in decoder.steps(prompts, **options):
        by_prompt.setdefault(step.index, []).append(step)
    for steps in by_prompt.values():
        generation = steps[-1].generation
        assert generation is not None
        assert not any(step.generation for step in steps[:-1])
        assert "".join(step.text for step in steps) == generation.text
        assert tuple(token for step in steps for token in step.tokens) == generation.tokens
        assert tuple(token.id for token in generation.tokens) == generation.token_ids
        if generation.stop_sequence is None:
            assert "".join(token.text for token in generation.tokens) == generation.text
        stats = generation.stats
        assert stats.rounds == len(steps)
        assert stats.drafted == stats.draft_passes == sum(len(step.proposal) for step in steps)
        assert stats.drafted == stats.kept + stats.replaced + stats.discarded
        assert stats.kept == sum(token.source == "draft" for token in generation.tokens)
        assert stats.replaced == sum(token.source == "assistant" for token in generation.tokens)
        assert stats.assistant_skipped == sum(token.q is None for token in generation.tokens)
        assert 0 <= stats.acceptance_rate <= 1


@settings(deadline=None, max_examples=12)
@given(data=st.data(), decoder=decoders, prompts=prompts, options=options)
def test_the_async_twins_tell_the_same(data, decoder, prompts, options):
    with_stops(data, decoder, prompts, options)

    async def run() -> tuple[Any, list[Chunk], list[Step]]:
        generated = await decoder.agenerate(prompts, **options)
        chunks = [chunk async for chunk in decoder.astream(prompts, **options)]
        steps = [step async for step in decoder.asteps(prompts, **options)]
        return generated, chunks, steps

    def story(entry: Chunk | Step) -> Any:
        return entry.index, entry.text, entry.tokens, entry.generation and without_seconds(entry.generation)

    generated, chunks, steps = asyncio.run(run())
    assert isinstance(generated, Generation) == isinstance(prompts, str)
    results = [generated] if isinstance(generated, Generation) else generated
    assert list(map(without_seconds, results)) == list(map(without_seconds, whole(decoder, prompts, options)))
    assert list(map(story, chunks)) == list(map(story, decoder.stream(prompts, **options)))
    assert list(map(story, steps)) == list(map(story, decoder.steps(prompts, **options)))


def test_a_batch_streams_its_prompts_side_by_side():
    chunks = list(decoder(0, 2, True, 0.5, 1).stream(PROMPTS[:3], max_new_tokens=24))
    runs = [index for index, _ in groupby(chunks, key=lambda chunk: chunk.index)]
    assert len(runs) > 6, "the prompts came one after another"


def test_a_list_of_one_prompt_gives_a_list():
    one = decoder(0, 2, True, 0.5, 1)
    assert isinstance(one.generate(["a"], max_new_tokens=2), list)
    assert isinstance(one.generate([1, 2, 3], max_new_tokens=2), Generation)
    assert isinstance(one.generate([[1, 2, 3]], max_new_tokens=2), list)


@pytest.mark.parametrize("schedule", ["fixed", "adaptive"])
@pytest.mark.parametrize("writer", ["draft", "assistant"])
def test_the_end_token_ends_the_text_and_is_not_shown(schedule, writer):
    tokenizer = word_tokenizer("<eos>", "a", "b", "c")
    ends = table_model(tokenizer, {"a": {"b": 1.0}, "b": {"<eos>": 0.9, "c": 0.1}}, name="ends")
    goes_on = table_model(tokenizer, {"a": {"b": 1.0}, "b": {"c": 0.4, "a": 0.3, "b": 0.3}}, name="goes on")
    pair = (ends, goes_on) if writer == "draft" else (goes_on, ends)
    chunks = list(CoSDDecoder(*pair, schedule=schedule).stream("a", max_new_tokens=9))
    result = chunks[-1].generation
    assert result.token_ids == (2, 0)
    assert result.tokens[-1].source == writer
    assert result.finish_reason == "stop"
    assert result.stop_sequence is None
    assert "".join(chunk.text for chunk in chunks).strip() == "b"


def words(p: float, name: str) -> LanguageModel:
    """A model that writes w1 w2 w3 ... with this probability each."""
    names = [f"w{at}" for at in range(20)]
    table = {f"w{at}": {f"w{at + 1}": p, "<eos>": 1 - p} for at in range(19)}
    return table_model(word_tokenizer("<eos>", *names), table, name=name)


def test_text_that_no_assistant_could_replace_is_out_after_each_pass() -> None:
    sure = CoSDDecoder(words(0.9, "draft"), words(0.8, "assistant"))
    with counted_passes(*sure.models) as passes:
        counts = [(len(step.tokens), len(passes)) for step in sure.steps("w1", max_new_tokens=6)]
    assert counts == [(1, number) for number in range(1, 7)]


@pytest.mark.parametrize("schedule", ["adaptive", "fixed"])
@pytest.mark.parametrize("p", [0.9, 0.51], ids=["sure", "unsure"])
def test_the_draft_writes_nothing_behind_a_stop_string(schedule: str, p: float) -> None:
    """Also where an assistant is asked about the block that holds it."""
    models = words(p, "draft"), words(0.9, "assistant")
    decoder = CoSDDecoder(*models, verifier=RuleVerifier(0.6), schedule=schedule)
    generation = decoder.generate("w1", max_new_tokens=12, stop=["w4"])
    assert generation.text == " w2 w3 "
    assert generation.stats.drafted == generation.stats.draft_passes == 3
