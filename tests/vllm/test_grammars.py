"""Structured outputs: the grammar masks both models, and the confidences of what it admits add up to 1."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cosd_core import LanguageModel, RuleVerifier
from cosd_core.serving.vllm import read_provenance
from tests.models import byte_tokenizer
from tests.vllm.conftest import engine
from tests.vllm.written import assert_as_written

PROMPT = byte_tokenizer()("The capital of")["input_ids"]
RULE = RuleVerifier(0.8)
PATTERN = "(ab|ac|[x-z]{2}){3,5}"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.fixture(scope="module", params=["xgrammar", "guidance"])
def llm(request: pytest.FixtureRequest, folders: dict[str, str]) -> Iterator[Any]:
    with engine(
        folders, draft_length=4, cosd={"alpha": RULE.alpha}, block_size=32,
        structured_outputs_config={"backend": request.param, "disable_any_whitespace": True},
    ) as made:  # fmt: skip
        yield made


def generate(llm: Any, params: list[Any]) -> list[Any]:
    """The choices for one prompt, decoded at once."""
    outputs = llm.generate([{"prompt_token_ids": PROMPT}] * len(params), params, use_tqdm=False)
    return [output.outputs[0] for output in outputs]


def test_regular_expressions(llm: Any, draft: LanguageModel, assistant: LanguageModel) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    pair = draft, assistant
    grammar = StructuredOutputsParams(regex=PATTERN)
    ways: list[dict[str, Any]] = [
        {"temperature": 0.0},
        *({"temperature": 1.5, "seed": at} for at in range(8)),
    ]
    params = [SamplingParams(max_tokens=20, structured_outputs=grammar, **way) for way in ways]
    *choices, free = generate(llm, [*params, SamplingParams(temperature=0, max_tokens=20)])
    replaced = 0
    for way, choice in zip(ways, choices, strict=True):
        written = assert_as_written(choice, pair, RULE, PROMPT, max_new_tokens=20, pattern=PATTERN, **way)
        replaced += written.replaced
    assert replaced
    assert_as_written(free, pair, RULE, PROMPT, max_new_tokens=20)


def test_json(llm: Any) -> None:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    grammar = StructuredOutputsParams(json=SCHEMA)
    params = [SamplingParams(max_tokens=60, seed=at, structured_outputs=grammar) for at in range(6)]
    finished = 0
    for choice in generate(llm, params):
        if choice.finish_reason == "stop":
            finished += isinstance(json.loads(choice.text)["a"], int)
        assert [token.id for token in read_provenance(choice)] == list(choice.token_ids)
    assert finished
