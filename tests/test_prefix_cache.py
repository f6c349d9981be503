"""What was computed for earlier texts is found, bounded in memory, and changes no text."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier, observe
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.evaluation.word_likelihood import TextContinuation, word_likelihoods
from cosd_core.models.prefix_cache import LEAST_IDS, PrefixCache, free_prefix_caches
from cosd_core.tuning import ReplayCache, Setting
from tests.grids import every
from tests.models import VOCABULARY, ascii_model, on_pass, random_model
from tests.test_architectures import pair
from tests.test_session import assert_agrees

STEMS = tuple([(seed * 7 + at * at) % VOCABULARY for at in range(60)] for seed in range(3))


@st.composite
def texts(draw: st.DrawFn) -> list[int]:
    """Texts that often begin alike."""
    ids = draw(st.sampled_from(STEMS))[: draw(st.integers(1, 60))]
    return ids + draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=8))


@dataclass(frozen=True)
class Ids:
    """States that are the ids themselves."""

    ids: list[int]

    @property
    def nbytes(self) -> int:
        return 100 * len(self.ids)


def agreement(ids: list[int], others: list[int]) -> int:
    agree = [one == other for one, other in zip(ids, others, strict=False)]
    return [*agree, False].index(False)


@pytest.mark.parametrize("divisible", [True, False])
@settings(deadline=None, max_examples=80)
@given(added=st.lists(texts(), max_size=12), wanted=texts())
def test_the_longest_prefix_is_found(divisible: bool, added: list[list[int]], wanted: list[int]) -> None:
    cache = PrefixCache(10**9, divisible=divisible)
    for ids in added:
        cache.add(ids, lambda start, ids=ids: Ids(ids[start:]))
    prefix = cache.find(wanted)
    longest = max((agreement(wanted, ids) for ids in added if len(ids) >= LEAST_IDS), default=0)
    # Fewer than LEAST_IDS agreeing ids of a continuation are not looked for.
    assert longest - LEAST_IDS < prefix.length <= longest
    found = [token for piece in prefix.pieces for token in piece.states.ids[: piece.used]]
    assert found == wanted[: prefix.length]
    assert all(piece.ids == piece.states.ids for piece in prefix.pieces)


@pytest.mark.parametrize("divisible", [True, False])
@settings(deadline=None, max_examples=60)
@given(added=st.lists(texts(), max_size=25), limit=st.integers(0, 20_000))
def test_memory_is_bounded_and_the_least_recently_used_goes(
    divisible: bool, added: list[list[int]], limit: int
) -> None:
    cache = PrefixCache(limit, divisible=divisible)
    for ids in added:
        cache.add(ids, lambda start, ids=ids: Ids(ids[start:]))
        assert cache.nbytes <= limit
        whole = 140 * len(ids)  # states and ids
        if len(ids) >= LEAST_IDS and whole <= limit:
            assert cache.find(ids).length == len(ids)
    held = sum(each.nbytes for each in cache._entries)
    assert held == cache.nbytes
    assert cache.clear() == bool(held)
    assert cache.nbytes == 0


def with_prefixes(model: LanguageModel, megabytes: float = 8) -> LanguageModel:
    return LanguageModel(model.model, model.tokenizer, name=model.name, prefix_cache_mb=megabytes)


@pytest.mark.parametrize(
    "name",
    every(
        3,
        [
            "llama",
            "mistral",
            "gpt2",
            "falcon alibi",
            "gemma3 text",
            "mamba",
            "falcon_h1",
            "lfm2",
            "rwkv",
            "openai-gpt",
        ],
    ),
)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
@torch.inference_mode()
def test_sessions_that_begin_from_earlier_texts_return_the_logits_of_uncached_passes(
    name: str, data: st.DataObject
) -> None:
    model = with_prefixes(pair(name)[0])
    for _ in range(data.draw(st.integers(1, 3), label="sessions")):
        session = model.open_session(vocabulary=VOCABULARY)
        rows = data.draw(st.lists(texts(), min_size=1, max_size=3))
        for _ in range(2):
            assert_agrees(session.logits(rows, last=data.draw(st.integers(1, 3))), model, rows)
            kept = data.draw(st.lists(st.sampled_from(range(len(rows))), unique=True), label="kept")
            session.select(kept)
            rows = [rows[at] + [data.draw(st.integers(0, VOCABULARY - 1))] for at in kept]
            rows += data.draw(st.lists(texts(), min_size=not rows, max_size=2), label="add")
        session.select([])


@pytest.mark.parametrize("name", ["llama", "lfm2", "falcon_h1", "mamba", "rwkv"])
@torch.inference_mode()
def test_what_a_session_shares_stays_as_it_was_while_the_session_goes_on(name: str) -> None:
    model = with_prefixes(pair(name)[0])
    prompt, block, others = STEMS[0][:30], [7, 8, 9, 10], [11, 12, 13, 14]
    session = model.open_session(vocabulary=VOCABULARY)
    for at in range(1, len(block) + 1):
        session.logits([prompt + block[:at]], last=1)
    session.share()
    for at in range(1, len(others) + 1):
        session.logits([prompt + others[:at]], last=1)
    begun = model.open_session(vocabulary=VOCABULARY)
    rows = [[*prompt, *block, 20], [*prompt, *block[:3], 21]]
    assert_agrees(begun.logits(rows, last=1), model, rows)


@contextmanager
def fed_to(model: LanguageModel) -> Iterator[list[int]]:
    """How many token ids the model processes meanwhile, per pass."""
    fed: list[int] = []
    handle = model.model.register_forward_pre_hook(
        lambda _module, _arguments, named: fed.append(named["input_ids"].numel()), with_kwargs=True
    )
    try:
        yield fed
    finally:
        handle.remove()


def fed_tokens(model: LanguageModel, run: Any) -> int:
    """How many token ids the model processes while this runs."""
    with fed_to(model) as fed:
        run()
    return sum(fed)


def decoder(megabytes: float, **settings: Any) -> CoSDDecoder:
    models = [with_prefixes(ascii_model(seed=seed), megabytes) for seed in (1, 2)]
    return CoSDDecoder(models[0], models[1], **settings)


PROMPT = "The second turn of a chat begins like the first one. "


def test_the_next_turn_reads_what_is_new_and_writes_the_same() -> None:
    cached, plain = decoder(8, schedule="fixed"), decoder(0, schedule="fixed")
    prompt = PROMPT
    for _ in range(3):
        first = cached.generate(prompt, max_new_tokens=12)
        assert first.tokens == plain.generate(prompt, max_new_tokens=12).tokens
        prompt += first.text + " And then? "
    text = prompt + "more"
    for at in (0, 1):
        fed = [
            fed_tokens(each.models[at], lambda each=each: each.generate(text, max_new_tokens=1))
            for each in (cached, plain)
        ]
        assert fed[0] < 40 < len(prompt) <= fed[1]


def test_recurrent_states_are_found_again() -> None:
    """They can be rolled back to the end of a pass, as that over the last prompt."""
    cached, plain = ([with_prefixes(each, size) for each in pair("mamba")] for size in (8, 0))
    prompt, texts, fed = list(range(1, 60)), [], []
    for models in (cached, plain):
        decoder = CoSDDecoder(models[0], models[1:])
        turn = [*prompt, *decoder.generate(prompt, max_new_tokens=4).token_ids, 7, 8, 9]
        fed.append(
            fed_tokens(
                models[0],
                lambda decoder=decoder, turn=turn: texts.append(decoder.generate(turn, max_new_tokens=4)),
            )
        )
    assert texts[0].token_ids == texts[1].token_ids
    assert fed[0] < len(prompt) / 2 < fed[1]


def test_calls_of_a_batch_use_it() -> None:
    cached, plain = decoder(8), decoder(0)
    prompts = [f"{PROMPT}Question {at}?" for at in range(6)]
    expected = [each.token_ids for each in plain.generate(prompts, max_new_tokens=8)]
    for _ in range(2):
        assert [each.token_ids for each in cached.generate(prompts, max_new_tokens=8)] == expected
    assert cached.draft.prefixes is not None
    assert fed_tokens(cached.draft, lambda: cached.generate(prompts, max_new_tokens=1)) <= len(prompts) * 2


@pytest.mark.parametrize("kinds", [("llama", "llama"), ("llama", "lfm2")])
@pytest.mark.parametrize("chunk", [8, 100])
def test_what_the_prompts_of_a_list_begin_with_is_read_once(kinds: tuple[str, str], chunk: int) -> None:
    """By every model, in chunks, for each group of prompts that begin alike."""
    models = [pair(kind)[at] for at, kind in enumerate(kinds)]
    cached, plain = (
        CoSDDecoder(draft, assistant, schedule="fixed", prefill_chunk_size=chunk)
        for draft, assistant in ([with_prefixes(each, size) for each in models] for size in (8, 0))
    )
    begins = [[5, *range(1, 60)], [6, *range(60, 1, -1)]]
    prompts = [[*begin, 70 + at, 80 + at] for at in range(5) for begin in begins]
    expected = [each.token_ids for each in plain.generate(prompts, max_new_tokens=4)]
    with fed_to(cached.draft) as of_draft, fed_to(cached.assistants[0]) as of_assistant:
        found = cached.generate(prompts, max_new_tokens=4)
    assert [each.token_ids for each in found] == expected
    for fed in (of_draft, of_assistant):
        assert sum(fed) < 2 * 60 + len(prompts) * 25, "two beginnings, and what is new of each prompt"


@pytest.mark.parametrize("changes", ["added", "gone"])
@torch.inference_mode()
def test_beginnings_that_others_add_or_drop_meanwhile_are_read_on(changes: str) -> None:
    model = with_prefixes(pair("llama")[0])
    begins = [STEMS[0][:40], STEMS[1][:40]]
    rows = [[*begin, last] for begin in begins for last in (70, 80)]
    other = model.open_session(vocabulary=VOCABULARY)
    assert model.prefixes is not None
    if changes == "gone":
        other.logits(begins[:1], last=1)
        other.share()
    session = model.open_session(vocabulary=VOCABULARY)
    assert not session.read(rows, 8)
    if changes == "gone":
        model.prefixes.clear()
    else:
        other.logits(begins[:1], last=1)
        other.share()
    while not session.read(rows, 8):
        pass
    assert_agrees(session.logits(rows, last=1), model, rows)


async def test_what_calls_that_come_together_begin_with_is_read_once() -> None:
    cached, plain = (decoder(size, prefill_chunk_size=32, schedule="fixed") for size in (8, 0))
    prompts = [f"{PROMPT}Question {at}?" for at in range(6)]
    expected = [each.token_ids for each in plain.generate(prompts, max_new_tokens=8)]
    with fed_to(cached.draft) as of_draft, fed_to(cached.assistants[0]) as of_assistant:
        found = await asyncio.gather(*(cached.agenerate(each, max_new_tokens=8) for each in prompts))
    assert [each.token_ids for each in found] == expected
    for fed in (of_draft, of_assistant):
        assert sum(fed) < len(PROMPT) + len(prompts) * 40, "one beginning, and what is new of each prompt"


SHOTS = "Q: one plus one? A: two. Q: two plus one? A: three. Q: "
ASKED = [f"{SHOTS}{at} plus {at}? A:" for at in range(8)]


def learned(decoder: CoSDDecoder) -> Any:
    seen = observe(decoder.models, [(prompt, f" {at}") for at, prompt in enumerate(ASKED)])
    return seen.gaps.ravel().tolist()


def scored(decoder: CoSDDecoder) -> Any:
    return [each.log for each in log_likelihoods(decoder, [ids_of(decoder, prompt) for prompt in ASKED])]


def scored_by_words(decoder: CoSDDecoder) -> Any:
    texts = [TextContinuation(ids_of(decoder, prompt).prompts, " ten") for prompt in ASKED]
    return [each.log for each in word_likelihoods(decoder, texts)]


def replayed(decoder: CoSDDecoder) -> Any:
    cache = ReplayCache(decoder.models, ASKED, {"max_new_tokens": 4})
    found = cache.generate([(Setting(RuleVerifier()), at) for at in range(len(ASKED))])
    return [float(ord(each)) for ending in found for each in ending.text]


def ids_of(decoder: CoSDDecoder, prompt: str) -> Continuation:
    return Continuation((tuple(decoder.draft.tokenizer.encode(prompt)),) * 2, (7, 8))


@pytest.mark.parametrize("reads", [learned, scored, scored_by_words, replayed])
def test_examples_before_many_questions_are_read_once(reads: Any) -> None:
    """Wherever texts are read: to learn from them, to score them, and to tune settings."""
    asks_always = RuleVerifier(1, 0)
    cached, plain = decoder(8, verifier=asks_always), decoder(0, verifier=asks_always)
    found, fed = [], []
    for each in (cached, plain):
        with fed_to(each.draft) as of_draft, fed_to(each.assistants[0]) as of_assistant:
            found.append(reads(each))
        fed.append((sum(of_draft), sum(of_assistant)))
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    for once, every_time in zip(*fed, strict=True):
        assert every_time - once >= (len(ASKED) - 1) * len(SHOTS)


def test_a_deterministic_decoder_does_not_use_it() -> None:
    cached = decoder(8, deterministic=True)
    for _ in range(2):
        assert fed_tokens(cached.draft, lambda: cached.generate(PROMPT, max_new_tokens=1)) >= len(PROMPT)


def test_models_of_the_user_keep_nothing_unless_told() -> None:
    assert random_model(seed=1).prefixes is None
    assert with_prefixes(random_model(seed=1)).prefixes is not None


def test_memory_that_is_short_is_taken_from_the_prefix_caches_first() -> None:
    cached = decoder(8)
    expected = cached.generate(PROMPT, max_new_tokens=8).token_ids
    prefixes = cached.draft.prefixes
    assert prefixes is not None
    assert prefixes.nbytes
    failures = []

    def fail_while_anything_is_kept(_number: int, _output: Any) -> None:
        if prefixes.nbytes:
            failures.append(True)
            raise RuntimeError("CUDA out of memory")

    with on_pass(cached.draft, fail_while_anything_is_kept):
        assert cached.generate(PROMPT, max_new_tokens=8).token_ids == expected
    assert failures == [True]
    assert free_prefix_caches()
    assert not prefixes.nbytes


def test_an_unloaded_model_keeps_nothing() -> None:
    cached = decoder(8)
    cached.generate(PROMPT, max_new_tokens=8)
    prefixes = cached.draft.prefixes
    assert prefixes is not None
    cached.draft.unload()
    assert cached.draft.__dict__.get("prefixes") is None
