"""Claim: a seed makes sampling a function of the prefix, and ``speculative`` samples as its assistant does.

One uniform number belongs to each (output position, purpose), so the text does not depend on the block
length, the schedule, the batch or the event loop, and equals the uncached reference's.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from cosd_core import (
    AdaptiveSchedule,
    AverageVerifier,
    CoSDDecoder,
    GenerationOptions,
    LanguageModel,
    RuleVerifier,
    TreeVerifier,
    Verifier,
)
from cosd_core.generation.requests import Request
from cosd_core.verifiers import AssistantVerifier, DraftVerifier, Leaf, SpeculativeVerifier, Split
from tests.grids import covering, every
from tests.models import ascii_model, table_model, word_tokenizer
from tests.reference import Tree, assert_agrees, write

DRAFT, ASSISTANT, SECOND = (ascii_model(seed=seed, sharpness=3.0) for seed in range(3))
PROMPTS = ["Hello", "x", "The quick brown fox jumps over the lazy dog", "1 + 1 ="]
TREE = TreeVerifier((Split("p", 0.3, 1, 4), Split("q", 0.1, 2, 3), Leaf(False), Leaf(True), Leaf(False)))
VERIFIERS: dict[str, tuple[Verifier, Tree | None]] = {
    "rule": (RuleVerifier(), None),
    "rule 0.2": (RuleVerifier(alpha=0.2, beta=1.0), None),
    "tree": (TREE, lambda p, q: p <= 0.3 and q > 0.1),
    "draft": (DraftVerifier(), None),
    "assistant": (AssistantVerifier(), None),
    "speculative": (SpeculativeVerifier(), None),
    "average": (AverageVerifier(weight=0.4), None),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"temperature": 1.0},
    "cold": {"temperature": 0.4, "repetition_penalty": 1.3},
    "hot": {"temperature": 1.7, "top_k": 12},
    "nucleus": {"temperature": 1.0, "top_p": 0.7, "eos_token_id": list(range(60, 70)), "min_new_tokens": 4},
    "all": {"temperature": 1.2, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.8},
}
SETTINGS = [
    {"schedule": "adaptive", "draft_length": 8},
    {"schedule": "fixed", "draft_length": 1},
    {"schedule": "fixed", "draft_length": 5, "batch_size": 2},
    {"schedule": AdaptiveSchedule(assistant_cost=5), "draft_length": 64, "batch_size": 3},
    {"schedule": AdaptiveSchedule(assistant_cost=0.2), "draft_length": 3, "batch_size": 1},
]


def decoder(verifier: Any, *assistants: LanguageModel, **settings: Any) -> CoSDDecoder:
    return CoSDDecoder(DRAFT, assistants or (ASSISTANT,), verifier=verifier, **settings)


class TestOneSeedOneText:
    @pytest.mark.parametrize(("name", "kind"), covering(product(VERIFIERS, OPTIONS)))
    def test_of_the_reference_for_any_block_schedule_and_batch(self, name: str, kind: str) -> None:
        verifier, tree = VERIFIERS[name]
        options = {"max_new_tokens": 16, "seed": 7} | OPTIONS[kind]
        written = {each: write(DRAFT, [ASSISTANT], verifier, each, tree=tree, **options) for each in PROMPTS}
        for at, settings in enumerate(SETTINGS):
            prompts = PROMPTS[at % 4 :] + PROMPTS[: at % 4]
            generations = decoder(verifier, **settings).generate(prompts, **options)
            for prompt, generation in zip(prompts, generations, strict=True):
                assert_agrees(generation, written[prompt], asked=settings["schedule"] == "fixed")

    @pytest.mark.parametrize("name", every(3, ["rule", "tree", "assistant", "average"]))
    def test_with_two_assistants(self, name: str) -> None:
        verifier, tree = VERIFIERS[name]
        options = {"max_new_tokens": 16, "seed": 8, "temperature": 1.0}
        models = [ASSISTANT, SECOND]
        written = [write(DRAFT, models, verifier, each, tree=tree, **options) for each in PROMPTS]
        assert {place.writer for each in written for place in each.places} >= {0, 1}
        for settings in SETTINGS:
            generations = decoder(verifier, *models, **settings).generate(PROMPTS, **options)
            for generation, each in zip(generations, written, strict=True):
                assert_agrees(generation, each, asked=settings["schedule"] == "fixed")

    @pytest.mark.parametrize("name", VERIFIERS)
    async def test_sync_and_async(self, name: str) -> None:
        verifier, _ = VERIFIERS[name]
        options = {"max_new_tokens": 12, "seed": 9, "temperature": 1.0}
        writer = decoder(verifier)
        one_by_one = [writer.generate(prompt, **options) for prompt in PROMPTS]
        together = await asyncio.gather(*(writer.agenerate(prompt, **options) for prompt in PROMPTS))
        batch = await writer.agenerate(PROMPTS, **options)
        ids = [generation.token_ids for generation in one_by_one]
        assert [generation.token_ids for generation in together] == ids
        assert [generation.token_ids for generation in batch] == ids

    def test_and_another_seed_another_text(self) -> None:
        options = {"max_new_tokens": 16, "temperature": 1.0}
        texts = {decoder("rule").generate("Hello", seed=seed, **options).token_ids for seed in range(20)}
        assert len(texts) == 20

    def test_without_a_seed_every_call_and_every_row_differs(self) -> None:
        options = {"max_new_tokens": 24, "temperature": 1.5}
        writer = decoder("rule")
        texts = [each.token_ids for _ in range(2) for each in writer.generate(["Hello"] * 3, **options)]
        assert len(set(texts)) == 6

    @pytest.mark.parametrize("name", VERIFIERS)
    def test_leaves_the_global_random_states_alone(self, name: str) -> None:
        before = torch.get_rng_state().clone(), random.getstate()
        for seed in (None, 3):
            decoder(VERIFIERS[name][0]).generate("Hello", max_new_tokens=8, temperature=1.0, seed=seed)
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()

    def test_whatever_the_global_random_states_are(self) -> None:
        texts = set()
        for state in (1, 2):
            with torch.random.fork_rng():
                torch.manual_seed(state)
                options = {"max_new_tokens": 16, "temperature": 1.0, "seed": 5}
                texts.add(decoder("speculative").generate("Hello", **options).token_ids)
        assert len(texts) == 1


class TestTheConfidenceAVerifierSees:
    @pytest.mark.parametrize(
        "options", [*OPTIONS.values(), {"temperature": 5.0, "top_k": 2}, {"temperature": 0.05}]
    )
    def test_is_the_softmax_at_temperature_1_whatever_shapes_the_pick(self, options: dict[str, Any]) -> None:
        options = {"max_new_tokens": 12, "seed": 4} | {
            name: value for name, value in options.items() if name not in ("eos_token_id", "min_new_tokens")
        }
        generation = decoder("rule", schedule="fixed").generate("Hello", **options)
        ids = torch.tensor([[*DRAFT.encode("Hello"), *generation.token_ids]])
        with torch.inference_mode():
            shares = [model.model(ids).logits[0].softmax(-1) for model in (DRAFT, ASSISTANT)]
        for place, token in enumerate(generation.tokens, start=len(DRAFT.encode("Hello")) - 1):
            assert token.p == pytest.approx(float(shares[0][place, token.draft_id]))
            assert token.q == pytest.approx(float(shares[1][place, token.assistant_id]))


# Sampling over a vocabulary that can be counted

WORDS = ("<eos>", "a", "b", "c", "d", "e", "f")
Table = Mapping[str, Mapping[str, float]]
P: Table = {
    "a": {"a": 0.30, "b": 0.25, "c": 0.20, "d": 0.10, "e": 0.10, "f": 0.05},
    "b": {"a": 0.60, "b": 0.10, "c": 0.10, "d": 0.10, "e": 0.05, "f": 0.05},
    "c": {"<eos>": 0.20, "a": 0.20, "b": 0.20, "c": 0.20, "d": 0.20},
    "d": {"d": 0.50, "e": 0.50},
    "e": {"a": 0.25, "b": 0.25, "c": 0.25, "f": 0.25},
    "f": {"e": 0.70, "f": 0.30},
}
Q: Table = {
    "a": {"a": 0.10, "b": 0.15, "c": 0.25, "d": 0.20, "e": 0.10, "f": 0.20},
    "b": {"a": 0.10, "b": 0.30, "c": 0.10, "d": 0.10, "e": 0.20, "f": 0.20},
    "c": {"<eos>": 0.10, "a": 0.40, "b": 0.10, "c": 0.30, "d": 0.10},
    "d": {"d": 0.20, "a": 0.80},
    "e": {"a": 0.40, "b": 0.30, "c": 0.20, "d": 0.10},
    "f": {"e": 0.40, "f": 0.40, "a": 0.20},
}
SEEDS = range(6_000)


def pairs_of_words(verifier: str, **options: Any) -> Counter[tuple[str, ...]]:
    """How often each pair of words follows ``a``, over all seeds: a batch of rows with a seed each."""
    tokenizer = word_tokenizer(*WORDS)
    draft, assistant = table_model(tokenizer, P, name="p"), table_model(tokenizer, Q, name="q")
    writer = CoSDDecoder(
        draft, assistant, verifier=verifier, schedule="fixed", draft_length=2, batch_size=2_000
    )
    given = [GenerationOptions(max_new_tokens=2, seed=seed, **options) for seed in SEEDS]
    requests = [Request("a", (tuple(draft.encode("a")),) * 2, each) for each in given]
    make = writer._rows.for_call(given[0])
    rows = [make(number, request) for number, request in enumerate(requests)]
    batches = [writer._open_batch(rows[start : start + 2_000]) for start in range(0, len(rows), 2_000)]
    steps = [step for batch in batches for step in batch.rounds()]
    finished = {step.index: step.generation.token_ids for step in steps if step.generation}
    for seed in SEEDS[:5]:  # the public way gives the same
        assert writer.generate("a", max_new_tokens=2, seed=seed, **options).token_ids == finished[seed]
    return Counter(tuple(WORDS[token] for token in ids) for ids in finished.values())


def joint(table: Table, **shape: float) -> dict[tuple[str, ...], float]:
    """The probability of each pair of words after ``a``, worked out from the table."""
    pairs: dict[tuple[str, ...], float] = {}
    for first, before in shaped(table["a"], **shape).items():
        for second, after in shaped(table[first], **shape).items():
            pairs[first, second] = before * after
    return pairs


def shaped(row: Mapping[str, float], *, temperature: float = 1.0, top_k: int = 0) -> dict[str, float]:
    """The row at a temperature, cut to the ``top_k`` best; what ties with the last of them stays."""
    least = sorted(row.values())[-min(top_k, len(row))] if top_k else 0.0
    weights = {word: share ** (1 / temperature) for word, share in row.items() if share >= least}
    return {word: weight / sum(weights.values()) for word, weight in weights.items()}


def p_value(seen: Counter[tuple[str, ...]], expected: Mapping[tuple[str, ...], float]) -> float:
    """The chi-square test's, small if what was seen is not drawn from what was expected."""
    if set(seen) - set(expected):
        return 0.0
    assert min(expected.values()) * len(SEEDS) > 5, "too few for a chi-square test"
    counts = [seen[pair] for pair in expected]
    return float(chisquare(counts, [share * len(SEEDS) for share in expected.values()]).pvalue)


@pytest.mark.parametrize(
    "options",
    every(
        4,
        [
            {"temperature": 1.0},
            {"temperature": 0.7},
            {"temperature": 1.5},
            {"temperature": 1.0, "top_k": 3},
            {"temperature": 1.4, "top_k": 2},
        ],
    ),
    ids=str,
)
def test_speculative_samples_are_distributed_as_the_assistants(options: dict[str, Any]) -> None:
    seen = pairs_of_words("speculative", **options)
    assert p_value(seen, joint(Q, **options)) > 0.01
    assert p_value(seen, joint(P, **options)) < 1e-6, "the test should tell the two models apart"


@pytest.mark.parametrize(("verifier", "own", "other"), [("draft", P, Q), ("assistant", Q, P)])
def test_single_models_sample_from_their_own_distribution(verifier: str, own: Table, other: Table) -> None:
    seen = pairs_of_words(verifier, temperature=1.0)
    assert p_value(seen, joint(own)) > 0.01
    assert p_value(seen, joint(other)) < 1e-6


def test_average_samples_from_the_mixture() -> None:
    seen = pairs_of_words("average", temperature=1.0)
    mixture = {
        last: {word: (P[last].get(word, 0) + Q[last].get(word, 0)) / 2 for word in {**P[last], **Q[last]}}
        for last in P
    }
    assert p_value(seen, joint(mixture)) > 0.01
    assert max(p_value(seen, joint(P)), p_value(seen, joint(Q))) < 1e-6


# Extremes


def singles() -> list[LanguageModel]:
    """Models that compute in float32, where the highest number is near."""
    return [ascii_model(seed=seed, dtype=torch.float32) for seed in (0, 1)]


@pytest.mark.parametrize("temperature", [1e-5, 1e-37, 1e-38, 1e-300, 5e-324])
@pytest.mark.parametrize("more", [{}, {"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_the_coldest_sampling_is_greedy(temperature: float, more: dict[str, Any]) -> None:
    decoder = CoSDDecoder(*singles())
    greedy = decoder.generate("The capital", max_new_tokens=12)
    cold = decoder.generate("The capital", max_new_tokens=12, temperature=temperature, seed=3, **more)
    assert cold.token_ids == greedy.token_ids


@pytest.mark.parametrize("verifier", ["rule", "speculative", "average", "assistant"])
@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1.5])
def test_a_processor_may_force_a_token_by_the_highest_number(verifier: str, temperature: float) -> None:
    def force(_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, 65] = torch.finfo(torch.float32).max
        return scores

    decoder = CoSDDecoder(*singles(), verifier=verifier)
    wanted = {"max_new_tokens": 5, "temperature": temperature, "seed": 3}
    assert decoder.generate("x", logits_processor=[force], **wanted).token_ids == (65,) * 5
