"""A prompt begins with one BOS, whether its text has it already or the tokenizer adds it."""

import copy
from typing import Any

import pytest
from tokenizers import processors

from cosd_core import CoSDDecoder, GenerationOptions, LanguageModel
from cosd_core.generation.requests import read_prompts
from cosd_core.models.vocabulary_alignment import align
from langchain_cosd import CoSDLLM
from llama_index_cosd import CoSDLLM as LlamaIndexLLM
from tests.chats import BOS, chat_model, tokenizer
from tests.test_translated import random_over
from tests.tokenizers import gpt2, llama2, llama3

TEXTS = ["hello", "<bos>hello", "<bos><|im_start|>user\nhello<|im_end|>\n"]


def prompts_of(models: list[LanguageModel], prompt: str) -> list[list[int]]:
    """The ids that every model is given."""
    (request,) = read_prompts(prompt, GenerationOptions(), models, align(models))
    return [list(ids) for ids in request.prompts]


@pytest.mark.parametrize("prompt", TEXTS)
def test_one_bos_for_models_of_one_tokenizer(prompt: str) -> None:
    models = [chat_model("none"), chat_model("none", seed=1)]
    expected = tokenizer()(prompt.removeprefix("<bos>"), add_special_tokens=True)["input_ids"]
    assert prompts_of(models, prompt) == [expected] * 2
    assert expected.count(BOS) == 1
    assert CoSDDecoder(*models).generate(prompt, max_new_tokens=1).prompt_tokens == len(expected)


def test_without_special_tokens_the_text_is_encoded_as_it_is() -> None:
    decoder = CoSDDecoder(chat_model("none"), chat_model("none", seed=1))
    for prompt, count in (("hello", 5), ("<bos>hello", 6), ("<bos><bos>hello", 7)):
        generation = decoder.generate(prompt, max_new_tokens=1, add_special_tokens=False)
        assert generation.prompt_tokens == count


@pytest.mark.parametrize("prompt", TEXTS)
def test_one_bos_in_both_frameworks(prompt: str) -> None:
    models: Any = {"draft_model": chat_model("none"), "assistant_model": chat_model("none", seed=1)}
    count = len(tokenizer()(prompt.removeprefix("<bos>"))["input_ids"])
    output = CoSDLLM(**models, max_tokens=2).generate([prompt]).llm_output
    assert output is not None
    assert output["token_usage"]["prompt_tokens"] == count
    answer = LlamaIndexLLM(**models, max_tokens=2).complete(prompt, formatted=True)
    assert answer.raw["usage"]["prompt_tokens"] == count


@pytest.mark.parametrize("begin", ["", "<s>", "<|begin|>", "<|endoftext|>"])
def test_every_model_begins_with_its_own_bos(begin: str) -> None:
    kinds = (llama2(), llama3(), gpt2(600))
    models = [random_over(each, seed=at) for at, each in enumerate(kinds)]
    shown = prompts_of(models, f"{begin}The capital of France is")
    for kind, ids in zip(kinds, shown, strict=True):
        expected = kind("The capital of France is")["input_ids"]
        if kind is kinds[2] and begin == "<|endoftext|>":  # it adds no BOS, but the text has it
            expected = [kind.bos_token_id, *expected]
        assert ids == expected


def test_a_bos_in_the_text_stands_for_the_added_one() -> None:
    model, a = chat_model("none"), tokenizer()("a", add_special_tokens=False)["input_ids"]
    assert model.added_prefix() == [BOS]
    assert model.encode("<bos>a") == model.encode("a") == [BOS, *a]
    assert model.encode("<bos><bos>a") == [BOS, BOS, *a]
    assert model.encode("<bos>") == model.encode("") == [BOS]


def test_a_prefix_of_several_tokens_is_added_once_too() -> None:
    two = copy.deepcopy(tokenizer())
    start = two.convert_tokens_to_ids("<|im_start|>")
    two.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> <|im_start|> $A", special_tokens=[("<bos>", BOS), ("<|im_start|>", start)]
    )
    model = LanguageModel(chat_model("none").model, two)
    assert model.added_prefix() == [BOS, start]
    assert model.encode("<bos><|im_start|>a") == model.encode("a")
