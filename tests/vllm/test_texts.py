"""Texts and provenance of vLLM with the plugin are those of the method without a cache."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from cosd_core import LanguageModel, RuleVerifier
from cosd_core.serving.vllm import read_provenance
from tests.reference import write
from tests.vllm.conftest import engine

LENGTHS = (1, 2, 3, 4, 8)


def prompts(count: int, *, seed: int, longest: int = 120) -> list[list[int]]:
    """Random bytes; half of them continue others, so that prefixes are cached."""
    pick = random.Random(seed)
    made: list[list[int]] = []
    for at in range(count):
        start = made[pick.randrange(len(made))] if at % 2 else []
        made.append([*start, *(pick.randrange(256) for _ in range(pick.randint(1, longest // 2)))][:longest])
    return made


@pytest.fixture(scope="module", params=LENGTHS)
def llm(request: pytest.FixtureRequest, folders: dict[str, str]) -> Iterator[Any]:
    with engine(
        folders, draft_length=request.param, cosd={}, max_num_batched_tokens=64, block_size=32
    ) as made:
        yield made


def test_greedy(llm: Any, draft: LanguageModel, assistant: LanguageModel) -> None:
    from vllm import SamplingParams

    settings = [(0.5, 0.5), (0.9, 0.1), (0.3, 1.0), (1.1, 0.0)]
    texts = prompts(40, seed=0)
    asked = [settings[at % len(settings)] for at in range(len(texts))]
    params = [
        SamplingParams(temperature=0, max_tokens=24, extra_args={"alpha": alpha, "beta": beta})
        for alpha, beta in asked
    ]
    outputs = llm.generate([{"prompt_token_ids": each} for each in texts], params, use_tqdm=False)
    sources = set()
    for text, (alpha, beta), output in zip(texts, asked, outputs, strict=True):
        written = write(draft, [assistant], RuleVerifier(alpha, beta), text, max_new_tokens=24)
        choice = output.outputs[0]
        assert tuple(choice.token_ids) == written.ids
        decided = read_provenance(choice)
        assert tuple(token.id for token in decided) == written.ids
        for token, place in zip(decided, written.places, strict=True):
            assert token.source == ("draft" if place.writer is None else "assistant")
            assert (token.draft_id, token.assistant_id) == (place.x, place.answers[0][0])
            assert token.p == pytest.approx(place.p, abs=1e-4)
            assert token.q == pytest.approx(place.answers[0][1], abs=1e-4)
            sources.add((token.source, token.draft_id == token.assistant_id))
    assert len(sources) == 3, "agreed, kept and replaced"
