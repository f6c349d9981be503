"""Single requests: ends, logprobs, several choices, and what is refused in words."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cosd_core import LanguageModel, RuleVerifier
from cosd_core.serving.vllm import read_provenance
from tests.models import EOS, byte_tokenizer
from tests.vllm.conftest import engine
from tests.vllm.written import assert_as_written

PROMPT = byte_tokenizer()("The capital of")["input_ids"]


@pytest.fixture(scope="module")
def llm(folders: dict[str, str]) -> Iterator[Any]:
    with engine(folders, draft_length=4, cosd={"alpha": 0.8}, block_size=32) as made:
        yield made


@pytest.fixture
def pair(draft: LanguageModel, assistant: LanguageModel) -> tuple[LanguageModel, LanguageModel]:
    return draft, assistant


def generate(llm: Any, **options: Any) -> Any:
    from vllm import SamplingParams

    params = SamplingParams(**{"temperature": 0, "max_tokens": 12, **options})
    return llm.generate({"prompt_token_ids": PROMPT}, params, use_tqdm=False)[0]


def test_least_numbers_of_tokens(llm: Any, pair: Any) -> None:
    ends = list(range(40))
    reasons = set()
    for seed in range(8):
        way = {"temperature": 1.0, "seed": seed}
        choice = generate(llm, min_tokens=6, stop_token_ids=ends, **way).outputs[0]
        written = assert_as_written(
            choice, pair, RuleVerifier(0.8), PROMPT,
            max_new_tokens=12, min_new_tokens=6, eos_token_id=[EOS, *ends], **way,
        )  # fmt: skip
        assert choice.finish_reason == written.finish_reason
        reasons.add(written.finish_reason)
    assert reasons == {"stop", "length"}


def test_texts_that_end_at_a_stop_token(llm: Any, pair: Any) -> None:
    whole = generate(llm).outputs[0].token_ids
    choice = generate(llm, stop_token_ids=[whole[5]]).outputs[0]
    assert choice.finish_reason == "stop"
    first = whole.index(whole[5])
    assert list(choice.token_ids) == list(whole[: first + 1])
    assert [token.id for token in read_provenance(choice)] == list(choice.token_ids)


def test_texts_that_end_at_a_stop_string(llm: Any) -> None:
    way = {"temperature": 1.0, "seed": 3}
    whole = generate(llm, **way, max_tokens=40).outputs[0]
    stop = next(letter for letter in whole.text[3:] if letter.isascii())
    choice = generate(llm, **way, max_tokens=40, stop=[stop]).outputs[0]
    assert choice.finish_reason == "stop"
    assert choice.text == whole.text[: whole.text.index(stop)]
    assert [token.id for token in read_provenance(choice)] == list(choice.token_ids)


def test_several_choices_of_one_prompt(llm: Any, pair: Any) -> None:
    way = {"temperature": 1.0, "seed": 5}
    choices = generate(llm, n=3, **way).outputs
    texts = {tuple(choice.token_ids) for choice in choices}
    assert len(texts) == 3
    for choice in choices:
        assert [token.id for token in read_provenance(choice)] == list(choice.token_ids)
    assert_as_written(choices[0], pair, RuleVerifier(0.8), PROMPT, max_new_tokens=12, **way)


def test_logprobs_are_those_of_the_assistant(llm: Any, assistant: LanguageModel) -> None:
    choice = generate(llm, logprobs=2).outputs[0]
    ids = [*PROMPT, *choice.token_ids]
    with torch.inference_mode():
        logprobs = assistant.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    for at, (token, entry) in enumerate(zip(choice.token_ids, choice.logprobs, strict=True)):
        expected = logprobs[len(PROMPT) + at - 1]
        assert entry[token].logprob == pytest.approx(float(expected[token]), abs=1e-3)
        assert max(each.logprob for each in entry.values()) == pytest.approx(float(expected.max()), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extra_args": {"alpa": 0.5}}, "unknown option 'alpa': did you mean 'alpha'?"),
        ({"extra_args": {"alpha": -1}}, "alpha=-1.0 should be a finite number of at least 0"),
        ({"extra_args": {"alpha": "0.5"}}, "alpha='0.5' should be a valid number"),
        ({"extra_args": {"beta": math.nan}}, "beta=nan should be a finite number of at least 0"),
        ({"extra_args": {"verifier": "average"}}, "verifier='average' should be one of rule, tree, draft"),
        ({"extra_args": {"verifier": "tree"}}, "needs tree_path among the settings of the server"),
        ({"extra_args": {"verifier": "draft", "alpha": 0.5}}, 'alpha=0.5 is a setting of verifier="rule"'),
        ({"presence_penalty": 0.5}, "presence_penalty=0.5 cannot be used with CoSD"),
        ({"frequency_penalty": 0.5}, "frequency_penalty=0.5 cannot be used with CoSD"),
        ({"bad_words": ["a"]}, "bad_words=['a'] cannot be used with CoSD"),
        ({"allowed_token_ids": [65]}, "allowed_token_ids=[65] cannot be used with CoSD"),
        ({"prompt_logprobs": 1}, "prompt_logprobs=1 cannot be used with CoSD"),
        ({"max_tokens": 1, "logprobs": 4, "detokenize": False}, "beam search"),
        ({"logit_bias": {65: 1.0}}, "logit_bias"),  # vLLM itself refuses it
        ({"min_p": 0.1, "temperature": 1.0}, "min_p"),  # as well
    ],
)
def test_requests_that_are_refused(llm: Any, options: dict[str, Any], message: str) -> None:
    from vllm.exceptions import VLLMValidationError

    with pytest.raises(VLLMValidationError) as error:
        generate(llm, **options)
    assert message in str(error.value)
    assert len(generate(llm).outputs[0].token_ids) == 12, "the engine goes on"
