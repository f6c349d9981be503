"""Claim: lazy verification gives the paper's text for a fraction of the work.

The paper drafts up to the maximum length and asks about all of it; ``adaptive`` drafts at most 8 tokens and
asks only where an answer could matter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import count, takewhile

from cosd_core import AdaptiveSchedule, CoSDDecoder, FixedSchedule, Generation, RuleVerifier, Schedule
from tests.models import random_model

LENGTH = 24
PROMPTS = ["Hello, world", "x", "The quick brown fox jumps over the lazy dog"]
VERIFIER = RuleVerifier()
PAIRS = [(2 * number, 2 * number + 1, (2.0, 6.0, 12.0)[number % 3]) for number in range(18)]


@dataclass(frozen=True)
class Run:
    generation: Generation
    doubts: int
    """Drafted positions that an assistant might replace."""


def run(draft: int, assistant: int, sharpness: float, schedule: Schedule, length: int) -> list[Run]:
    models = [random_model(seed=seed, sharpness=sharpness) for seed in (draft, assistant)]
    decoder = CoSDDecoder(*models, verifier=VERIFIER, schedule=schedule, draft_length=length)
    doubts, generations = [0] * len(PROMPTS), {}
    for step in decoder.steps(PROMPTS, max_new_tokens=LENGTH):
        doubts[step.index] += sum(prediction.confidence < VERIFIER.alpha for prediction in step.proposal)
        if step.generation:
            generations[step.index] = step.generation
    return [Run(generations[at], doubts[at]) for at in range(len(PROMPTS))]


@cache
def papers() -> list[Run]:
    return [row for pair in PAIRS for row in run(*pair, FixedSchedule(), LENGTH)]


@cache
def lazy() -> list[Run]:
    # A given price, so that the counts do not hang on how fast this machine is today.
    return [row for pair in PAIRS for row in run(*pair, AdaptiveSchedule(assistant_cost=1.0), 8)]


def test_the_text_is_the_papers() -> None:
    for ours, theirs in zip(lazy(), papers(), strict=True):
        assert ours.generation.token_ids == theirs.generation.token_ids
        assert ours.generation.text == theirs.generation.text
        assert [token.source for token in ours.generation.tokens] == [
            token.source for token in theirs.generation.tokens
        ]


def test_at_most_half_as_many_tokens_are_drafted() -> None:
    ours = sum(each.generation.stats.drafted for each in lazy())
    theirs = sum(each.generation.stats.drafted for each in papers())
    assert ours <= theirs / 2


def test_the_assistants_are_asked_at_most_once_per_doubtful_token() -> None:
    for each in lazy():
        assert each.generation.stats.assistant_passes <= each.doubts


def test_a_text_without_doubts_never_asks() -> None:
    certain = [each for each in lazy() if each.doubts == 0]
    assert certain, "among 54 texts some should be"
    assert all(each.generation.stats.assistant_passes == 0 for each in certain)


def test_what_was_skipped_could_not_have_been_replaced() -> None:
    skipped = [token for each in lazy() for token in each.generation.tokens if token.q is None]
    assert len(skipped) > 100
    assert all(token.p >= VERIFIER.alpha and token.source == "draft" for token in skipped)


def test_the_papers_loop_asks_once_per_round_about_everything() -> None:
    for each in papers():
        stats = each.generation.stats
        assert stats.assistant_passes == stats.rounds
        assert stats.assistant_skipped == 0


def replaceable_before_stopping(seconds: Callable[[int], float]) -> int:
    """How many replaceable tokens are drafted where a pass of the assistants over so many takes this long."""
    state = AdaptiveSchedule().start(1, lambda _: True)
    state.begin_round(1, 1, [])
    for length in (1, 2, 8, 2, 8, 2, 8):  # the first passes read the prompt
        for _ in range(length):
            state.drafted(1.0)
        state.verified(seconds(length))
    return len(list(takewhile(lambda replaceable: state.should_draft([replaceable]), count())))


def test_fewer_tokens_are_drafted_where_verifying_each_of_them_takes_time() -> None:
    assert replaceable_before_stopping(lambda _: 5.0) > replaceable_before_stopping(float)
