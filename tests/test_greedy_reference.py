"""Claim: greedy output is the plain, uncached method's, whatever the block length, schedule and batch.

A case is one prompt decoded in one setting. A scenario is a pair of random models, a verifier and options;
the reference writes it once per prompt, the decoder in five settings and in batches of every size, and in the
last of them also with prompts that join a running batch. In every fifth scenario are all verifiers
and all kinds of options.
"""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import pytest

from cosd_core import (
    AdaptiveSchedule,
    AverageVerifier,
    CoSDDecoder,
    FixedSchedule,
    LanguageModel,
    RuleVerifier,
    Schedule,
    TreeVerifier,
    Verifier,
)
from cosd_core.verifiers import AssistantVerifier, DraftVerifier, Leaf, Split
from tests.grids import every, exhaustive
from tests.joining import decode_joining
from tests.models import ascii_model, random_model
from tests.reference import Tree, Written, assert_agrees, write

_STUMP = (Split("p", 0.6, 1, 4), Split("q", 0.3, 2, 3), Leaf(False), Leaf(True), Leaf(False))
_DEEP = (
    Split("q", 0.5, 1, 4), Split("p", 0.2, 2, 3), Leaf(True), Leaf(False),
    Split("p", 0.8, 5, 8), Split("p", 0.4, 6, 7), Leaf(False), Leaf(True), Leaf(False),
)  # fmt: skip

VERIFIERS: list[tuple[Verifier, Tree | None]] = [
    (RuleVerifier(), None),
    (RuleVerifier(alpha=1.01, beta=0.0), None),
    (TreeVerifier(_STUMP), lambda p, q: p <= 0.6 and q > 0.3),
    (RuleVerifier(alpha=0.9, beta=1.01), None),
    (AssistantVerifier(), None),
    (AverageVerifier(), None),
    (RuleVerifier(alpha=0.0, beta=0.0), None),
    (TreeVerifier(_DEEP), lambda p, q: p <= 0.2 if q <= 0.5 else 0.4 < p <= 0.8),
    (RuleVerifier(alpha=0.7, beta=0.0), None),
    (DraftVerifier(), None),
    (AverageVerifier(weight=0.3), None),
]
SCHEDULES: list[Schedule] = [
    AdaptiveSchedule(),
    FixedSchedule(),
    AdaptiveSchedule(assistant_cost=0.2),
    AdaptiveSchedule(assistant_cost=5),
]
BLOCKS = [1, 2, 3, 5, 8, 16, 64]
KINDS = ["plain", "eos", "several eos", "early eos", "stop", "long stop", "min new", "penalty", "truncated"]
PROMPTS = [
    "x",
    "Hello, world",
    "The quick brown fox jumps over the lazy dog, " * 2,
    "naïve 你好 🦊.",
    "".join(chr(33 + 7 * at % 90) for at in range(150)),
]


@dataclass(frozen=True)
class Scenario:
    number: int
    sharpness: float
    assistants: int
    kind: str

    def __str__(self) -> str:
        verifier = verifier_of(self)[0].name
        return f"{self.number}-{verifier}-{self.assistants}-sharp{self.sharpness}-{self.kind}".replace(
            " ", "-"
        )


SCENARIOS = [
    Scenario(number, sharpness, assistants, kind)
    for number, (kind, sharpness, assistants) in enumerate(
        (kind, sharpness, assistants) for kind in KINDS for sharpness in (2, 6, 12) for assistants in (1, 2)
    )
]
SETTINGS = 5


@cache
def models(sharpness: float, *, context: int, whole_characters: bool) -> tuple[LanguageModel, ...]:
    make = ascii_model if whole_characters else random_model
    return tuple(make(seed=seed, sharpness=sharpness, max_position_embeddings=context) for seed in range(3))


def pair(scenario: Scenario) -> tuple[LanguageModel, ...]:
    """One draft model and one or two assistants."""
    context = 64 if scenario.kind == "truncated" else 256
    whole = "stop" in scenario.kind or scenario.assistants == 1
    return models(scenario.sharpness, context=context, whole_characters=whole)[: 1 + scenario.assistants]


def verifier_of(scenario: Scenario) -> tuple[Verifier, Tree | None]:
    return VERIFIERS[scenario.number % len(VERIFIERS)]


@cache
def written(scenario: Scenario, prompt: str, *, plainly: bool = False) -> Written:
    draft, *assistants = pair(scenario)
    verifier, tree = verifier_of(scenario)
    options = {"max_new_tokens": 20} if plainly else options_of(scenario)
    options |= {"truncation": True} if scenario.kind == "truncated" else {}
    return write(draft, assistants, verifier, prompt, tree=tree, **options)


@cache
def options_of(scenario: Scenario) -> dict[str, Any]:
    """Options that do something: end tokens and stop strings are taken from what would be written."""
    random = Random(scenario.number)
    options: dict[str, Any] = {"max_new_tokens": random.choice([18, 19, 20])}
    if scenario.kind in ("plain", "truncated"):
        return options
    if scenario.kind == "penalty":
        return options | {"repetition_penalty": random.choice([0.8, 1.3, 2.0])}
    plain = [written(scenario, prompt, plainly=True) for prompt in PROMPTS]
    if "stop" in scenario.kind:
        lengths = range(1, 5) if scenario.kind == "stop" else range(5, 13)
        found = [
            _part(random, each.whole, lengths) for each in (plain if "long" in scenario.kind else plain[1:3])
        ]
        return options | {"stop": (*filter(None, found), "\x00")}
    ends = [random.choice(each.ids[3:]) for each in plain[:3]]
    if scenario.kind == "eos":
        return options | {"eos_token_id": ends[1]}
    if scenario.kind == "early eos":
        return options | {"eos_token_id": [plain[1].ids[0], plain[2].ids[1], plain[0].places[2].x]}
    if scenario.kind == "several eos":
        return options | {"eos_token_id": [*ends, 256]}
    return options | {"eos_token_id": ends, "min_new_tokens": random.choice([3, 9, 18])}


def _part(random: Random, text: str, lengths: range) -> str | None:
    """A part of a text without unfinished characters, if there is one of such a length."""
    parts = [text[at : at + length] for length in lengths for at in range(2, len(text) - length + 1)]
    whole = [each for each in parts if "\N{REPLACEMENT CHARACTER}" not in each]
    return random.choice(whole) if whole else None


def test_there_are_more_than_a_thousand_cases() -> None:
    assert len(SCENARIOS) * SETTINGS * len(PROMPTS) >= 1_000
    for some in (SCENARIOS, SCENARIOS[::5]):
        assert {verifier_of(each)[0] for each in some} == {each for each, _ in VERIFIERS}
        assert {each.kind for each in some} == set(KINDS)


@pytest.mark.parametrize("scenario", every(5, SCENARIOS), ids=str)
def test_greedy_output_and_trace_are_the_references(scenario: Scenario) -> None:
    draft, *assistants = pair(scenario)
    verifier, _ = verifier_of(scenario)
    options = options_of(scenario) | {"truncation": scenario.kind == "truncated"}
    random = Random(scenario.number)
    for setting in range(SETTINGS):
        schedule = SCHEDULES[(scenario.number + setting) % len(SCHEDULES)]
        prompts = random.sample(PROMPTS, len(PROMPTS))
        decoder = CoSDDecoder(
            draft,
            assistants,
            verifier=verifier,
            schedule=schedule,
            draft_length=BLOCKS[(scenario.number * SETTINGS + setting) % len(BLOCKS)],
            batch_size=random.randint(1, len(PROMPTS)),
        )
        generations = decoder.generate(prompts, **options)
        for prompt, generation in zip(prompts, generations, strict=True):
            assert generation.prompt == prompt
            assert generation.verifier == verifier
            assert_agrees(generation, written(scenario, prompt), asked=not schedule.lazy)
    joining = decode_joining(decoder, [(prompt, options) for prompt in prompts], seed=scenario.number)
    for prompt, generation in zip(prompts, joining, strict=True):
        assert_agrees(generation, written(scenario, prompt), asked=not schedule.lazy)


TEXTS = [(scenario, prompt) for scenario in SCENARIOS for prompt in PROMPTS]


def texts(*kinds: str) -> list[Written]:
    return [written(scenario, prompt) for scenario, prompt in TEXTS if scenario.kind in kinds]


@exhaustive
def test_among_the_cases_are_never_sometimes_and_often_replaced() -> None:
    rule = [written(*each) for each in TEXTS if verifier_of(each[0])[0].name == "rule"]
    shares = [each.replaced / len(each.ids) for each in rule]
    assert sum(share == 0 for share in shares) >= 20
    assert sum(0 < share <= 0.5 for share in shares) >= 20
    assert sum(share > 0.5 for share in shares) >= 20
    two = [written(*each) for each in TEXTS if each[0].assistants == 2]
    assert {place.writer for each in two for place in each.places} == {None, 0, 1}


@exhaustive
@pytest.mark.parametrize("kind", ["eos", "several eos", "early eos", "min new", "stop", "long stop"])
def test_among_the_cases_are_ended_and_unended_texts(kind: str) -> None:
    assert sum(each.finish_reason == "stop" for each in texts(kind)) >= 5
    assert sum(each.finish_reason == "length" for each in texts(kind)) >= 5
    if "stop" in kind:
        assert sum(each.stop_sequence is not None for each in texts(kind)) >= 12


@exhaustive
def test_among_the_cases_are_end_tokens_replaced_and_replacing() -> None:
    went_on, ended = 0, 0
    for scenario, prompt in TEXTS:
        ends = options_of(scenario).get("eos_token_id", [256])
        ends = ends if isinstance(ends, list) else [ends]
        replaced = [place for place in written(scenario, prompt).places if place.writer is not None]
        went_on += sum(place.x in ends and place.id not in ends for place in replaced)
        ended += sum(place.id in ends for place in replaced)
    assert min(went_on, ended) >= 5
    assert any(len(each.ids) == 1 for each in texts("early eos"))
