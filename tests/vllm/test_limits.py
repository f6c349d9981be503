"""Every token is judged where vLLM would sample one of the assistant's without the draft's."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from cosd_core import LanguageModel, RuleVerifier
from tests.vllm.conftest import CONTEXT, engine
from tests.vllm.written import assert_as_written

BLOCK = 32
RULE = RuleVerifier(0.9, 0.3)


@pytest.fixture(scope="module")
def llm(folders: dict[str, str]) -> Iterator[Any]:
    """Memory for 5 full contexts, so that many requests at once are preempted."""
    with engine(
        folders, draft_length=4, cosd={"alpha": RULE.alpha, "beta": RULE.beta}, block_size=BLOCK,
        max_num_batched_tokens=96, num_gpu_blocks_override=24,
    ) as made:  # fmt: skip
        yield made


def scheduler(llm: Any) -> Any:
    return llm.llm_engine.engine_core.engine_core.scheduler


def random_ids(length: int, seed: int) -> list[int]:
    pick = random.Random(seed)
    return [pick.randrange(256) for _ in range(length)]


def check(
    llm: Any, pair: Sequence[LanguageModel], texts: list[list[int]], *, max_tokens: int = 16, **options: Any
) -> Any:
    """Generate, and compare with the reference; returns the outputs."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=0, max_tokens=max_tokens, **options)
    outputs = llm.generate([{"prompt_token_ids": each} for each in texts], params, use_tqdm=False)
    for text, output in zip(texts, outputs, strict=True):
        length = min(max_tokens, CONTEXT - len(text))
        assert_as_written(output.outputs[0], pair, RULE, text, max_new_tokens=length)
    return outputs


@pytest.fixture
def pair(draft: LanguageModel, assistant: LanguageModel) -> tuple[LanguageModel, LanguageModel]:
    return draft, assistant


def test_prompts_of_one_token(llm: Any, pair: Any) -> None:
    check(llm, pair, [[at] for at in range(0, 250, 50)])


def test_the_end_of_the_context(llm: Any, pair: Any) -> None:
    texts = [random_ids(CONTEXT - left, seed=left) for left in (1, 2, 3, 4, 5, 6, 9)]
    outputs = check(llm, pair, [*texts, random_ids(5, seed=99)], max_tokens=30)
    assert {output.outputs[0].finish_reason for output in outputs} == {"length"}


def test_cached_prefixes_of_all_tokens_but_one(llm: Any, pair: Any) -> None:
    texts = [random_ids(count * BLOCK + 1, seed=count) for count in (1, 2, 3)]
    llm.reset_prefix_cache()
    for expected in (0, BLOCK):
        outputs = check(llm, pair, texts, max_tokens=8)
        cached = [output.num_cached_tokens for output in outputs]
        assert cached == [expected * count for count in (1, 2, 3)]


def test_resumed_requests(llm: Any, pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    preempted: list[str] = []
    original = type(scheduler(llm))._preempt_request

    def counted(self: Any, request: Any, *args: Any, **kwargs: Any) -> None:
        preempted.append(request.request_id)
        original(self, request, *args, **kwargs)

    monkeypatch.setattr(type(scheduler(llm)), "_preempt_request", counted)
    check(llm, pair, [random_ids(40 + at, seed=at) for at in range(10)], max_tokens=90)
    assert len(preempted) > 2


def test_prompts_longer_than_the_budget_of_a_step(llm: Any, pair: Any) -> None:
    check(llm, pair, [random_ids(150 + at, seed=at) for at in range(4)], max_tokens=10)
