"""Claim: models with different tokenizers are observed as they decode, at every place in the true text.

What is noted is compared with an uncached walk through the text, written plainly.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from cosd_core import (
    Calibration,
    InvalidOptionError,
    LanguageModel,
    Observations,
    TrainingDataError,
    TreeVerifier,
    observe,
)
from cosd_core.cross_tokenizer.word_boundaries import END, continues_word
from cosd_core.verifiers.observations import NOT_ASKED
from examples.bundled_pairs import load_words_pair
from tests.grids import every
from tests.models import word_tokenizer
from tests.reference import _How, _logits, _masked, _softmax
from tests.test_translated import PAIRS, PANELS, random_over
from tests.tokenizers import ZOO
from tests.translated_reference import _Claim, _Place, _read, _Speaker, _Writing

TEXTS = [
    ("The quick", " brown fox's hats, 37 of them"),
    ("Paris is", " in France. Where else"),
    ("a", "b"),
    ("Once upon", " a  time\n\nthere was"),
]
ANSWERS = [
    ("Q: capital of France? A:", " capital of France is Paris"),
    ("Q: 12+7? A:", " 12+7=19"),
    ("Q: capital of Japan and 3+4? A:", " capital of Japan is Tokyo, 3+4=7"),
]


GROUPS = [*PAIRS, *PANELS]
CHANGING = {"wordpiece", "unigram"}
"""Tokenizers that change text or lack characters, so that a draft of theirs cannot write it."""


@cache
def trained() -> tuple[LanguageModel, LanguageModel]:
    """The facts model and the arithmetic model of the bundled pair with two tokenizers."""
    return load_words_pair()


class Heated(_Speaker):
    """A model whose confidences have a temperature."""

    temperature = 1.0

    def say(self, ids: Sequence[int], written: int) -> tuple[int, float]:
        logits = _masked(_logits(self.model, (*self._prompt, *ids)), self._mute)
        token = int(np.argmax(logits))
        return token, float(_softmax(np.asarray(logits) / self.temperature)[token])


class Taught(_Writing):
    """The draft writes, and the true text replaces what differs from it."""

    def teach(self, truth: bytes) -> list[tuple[int, float, float, int, int]]:
        seen = []
        while self.text != truth:
            drafted, text, until = self._draft_word()
            places = [
                (place.start, at, place)
                for at, speaker in enumerate(self.assistants)
                for place in _read(speaker, text, [*self.cuts, until])
                if place.start >= self.judged
            ]
            starts = sorted({start for start, _, _ in places})
            wrong = None
            for start, following in zip(starts, [*starts[1:], until], strict=False):
                claims = [
                    self._claim(at, place, drafted, text) for begin, at, place in places if begin == start
                ]
                seen += [
                    (each.assistant, each.p, each.q, *self._marks(each, truth, text, drafted))
                    for each in claims
                ]
                if text[start:following] != truth[start:following]:
                    wrong = claims[0]
                    break
            if not starts and text[self.judged : until] != truth[self.judged : until]:  # no valid text
                begin = next(at for at in range(self.judged, until) if text[at] != truth[at])
                wrong = _Claim(
                    0, _Place(begin, begin + 1, None, (), (self.judged, until)), (0,), b"", 0, 0, False
                )
            if wrong is None:
                self.cuts.append(until)
                self._take(drafted, until)
            else:
                self._change(wrong, self._true_word(wrong.place.start, truth, text), drafted, text)
        return seen

    def _marks(self, claim: _Claim, truth: bytes, text: bytes, drafted: Sequence[Any]) -> tuple[int, int]:
        start, end = claim.place.start, claim.place.end
        is_token = any((each.start, each.end) == (start, end) for each in drafted)
        x = text[start : end if is_token else min(start + len(claim.text), claim.place.word[1] + 1)]
        rest = truth[start:]
        draft = 0 if rest.startswith(x) else 1
        if claim.agrees:
            return draft, draft
        return draft, 0 if draft and rest.startswith(claim.text) else 2

    def _true_word(self, start: int, truth: bytes, text: bytes) -> bytes:
        end = start
        while text[end : end + 1] == truth[end : end + 1]:
            end += 1
        end += 1
        letters = truth.removesuffix(END).decode()
        while end < len(letters.encode()) and continues_word(letters[:end], letters[end:]):  # ASCII
            end += 1
        return truth[start:end]


def taught(
    models: Sequence[LanguageModel], prompt: str, completion: str, temperatures: Sequence[float]
) -> list[tuple[int, float, float, int, int]]:
    how = _How(max_new_tokens=1000)
    sharing = [model for model in models if model.tokenizer is models[0].tokenizer]
    shared = frozenset().union(*(model.eos_token_ids for model in sharing))
    speakers = []
    for at, model in enumerate(models):
        speaker = Heated(model, at, shared if model in sharing else model.eos_token_ids, prompt, how)
        speaker.temperature = temperatures[at]
        speakers.append(speaker)
    return Taught(speakers, [], how).teach(completion.encode() + END)


def made(names: Sequence[str], number: int) -> list[LanguageModel]:
    return [
        random_over(ZOO[name](), seed=1000 + 10 * number + at, sharpness=Random(number).choice([2, 4]))
        for at, name in enumerate(names)
    ]


def assert_noted(
    models: Sequence[LanguageModel], texts: Sequence[tuple[str, str]], seen: Observations
) -> None:
    assert seen.names == tuple(model.name for model in models)
    for heat in (1.0, 2.0):
        temperatures = [heat, 1 / heat, heat, 1.0][: len(models)]
        confidences = seen.confidences(temperatures)
        for number, (prompt, completion) in enumerate(texts):
            expected = taught(models, prompt, completion, temperatures)
            rows = np.flatnonzero(seen.example == number)
            assert len(rows) == len(expected)
            for row, (assistant, p, q, x, y) in zip(rows, expected, strict=True):
                asked = np.flatnonzero(seen.predicted[row] != NOT_ASKED).tolist()
                assert asked == [0, 1 + assistant]
                assert seen.predicted[row, asked].tolist() == [x, y]
                tolerance = 1e-4 if heat == 1 else 0.03
                np.testing.assert_allclose(confidences[row, asked], [p, q], rtol=tolerance)


@pytest.mark.parametrize(
    "number", every(5, range(len(GROUPS))), ids=lambda at: f"{at}-{'-'.join(GROUPS[at])}"
)
def test_what_is_noted_is_what_an_uncached_walk_finds(number: int) -> None:
    names = GROUPS[number]
    models = made(names, number)
    if CHANGING & {names[0]}:
        with pytest.raises(TrainingDataError, match="cannot represent"):
            observe(models, TEXTS)
        return
    assert_noted(models, TEXTS, observe(models, TEXTS, tokens_per_pass=3 if number % 2 else 64))


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0), (1, 0, 1)])
def test_the_same_of_models_that_are_mostly_right(order: tuple[int, ...]) -> None:
    models = [trained()[at] for at in order]
    seen = observe(models, ANSWERS)
    assert_noted(models, ANSWERS, seen)
    outcomes = {tuple(row[row != NOT_ASKED]) for row in seen.predicted}
    assert {(0, 0), (0, 2), (1, 0)} <= outcomes


# What is learned from it


@pytest.fixture(scope="module")
def pair() -> list[LanguageModel]:
    return list(trained())


@pytest.fixture(scope="module")
def seen(pair: list[LanguageModel]) -> Observations:
    return observe(pair, ANSWERS)


def test_temperatures_are_fitted_on_every_models_own_tokens(
    pair: list[LanguageModel], seen: Observations
) -> None:
    alone = [observe([model], ANSWERS) for model in pair]
    assert Calibration.fit(seen).temperatures == tuple(
        Calibration.fit(each).temperatures[0] for each in alone
    )
    some = seen.of_examples([0, 2])
    assert [len(each.of_examples([0, 2])) for each in alone] == [len(each) for each in some.alone]


def test_a_tree_is_learned_per_assistant_or_for_all() -> None:
    facts, arithmetic = trained()
    models = [arithmetic, facts, arithmetic]
    seen = observe(models, ANSWERS)
    tree = TreeVerifier.fit(seen, calibration=[2.0, 1.0, 0.5])
    pairs = seen.pairs()
    assert sum(map(len, pairs)) == len(seen)
    assert sum(len(each.decisions()) for each in pairs) == len(seen.decisions())
    assert [each.names for each in pairs] == [(models[0].name, each.name) for each in models[1:]]
    counts = tree.about["positions"]
    assert counts["keep"] + counts["replace"] + counts["neither"] == len(seen)
    apart = observe([models[0], models[1]], ANSWERS)
    found, alone = pairs[0].decisions(), apart.decisions()
    assert found.replace.tolist() == alone.replace.tolist()
    np.testing.assert_allclose(found.points, alone.points, rtol=1e-4)


def test_other_roles_are_observed_again(seen: Observations) -> None:
    with pytest.raises(InvalidOptionError, match=r"of_models\(1, 0\).*observe them again"):
        seen.of_models(1, 0)


def test_files_and_checkpoints_hold_all_of_it(
    pair: list[LanguageModel], seen: Observations, tmp_path: Path
) -> None:
    seen.save(tmp_path / "seen.npz")
    stored = [Observations.load(tmp_path / "seen.npz")]
    stored += [observe(pair, ANSWERS, checkpoint=tmp_path / "folder") for _ in range(2)]
    for each in stored:
        assert each.names == seen.names
        for ours, theirs in zip([each, *each.alone], [seen, *seen.alone], strict=True):
            for name in ("example", "predicted", "partitions", "slopes", "gaps"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_text_that_fills_a_window_is_cut() -> None:
    draft, assistant = (
        random_over(ZOO[name](), seed=5, max_position_embeddings=150) for name in ("gpt2-400", "characters")
    )
    seen = observe([draft, assistant], [("a b", " long text" * 20), ("a", " b")])
    assert seen.truncated == 1
    assert seen.cut.tolist() == (seen.example == 0).tolist()


def test_without_an_end_token_the_end_is_no_target(pair: list[LanguageModel], seen: Observations) -> None:
    without = observe(pair, ANSWERS, end_token=False)
    assert len(without) < len(seen)
    assert without.decisions().replace.sum() <= seen.decisions().replace.sum()


def test_token_ids_are_text_for_the_others(pair: list[LanguageModel]) -> None:
    draft = pair[0]
    ids = [
        (draft.encode(prompt), draft.encode(completion, add_special_tokens=False))
        for prompt, completion in ANSWERS
    ]
    assert len(observe(pair, ids)) == len(observe(pair, ANSWERS))


def test_a_completion_that_the_draft_cannot_write_is_refused() -> None:
    draft, other = word_tokenizer("<eos>", "the", "cat"), ZOO["characters"]()
    models = [random_over(draft, seed=1), random_over(other, seed=2)]
    with pytest.raises(TrainingDataError, match="cannot represent"):
        observe(models, [("the", " dog")])
