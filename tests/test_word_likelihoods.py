"""Claim: given texts are scored word by word, each word by the model that writes it, whatever the tokenizers.

Writers and scores are compared with an uncached walk through the text, written plainly.
"""

import math
from collections.abc import Sequence
from itertools import chain, pairwise, product
from random import Random
from typing import Any

import numpy as np
import pytest

from cosd_core import (
    AverageVerifier,
    ContextOverflowError,
    CoSDDecoder,
    InvalidOptionError,
    InvalidPromptError,
    LanguageModel,
    PanelVerifier,
    RuleVerifier,
    Verifier,
)
from cosd_core.cross_tokenizer.vocabulary import vocabulary_of
from cosd_core.cross_tokenizer.word_boundaries import word_ends
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.evaluation.word_likelihood import TextContinuation, word_likelihoods
from tests.models import counted_passes, table_model
from tests.reference import _How, _logits, _softmax
from tests.test_teaching_by_text import trained
from tests.test_translated import TREE, random_over
from tests.test_translated_by_eye import END as EOS
from tests.test_translated_by_eye import pieces
from tests.tokenizers import ZOO
from tests.translated_reference import Fires, _read, _Speaker, _Writing

TEXTS = [("The quick", " fox's hats"), ("你好", "世界。的首都"), ("Paris is", " in\n\nFrance")]
ANSWERS = [
    ("Q: capital of France? A:", " France is Paris"),
    ("Q: the atomic number of iron plus 6? A:", " iron is 26, 26+6=32"),
]


# The yardstick


def plainly(
    models: Sequence[LanguageModel], fires: Fires | Sequence[Fires], prompt: str, text: str, *, alone: bool
) -> tuple[float, list[int]]:
    """The score of a text, and who writes its words; ``alone``: the assistants write whatever agrees, too."""
    how = _How(max_new_tokens=128)
    verifiers = list(fires) if isinstance(fires, list) else [fires] * (len(models) - 1)
    sharing = [model for model in models if model.tokenizer is models[0].tokenizer]
    shared = frozenset().union(*(model.eos_token_ids for model in sharing))
    ends = [shared if model in sharing else model.eos_token_ids for model in models]
    whole = text.encode()
    words = [whole[start:end] for start, end in pairwise([0, *word_ends(whole, 0), len(whole)])]
    tokens = [
        [vocabulary_of(model.tokenizer, model.vocabulary_size).encode(word.decode())[0] for word in words]
        for model in models
    ]
    log, writers = 0.0, list[int]()
    for at, word in enumerate(words):
        seen = [(*model.encode(prompt), *chain(*own[:at])) for model, own in zip(models, tokens, strict=True)]
        speakers = [_Speaker(model, number, ends[number], "a", how) for number, model in enumerate(models)]
        for speaker, model, ids in zip(speakers, models, seen, strict=True):
            speaker.finishes_words, speaker._prompt = model not in sharing, ids
        told = not at or _begins(words[at - 1], word)
        writer = _writer(_Writing(speakers, verifiers, how), alone=alone) if told else writers[-1]
        if at and writer != writers[-1]:
            before, after = (
                sum(
                    share
                    for token, share in enumerate(_softmax(_logits(models[number], seen[number])))
                    if _begins(words[at - 1], speakers[number].spell(token))
                )
                for number in (writers[-1], writer)
            )
            log += math.log(before / after)
        writers.append(writer)
        ids = seen[writer]
        for token in tokens[writer][at]:
            log += math.log(_softmax(_logits(models[writer], ids))[token])
            ids = (*ids, token)
    return log, writers


def _begins(word: bytes, after: bytes) -> bool:
    """Whether another word begins with the next byte."""
    return after != b"" and len(word) in word_ends(word + after[:1], 0)


def _writer(writing: _Writing, *, alone: bool) -> int:
    drafted, text, until = writing._draft_word()
    if claim := writing._first_claim(drafted, text, until):
        return 1 + claim[0].assistant
    sure = [0.0] * len(writing.assistants)
    for at, speaker in enumerate(writing.assistants):
        for place in _read(speaker, text, [0, until])[:1]:
            sure[at] = writing._claim(at, place, drafted, text).q
    return 1 + int(np.argmax(sure)) if alone else 0


def given(models: Sequence[LanguageModel], prompt: str, text: str) -> TextContinuation:
    return TextContinuation(tuple(tuple(model.encode(prompt)) for model in models), text)


def assert_scored(decoder: CoSDDecoder, fires: Any, texts: Sequence[tuple[str, str]]) -> set[int]:
    """Compare the scores of some texts, and return who writes words of theirs."""
    alone = decoder.verifier.name == "assistant"
    found = word_likelihoods(decoder, [given(decoder.models, *each) for each in texts], logits_at_once=5000)
    wrote = set[int]()
    for likelihood, each in zip(found, texts, strict=True):
        log, writers = plainly(decoder.models, fires, *each, alone=alone)
        assert likelihood.log == pytest.approx(log, rel=1e-6, abs=1e-4)
        wrote |= set(writers)
    return wrote


def made(names: Sequence[str], number: int) -> list[LanguageModel]:
    return [
        random_over(ZOO[name](), seed=2000 + 10 * number + at, sharpness=Random(number).choice([2, 4]))
        for at, name in enumerate(names)
    ]


@pytest.mark.parametrize(
    "names",
    [("gpt2-400", "characters"), ("gpt2-2000", "single-bytes"), ("unigram-bytes", "llama2", "gpt2-2000")],
    ids="-".join,
)
def test_scores_are_those_of_an_uncached_walk(names: tuple[str, ...]) -> None:
    draft, *assistants = made(names, len(names))
    verifier = RuleVerifier(0.3, 0.5)
    decoder = CoSDDecoder(draft, assistants, verifier=verifier, batch_size=2)
    assert assert_scored(decoder, verifier.replaces, TEXTS) == set(range(len(names)))


@pytest.mark.parametrize("order", [(0, 1), (1, 0, 1)])
def test_so_are_those_of_models_that_are_mostly_right(order: tuple[int, ...]) -> None:
    draft, *assistants = (trained()[at] for at in order)
    verifier = RuleVerifier()
    decoder = CoSDDecoder(draft, assistants, verifier=verifier)
    assert len(assert_scored(decoder, verifier.replaces, ANSWERS)) > 1


@pytest.mark.parametrize(("verifier", "fires"), [
    (TREE, lambda p, q: p <= 0.3 and q > 0.1),
    ("assistant", lambda _p, _q: True),
    (PanelVerifier((RuleVerifier(0.9, 0.1), TREE)), [lambda p, q: p < 0.9 and q > 0.1 * p,
                                                     lambda p, q: p <= 0.3 and q > 0.1]),
], ids=["tree", "assistant", "panel"])  # fmt: skip
def test_so_they_are_under_other_verifiers(verifier: Any, fires: Any) -> None:
    models = made(("gpt2-400", "characters", "unigram-bytes"), 3)
    assert_scored(CoSDDecoder(models[0], models[1:], verifier=verifier), fires, TEXTS[:2])


@pytest.mark.parametrize("name", ["draft", "assistant"])
def test_a_model_that_writes_alone_gives_its_own_likelihood(name: str) -> None:
    models = made(("gpt2-400", "single-bytes"), 0)
    model = models[name == "assistant"]
    with counted_passes(*models) as passes:
        decoder = CoSDDecoder(*models, verifier=name)
        found = word_likelihoods(decoder, [given(models, *each) for each in TEXTS])
    if name == "draft":
        assert set(passes) == {model.name}
    for likelihood, (prompt, text) in zip(found, TEXTS, strict=True):
        ids, log = tuple(model.encode(prompt)), 0.0
        for token in model.encode(text):
            log += math.log(_softmax(_logits(model, ids))[token])
            ids = (*ids, token)
        assert likelihood.log == pytest.approx(log)


# What follows from the definition


def table(*texts: str, **rows: dict[str, float]) -> LanguageModel:
    """A model over these texts; ``x`` is what it writes after "x", and so on, " " being left out."""
    named = {(" " if row != "x" else "") + row: shares for row, shares in rows.items()}
    return table_model(pieces("x", *texts, unknown=EOS), named, name="table")


def score_of_a(verifier: Any, *models: LanguageModel) -> float:
    [found] = word_likelihoods(
        CoSDDecoder(models[0], models[1:], verifier=verifier), [given(models, "x", " a")]
    )
    return math.exp(found.log)


def test_the_next_word_does_not_count_though_it_may_be_written_with_this_one() -> None:
    draft = table(" a", " d", " a b c", x={" a": 0.3, " a b c": 0.7})
    assistant = table(" a", " b", " c", " d", x={" a": 0.9, " d": 0.1}, a={" d": 0.9, " a": 0.1})
    assert CoSDDecoder(draft, assistant, verifier=RuleVerifier(1, 0.5)).generate("x").text == " a d"
    assert score_of_a(RuleVerifier(1, 0.5), draft, assistant) == pytest.approx(0.3)


def test_where_all_agree_the_surest_assistant_is_scored_if_assistants_write_alone() -> None:
    models = [
        table(" a", f" {at}", x={" a": sure, f" {at}": 1 - sure}) for at, sure in enumerate((0.6, 0.7, 0.9))
    ]
    assert score_of_a("assistant", *models) == pytest.approx(0.9)
    assert score_of_a("assistant", models[0], *models[:0:-1]) == pytest.approx(0.9)
    assert score_of_a(RuleVerifier(), *models) == pytest.approx(0.6)


def test_where_every_token_is_a_word_scores_are_those_of_tokens() -> None:
    tokenizer = pieces(" the", " cat", " sat", " on", " a", " mat", unknown=EOS)
    models = [random_over(tokenizer, seed=seed, sharpness=4.0) for seed in range(3)]
    decoder = CoSDDecoder(models[0], models[1:], verifier=RuleVerifier(0.9, 0.3))
    assert decoder.shares_vocabulary
    for text in (" the cat sat on a mat", " mat mat", " a"):
        prompts = (tuple(tokenizer.encode(" the")),) * 3
        [words] = word_likelihoods(decoder, [TextContinuation(prompts, text)])
        [tokens] = log_likelihoods(decoder, [Continuation(prompts, tuple(tokenizer.encode(text)))])
        assert words.log == pytest.approx(tokens.log)


def test_the_probabilities_of_texts_add_up_to_one() -> None:
    tokenizer = pieces("a", "b", " ")
    goes_on = {"a": {"a": 0.4, "b": 0.5, " ": 0.1}, "b": {"a": 0.3, "b": 0.3, " ": 0.4}}
    ends = {"a": {"a": 0.2, "b": 0.1, " ": 0.7}, "b": {"a": 0.7, "b": 0.2, " ": 0.1}}
    draft = table_model(tokenizer, goes_on | {" ": {"a": 0.5, "b": 0.4, " ": 0.1}}, name="draft")
    assistant = table_model(tokenizer, ends | {" ": {"a": 0.1, "b": 0.8, " ": 0.1}}, name="assistant")
    prompts = (tuple(tokenizer.encode("a")),) * 2
    texts = ["".join(each) for each in product("ab ", repeat=4)]
    fused, by_draft, by_assistant = (
        [math.exp(each.log) for each in word_likelihoods(
            CoSDDecoder(draft, assistant, verifier=verifier, batch_size=100),
            [TextContinuation(prompts, text) for text in texts],
        )]
        for verifier in (RuleVerifier(0.45, 0.5), "draft", "assistant")
    )  # fmt: skip
    for each in (fused, by_draft, by_assistant):
        assert sum(each) == pytest.approx(1)
    assert any(
        not math.isclose(both, one) and not math.isclose(both, other)
        for both, one, other in zip(fused, by_draft, by_assistant, strict=True)
    )


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_written_is_called_greedy_and_nothing_else_is(order: tuple[int, ...]) -> None:
    decoder = CoSDDecoder(*(trained()[at] for at in order))
    written = decoder.generate([prompt for prompt, _ in ANSWERS], max_new_tokens=50)
    texts = [
        (prompt, text)
        for (prompt, _), each in zip(ANSWERS, written, strict=True)
        for text in (each.text[:3], each.text, each.text[:-1] + "Q", each.text + "Q")
    ]
    found = word_likelihoods(decoder, [given(decoder.models, *each) for each in texts])
    assert [each.greedy for each in found] == [True, True, False, False] * 2


# What cannot be scored


class Mood(Verifier):
    """Its tokens are its own."""

    name = "mood"

    def judge(self, position: Any) -> None:
        return None


def test_what_cannot_be_scored_is_refused() -> None:
    models = made(("gpt2-400", "characters"), 0)
    decoder = CoSDDecoder(*models)
    for text, words in (
        (TextContinuation(((1,), (1,)), ""), "text to score"),
        (TextContinuation(((1,), ()), "a"), "one not empty prompt per model"),
        (TextContinuation(((1,), (99999,)), "a"), "token id 99999"),
        (TextContinuation(((1,), (1,)), "\ud800"), "is no text"),
    ):
        with pytest.raises(InvalidPromptError, match=words):
            word_likelihoods(decoder, [text])
    with pytest.raises(InvalidOptionError, match="over confidences"):
        word_likelihoods(CoSDDecoder(*models, verifier=Mood()), [given(models, "a", "b")])
    one = random_over(models[0].tokenizer, seed=1)
    with pytest.raises(InvalidOptionError, match="one model write"):
        word_likelihoods(CoSDDecoder(models[0], one, verifier=AverageVerifier()), [])


def test_a_prompt_is_cut_where_a_text_fills_the_window_and_a_longer_text_is_refused() -> None:
    names = ("gpt2-400", "single-bytes")
    models = [random_over(ZOO[name](), seed=5, max_position_embeddings=12) for name in names]
    decoder = CoSDDecoder(*models)
    prompts = tuple(tuple(model.encode("x y" * 30)) for model in models)
    [cut] = word_likelihoods(decoder, [TextContinuation(prompts, " a words")])
    assert len(prompts[0]) > 12 - len(models[0].encode(" a words")) > 1
    ends = tuple(
        ids[-(12 - len(model.encode(" a words"))) :] for model, ids in zip(models, prompts, strict=True)
    )
    assert [cut] == word_likelihoods(decoder, [TextContinuation(ends, " a words")])
    with pytest.raises(ContextOverflowError, match="no room for a prompt in the context window of 12"):
        word_likelihoods(decoder, [TextContinuation(prompts, " longer words")])
