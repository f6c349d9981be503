"""Texts of vLLM with the plugin, and who wrote them, are those of the method without a cache."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cosd_core import (
    AssistantVerifier,
    DraftVerifier,
    LanguageModel,
    Leaf,
    RuleVerifier,
    Split,
    TreeVerifier,
)
from cosd_core.serving.vllm import read_provenance
from tests.vllm.conftest import engine
from tests.vllm.written import assert_as_written

TREE = TreeVerifier(
    (Split("p", 0.6, 1, 2), Split("q", 0.2, 3, 4), Leaf(False), Leaf(False), Leaf(True)),
    about={"calibration": [1.5, 0.8]},
)
RULES = ((0.5, 0.5), (0.9, 0.1), (0.3, 1.0), (1.1, 0.0))


def replaces(p: float, q: float) -> bool:
    """What TREE says."""
    return p <= 0.6 and q > 0.2


def prompts(count: int, *, seed: int, longest: int = 120) -> list[list[int]]:
    """Random bytes; half of them continue others, so that prefixes are cached."""
    pick = random.Random(seed)
    made: list[list[int]] = []
    for at in range(count):
        start = made[pick.randrange(len(made))] if at % 2 else []
        made.append([*start, *(pick.randrange(256) for _ in range(pick.randint(1, longest // 2)))][:longest])
    return made


@pytest.fixture(scope="module")
def tree_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trees") / "tree.json"
    TREE.save(path)
    return path


@pytest.fixture(scope="module", params=(1, 2, 3, 4, 8))
def llm(request: pytest.FixtureRequest, folders: dict[str, str], tree_path: Path) -> Iterator[Any]:
    with engine(
        folders, draft_length=request.param, cosd={"tree_path": str(tree_path)},
        max_num_batched_tokens=64, block_size=32,
    ) as made:  # fmt: skip
        yield made


@pytest.fixture
def pair(draft: LanguageModel, assistant: LanguageModel) -> tuple[LanguageModel, LanguageModel]:
    return draft, assistant


def generate(llm: Any, texts: list[list[int]], params: Any) -> list[Any]:
    """The choices of all prompts, decoded at once."""
    outputs = llm.generate([{"prompt_token_ids": each} for each in texts], params, use_tqdm=False)
    return [output.outputs[0] for output in outputs]


def test_greedy_texts_of_the_rule(llm: Any, pair: Any) -> None:
    from vllm import SamplingParams

    texts = prompts(32, seed=0)
    asked = [RULES[at % len(RULES)] for at in range(len(texts))]
    params = [
        SamplingParams(temperature=0, max_tokens=20, extra_args={"alpha": alpha, "beta": beta})
        for alpha, beta in asked
    ]
    choices = generate(llm, texts, params)
    found = set()
    for text, rule, choice in zip(texts, asked, choices, strict=True):
        assert_as_written(choice, pair, RuleVerifier(*rule), text, max_new_tokens=20)
        found |= {(token.source, token.draft_id == token.assistant_id) for token in read_provenance(choice)}
    assert len(found) == 3, "agreed, kept and replaced"


def test_greedy_texts_of_all_verifiers_in_one_batch(llm: Any, pair: Any) -> None:
    from vllm import SamplingParams

    verifiers = (TREE, DraftVerifier(), AssistantVerifier(), RuleVerifier())
    texts = prompts(12, seed=1)
    asked = [verifiers[at % len(verifiers)] for at in range(len(texts))]
    params = [
        SamplingParams(temperature=0, max_tokens=16, extra_args={"verifier": each.name}) for each in asked
    ]
    for text, verifier, choice in zip(texts, asked, generate(llm, texts, params), strict=True):
        tree = {"tree": replaces, "calibration": TREE.calibration} if verifier is TREE else {}
        assert_as_written(choice, pair, verifier, text, max_new_tokens=16, **tree)


def test_seeded_texts(llm: Any, pair: Any) -> None:
    from vllm import SamplingParams

    ways: list[dict[str, Any]] = [
        {"temperature": 1.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.3, "top_k": 5},
        {"temperature": 0.0, "repetition_penalty": 1.3},
    ]
    texts = prompts(12, seed=2)
    asked = [{**ways[at % len(ways)], "seed": at} for at in range(len(texts))]
    params = [SamplingParams(max_tokens=16, **each) for each in asked]
    for text, way, choice in zip(texts, asked, generate(llm, texts, params), strict=True):
        assert_as_written(choice, pair, RuleVerifier(), text, max_new_tokens=16, **way)
