"""The demo's recipe learns answers in whatever tokens it is given; in bytes it is the bundled pair's."""

import torch

from examples.bundled_pairs.recipe.mixtures import FACTS
from examples.bundled_pairs.recipe.tokenizer import EOS_ID, PAD_ID, VOCABULARY, byte_tokenizer
from examples.bundled_pairs.recipe.training import IGNORED, Recipe, collate, train
from tests.tokenizers import llama3

EXAMPLES = [("Q: 1+2? A:", " 1+2=3"), ("Q: symbol of iron? A:", " symbol of iron is Fe")]
TINY = Recipe(steps=2, batch=2, hidden=16, inner=16, layers=1, heads=2)


def test_in_bytes_the_ids_are_the_bytes_and_only_answers_are_learned() -> None:
    ids, labels = collate(EXAMPLES, byte_tokenizer())
    for row, (prompt, answer) in enumerate(EXAMPLES):
        size, whole = len(prompt), [*(prompt + answer).encode(), EOS_ID]
        padding = ids.shape[1] - len(whole)
        assert ids[row].tolist() == whole + [PAD_ID] * padding
        assert labels[row].tolist() == [IGNORED] * size + whole[size:] + [IGNORED] * padding


def test_in_other_tokens_prompt_and_answer_are_those_of_the_whole_text() -> None:
    tokenizer = llama3()
    ids, labels = collate(EXAMPLES, tokenizer)
    for row, (prompt, answer) in enumerate(EXAMPLES):
        whole = [
            *tokenizer.encode(prompt + answer, add_special_tokens=False), tokenizer.eos_token_id,
        ]  # fmt: skip
        assert ids[row, : len(whole)].tolist() == whole
        assert set(ids[row, len(whole) :].tolist()) <= {tokenizer.pad_token_id}
        learned = labels[row][labels[row] != IGNORED].tolist()
        assert tokenizer.decode(learned) == answer + tokenizer.eos_token


def test_training_without_a_tokenizer_is_training_in_bytes() -> None:
    default, in_bytes = (
        train(FACTS, TINY, 0, lambda _: None, **options) for options in ({}, {"tokenizer": byte_tokenizer()})
    )
    assert default.config.vocab_size == VOCABULARY
    for ours, theirs in zip(default.parameters(), in_bytes.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_model_scores_the_tokens_it_is_trained_in() -> None:
    model = train(FACTS, TINY, 0, lambda _: None, tokenizer=llama3())
    assert model.config.vocab_size == len(llama3())
    assert model.config.eos_token_id == llama3().eos_token_id
