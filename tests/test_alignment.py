"""Which models share one vocabulary: found out by what ids mean, not by how many there are."""

import copy
from itertools import product

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, SuppressTokensLogitsProcessor

from cosd_core import CoSDDecoder, LanguageModel, RuleVerifier, VocabularyMismatchError, observe
from cosd_core.cross_tokenizer.vocabulary import vocabulary_of
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.models.vocabulary_alignment import align, require_one_vocabulary
from cosd_core.tuning import ReplayCache, Setting
from tests.models import EOS, VOCABULARY, ascii_model, byte_tokenizer, random_model

PROMPTS = ["The old mill", "a = [1, 2]", "Καλημέρα"]


def with_tokens(*names: str, special: bool = True) -> PreTrainedTokenizerFast:
    """The byte tokenizer with more tokens."""
    tokenizer = copy.deepcopy(byte_tokenizer())
    tokenizer.add_tokens(list(names), special_tokens=special)
    return tokenizer


def speaking(
    tokenizer: PreTrainedTokenizerFast, *, seed: int, ids: int | None = None, end: int = EOS
) -> LanguageModel:
    """A random model over a tokenizer, with as many ids as that has, or more."""
    model = ascii_model(seed=seed, sharpness=3.0, vocabulary=ids or len(tokenizer)).model
    model.generation_config.eos_token_id = end
    return LanguageModel(model, tokenizer, name=f"random-{seed}")


def test_padded_embeddings_do_not_count() -> None:
    draft, assistant = random_model(seed=1, vocabulary=VOCABULARY + 31), random_model(seed=2)
    alignment = align([draft, assistant])
    assert alignment.shared
    assert alignment.vocabularies == (VOCABULARY, VOCABULARY)
    texts = CoSDDecoder(draft, assistant, verifier=RuleVerifier(0.9, 0.1)).generate(
        PROMPTS, max_new_tokens=24
    )
    assert all(max(text.token_ids) < VOCABULARY for text in texts)


@pytest.mark.parametrize("special", [True, False])
def test_tokens_that_only_a_fine_tune_has_are_written_by_nobody(special: bool) -> None:
    tuned = with_tokens("<|user|>", "<|tool|>", special=special)
    draft, assistant = speaking(byte_tokenizer(), seed=1), speaking(tuned, seed=2)
    for pair in ((draft, assistant), (assistant, draft)):
        assert align(pair).shared
        assert align(pair).vocabularies == (VOCABULARY, VOCABULARY)
        pair[0].model.lm_head.weight.data[VOCABULARY:] *= 50  # it would write nothing else
        pair[1].model.lm_head.weight.data[VOCABULARY:] *= 50
        for text in CoSDDecoder(*pair, verifier=RuleVerifier(0.9, 0.1)).generate(PROMPTS, max_new_tokens=24):
            assert max(text.token_ids) < VOCABULARY


def differing_pair() -> tuple[LanguageModel, LanguageModel]:
    """As where one fine-tune names a reserved token and another names it otherwise: both write it often."""
    one, other = with_tokens("<|reserved|>", "<|same|>"), with_tokens("<|tool|>", "<|same|>")
    draft, assistant = speaking(one, seed=1), speaking(other, seed=2)
    for model in (draft, assistant):
        model.model.lm_head.weight.data[VOCABULARY:] *= 20
    return draft, assistant


def test_ids_that_are_different_special_tokens_are_written_by_nobody() -> None:
    draft, assistant = differing_pair()
    alignment = align([draft, assistant])
    assert alignment.shared
    assert alignment.vocabularies == (VOCABULARY + 2, VOCABULARY + 2)
    assert alignment.barred == {VOCABULARY}
    seen = set()
    for text in CoSDDecoder(draft, assistant, verifier=RuleVerifier(0.9, 0.1)).generate(
        PROMPTS, max_new_tokens=64, temperature=1.0, seed=5
    ):
        seen |= set(text.token_ids)
    assert VOCABULARY not in seen
    assert VOCABULARY + 1 in seen


def test_nor_are_they_where_texts_are_replayed_read_or_scored() -> None:
    pair, verifier = differing_pair(), RuleVerifier(0.9, 0.1)
    decoder = CoSDDecoder(*pair, verifier=verifier, schedule="fixed")
    written = decoder.generate(PROMPTS, max_new_tokens=12, eos_token_id=[])
    assert all(VOCABULARY not in each.token_ids for each in written)
    cache = ReplayCache(pair, PROMPTS, {"max_new_tokens": 12, "eos_token_id": []})
    replayed = cache.generate([(Setting(verifier), prompt) for prompt in range(len(PROMPTS))])
    assert [each.text for each in replayed] == [each.text for each in written]
    for prompt, each in zip(PROMPTS, written, strict=True):
        ids = tuple(pair[0].tokenizer(prompt)["input_ids"])
        [likelihood] = log_likelihoods(decoder, [Continuation((ids, ids), each.token_ids)])
        assert likelihood.greedy
        seen = observe(pair, [(prompt, each.token_ids)], end_token=False)
        assert VOCABULARY not in seen.predicted
        np.testing.assert_allclose(seen.confidences()[:, 0], [token.p for token in each.tokens], atol=1e-5)


def test_a_fine_tune_that_ends_its_texts_by_a_token_of_its_own_is_read_by_its_text() -> None:
    tuned = with_tokens("<|im_end|>")
    draft, assistant = speaking(byte_tokenizer(), seed=1), speaking(tuned, seed=2, end=VOCABULARY)
    alignment = align([draft, assistant])
    assert not alignment.shared
    assert "ends the texts" in str(alignment.differences[0])
    decoder = CoSDDecoder(draft, assistant, verifier="assistant")
    assert not decoder.shares_vocabulary
    assistant.model.lm_head.weight.data[VOCABULARY] = assistant.model.lm_head.weight.data.sum(0)
    own = CoSDDecoder(assistant, assistant, verifier="draft")
    vocabulary = vocabulary_of(byte_tokenizer(), VOCABULARY)
    broken = [token for token in range(EOS) if not vocabulary.bytes_of(token).isascii()]
    only_text = SuppressTokensLogitsProcessor(broken)
    reasons = set()
    for prompt, most in product(PROMPTS, (2, 40)):
        text, wanted = (
            each.generate(prompt, max_new_tokens=most, logits_processor=[only_text])
            for each in (decoder, own)
        )
        assert (text.text, text.finish_reason) == (wanted.text, wanted.finish_reason)
        reasons.add(text.finish_reason)
    assert reasons == {"stop", "length"}


def test_other_words_are_another_vocabulary() -> None:
    words = byte_tokenizer().get_vocab()
    swapped = copy.deepcopy(byte_tokenizer())
    state = (
        swapped.backend_tokenizer.to_str()
        .replace('"a":', '"\x00":')
        .replace('"b":', '"a":')
        .replace('"\x00":', '"b":')
    )
    assert words["a"] != words["b"]
    other = PreTrainedTokenizerFast(
        tokenizer_object=type(swapped.backend_tokenizer).from_str(state), eos_token="<eos>"
    )
    draft, assistant = speaking(byte_tokenizer(), seed=1), speaking(other, seed=2)
    alignment = align([draft, assistant])
    assert not alignment.shared
    assert "token 'a' is" in str(alignment.differences[0])


def test_what_needs_one_vocabulary_says_so() -> None:
    draft, assistant = (
        speaking(byte_tokenizer(), seed=1),
        speaking(with_tokens("<|im_end|>"), seed=2, end=VOCABULARY),
    )
    with pytest.raises(
        VocabularyMismatchError, match=r"needs models with one tokenizer.*'random-1'.*'random-2'"
    ):
        require_one_vocabulary([draft, assistant], "tuning")
    for verifier in ("average", "speculative"):
        with pytest.raises(VocabularyMismatchError, match="mixes distributions"):
            CoSDDecoder(draft, assistant, verifier=verifier)


def test_of_several_assistants_each_is_compared_with_the_draft() -> None:
    draft = random_model(seed=1)
    padded = random_model(seed=2, vocabulary=VOCABULARY + 7)
    own_end = speaking(with_tokens("<|im_end|>"), seed=3, end=VOCABULARY)
    alignment = align([draft, padded, own_end])
    assert alignment.differences[0] is None
    assert alignment.differences[1] is not None
    assert alignment.vocabularies == (VOCABULARY, VOCABULARY, VOCABULARY + 1)
    text = CoSDDecoder(draft, [padded, own_end], verifier=RuleVerifier(0.9, 0.1)).generate(
        "The", max_new_tokens=24
    )
    assert text.text == "".join(token.text for token in text.tokens)


def test_calibration_and_min_new_tokens_hold_across_vocabularies() -> None:
    draft, assistant = (
        speaking(byte_tokenizer(), seed=1),
        speaking(with_tokens("<|im_end|>"), seed=2, end=VOCABULARY),
    )
    with torch.no_grad():
        for model in (draft, assistant):
            model.model.lm_head.weight[EOS:] *= 8
    decoder = CoSDDecoder(draft, assistant, verifier=RuleVerifier(0.9, 0.1), calibration=(2.0, 0.5))
    for seed in range(8):
        text = decoder.generate("The", max_new_tokens=40, min_new_tokens=20, temperature=1.0, seed=seed)
        assert len(text.token_ids) >= 20
