"""Claim: calibration changes how sure a verifier sees the models and nothing else, and is fitted rightly."""

import sys
from itertools import pairwise, product
from math import log, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import (
    AdaptiveSchedule,
    AverageVerifier,
    Calibration,
    CoSDDecoder,
    Grammar,
    InvalidOptionError,
    LanguageModel,
    MissingExtraError,
    Observations,
    RuleVerifier,
    TreeVerifier,
    Verifier,
    observe,
)
from cosd_core.frontend.framework_model import FrameworkModel
from cosd_core.frontend.settings import Settings
from cosd_core.training.calibration import Bin, Reliability
from cosd_core.verifiers import AssistantVerifier, DraftVerifier, Leaf, SpeculativeVerifier, Split
from tests.grids import covering
from tests.models import ascii_model, random_model, table_model, word_tokenizer
from tests.reference import Tree, assert_agrees, write

MODELS = DRAFT, ASSISTANT, SECOND = tuple(ascii_model(seed=seed) for seed in range(3))
PROMPTS = ["x", "Hello, world", "1 + 1 ="]
TREE = TreeVerifier((Split("p", 0.5, 1, 4), Split("q", 0.3, 2, 3), Leaf(False), Leaf(True), Leaf(False)))
VERIFIERS: dict[str, tuple[Verifier, Tree | None]] = {
    "rule": (RuleVerifier(), None),
    "rule 0.9": (RuleVerifier(alpha=0.9, beta=1.1), None),
    "tree": (TREE, lambda p, q: p <= 0.5 and q > 0.3),
    "draft": (DraftVerifier(), None),
    "assistant": (AssistantVerifier(), None),
    "speculative": (SpeculativeVerifier(), None),
    "average": (AverageVerifier(weight=0.4), None),
}
SETTINGS: list[dict[str, Any]] = [
    {"schedule": "fixed", "draft_length": 5},
    {"schedule": AdaptiveSchedule(assistant_cost=5), "draft_length": 16, "batch_size": 2},
    {"schedule": "adaptive", "draft_length": 3, "batch_size": 1},
]
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 1.3, "top_k": 30, "repetition_penalty": 1.2, "seed": 5},
    "masked": {"pattern": "[a-z ]{3,9}!?", "seed": 5, "temperature": 1.0},
}


class TestWhatTheVerifierSees:
    @pytest.mark.parametrize(("name", "kind"), covering(product(VERIFIERS, OPTIONS)))
    def test_is_the_uncached_references(self, name: str, kind: str) -> None:
        verifier, tree = VERIFIERS[name]
        assistants = [ASSISTANT] if name == "speculative" else [ASSISTANT, SECOND]
        calibration = (1.7, 0.6, 3.0)[: 1 + len(assistants)]
        given = {"max_new_tokens": 14, **OPTIONS[kind]}
        written = [
            write(DRAFT, assistants, verifier, each, tree=tree, calibration=calibration, **given)
            for each in PROMPTS
        ]
        if pattern := given.pop("pattern", None):
            given["grammar"] = Grammar.regex(pattern)
        for each in SETTINGS:
            decoder = CoSDDecoder(DRAFT, assistants, verifier=verifier, calibration=calibration, **each)
            for generation, expected in zip(decoder.generate(PROMPTS, **given), written, strict=True):
                assert_agrees(generation, expected, asked=each["schedule"] == "fixed")

    def test_can_be_worked_out_by_eye(self) -> None:
        words = word_tokenizer("<eos>", "the", "cat", "dog")
        draft = table_model(words, {"the": {"cat": 0.64, "dog": 0.36}}, name="draft")
        other = table_model(words, {"the": {"cat": 0.2, "dog": 0.8}}, name="other")
        # 0.64 and 0.36 are squares of 0.8 and 0.6: at temperature 2 the draft is sure by 0.8 / 1.4
        plain, cooled = (
            CoSDDecoder(draft, other, verifier=RuleVerifier(0.6, 0.5), calibration=each).generate(
                "the", max_new_tokens=1
            )
            for each in (None, (2, 1))
        )
        assert (plain.text.strip(), plain.tokens[0].p, plain.tokens[0].q) == (
            "cat",
            pytest.approx(0.64),
            None,
        )
        assert (cooled.text.strip(), cooled.tokens[0].p) == ("dog", pytest.approx(0.8 / 1.4))
        assert cooled.tokens[0].q == pytest.approx(0.8)
        hot = CoSDDecoder(draft, other, verifier="assistant", calibration=(1, 2)).generate(
            "the", max_new_tokens=1
        )
        assert hot.tokens[0].q == pytest.approx(sqrt(0.8) / (sqrt(0.8) + sqrt(0.2)))

    def test_decides_where_the_assistants_are_asked(self) -> None:
        def skipped(temperature: float) -> int:
            decoder = CoSDDecoder(DRAFT, ASSISTANT, calibration=(temperature, 1))
            generations = decoder.generate(PROMPTS, max_new_tokens=20, eos_token_id=[])
            assert all(token.p >= 0.5 for each in generations for token in each.tokens if token.q is None)
            return sum(each.stats.assistant_skipped for each in generations)

        assert skipped(0.2) == 3 * 20
        assert 0 < skipped(1.0) < 3 * 20
        assert skipped(50.0) == 0


@settings(deadline=None, max_examples=25)
@given(
    name=st.sampled_from(["draft", "assistant", "average", "speculative"]),
    calibration=st.tuples(st.floats(0.05, 50), st.floats(0.05, 50)),
    temperature=st.sampled_from([0.0, 0.8, 1.6]),
    prompt=st.sampled_from(PROMPTS),
)
def test_what_baselines_write_does_not_hang_on_it(
    name: str, calibration: tuple[float, float], temperature: float, prompt: str
) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": temperature, "seed": 3}
    plain, calibrated = (
        CoSDDecoder(DRAFT, ASSISTANT, verifier=VERIFIERS[name][0], calibration=each).generate(
            prompt, **options
        )
        for each in (None, calibration)
    )
    assert calibrated.token_ids == plain.token_ids
    assert [token.source for token in calibrated.tokens] == [token.source for token in plain.tokens]


def test_all_ones_is_none_to_the_last_bit() -> None:
    plain, ones = (
        CoSDDecoder(DRAFT, ASSISTANT, calibration=each).generate("x", max_new_tokens=12)
        for each in (None, [1, 1.0])
    )
    assert ones.tokens == plain.tokens


class TestAsASetting:
    def test_it_reaches_the_decoder_from_every_door(self, draft, assistant) -> None:
        pair = {"draft_model": draft, "assistant_model": assistant}
        assert Settings(**pair, calibration=[1.7, 0.9]).decoder().calibration == (1.7, 0.9)
        assert Settings(**pair).decoder().calibration == (1.0, 1.0)
        assert CoSDDecoder.from_pretrained(draft, assistant, calibration=(2, 1)).calibration == (2.0, 1.0)

    def test_decoders_over_shared_models_are_told_apart_by_it(self, draft, assistant) -> None:
        front = FrameworkModel(draft_model=draft, assistant_model=assistant)
        plain = front._decoder()
        front.calibration = (1.7, 0.9)
        calibrated = front._decoder()
        assert (plain.calibration, calibrated.calibration) == ((1.0, 1.0), (1.7, 0.9))
        front.calibration = None
        assert front._decoder() is plain
        assert calibrated.draft is plain.draft

    def test_caches_tell_answers_apart_by_it(self, draft, assistant) -> None:
        pair = {"draft_model": draft, "assistant_model": assistant}
        told = [FrameworkModel(**pair, calibration=each)._settings.identity for each in (None, (1.7, 0.9))]
        assert told[0] != told[1]
        assert told[1]["calibration"] == [1.7, 0.9]

    @pytest.mark.parametrize(
        ("calibration", "words"),
        [
            ((1.0,), "2 numbers"),
            ((1.0, 1.0, 1.0), "2 numbers"),
            ((), "2 numbers"),
            ((1.0, 0.0), "calibration=0.0 should be a finite number between 0.01 and 100"),
            ((1.0, -1.0), "calibration=-1.0"),
            ((float("nan"), 1.0), "calibration=nan"),
            ((float("inf"), 1.0), "calibration=inf"),
        ],
    )
    def test_wrong_values_are_refused_before_anything_is_loaded(self, draft, assistant, calibration, words):
        with pytest.raises(InvalidOptionError, match=words):
            CoSDDecoder(draft, assistant, calibration=calibration)
        with pytest.raises(InvalidOptionError, match=words):
            Settings(draft_model="no/where", assistant_model="no/where", calibration=calibration)

    @pytest.mark.parametrize("calibration", [1.5, "11", ("1", "1"), (True, 1.0), (None, 1.0), {1.0: 1.0}])
    def test_values_of_another_type_too(self, draft, assistant, calibration):
        with pytest.raises(InvalidOptionError, match="calibration"):
            CoSDDecoder(draft, assistant, calibration=calibration)
        with pytest.raises(InvalidOptionError, match="calibration"):
            Settings(draft_model="no/where", assistant_model="no/where", calibration=calibration)


# Fitting


def written_at(temperature: float, model: LanguageModel, count: int = 120) -> list[tuple[str, list[int]]]:
    """Texts that are distributed as the model writes at this temperature."""
    decoder = CoSDDecoder(model, model, verifier="draft")
    prompts = [f"{at} " for at in range(count)]
    generations = decoder.generate(
        prompts, max_new_tokens=25, temperature=temperature, seed=1, eos_token_id=[]
    )
    return [(each.prompt, list(each.token_ids)) for each in generations]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_is_found_at_which_the_texts_were_written(temperature: float) -> None:
    model = random_model(seed=3, sharpness=3.0)
    observations = observe([model, DRAFT], written_at(temperature, model), end_token=False)
    calibration = Calibration.fit(observations)
    assert calibration.temperatures[0] == pytest.approx(temperature, rel=0.05)
    before, after = calibration.before[0], calibration.after[0]
    assert after.loss <= before.loss + 1e-6
    if abs(log(temperature)) > 0.4:
        assert after.error < before.error


def test_the_fit_is_the_best_of_a_fine_grid() -> None:
    observations = observe([DRAFT, ASSISTANT], written_at(1.4, SECOND))
    for model, best in enumerate(Calibration.fit(observations).after):
        losses = [Reliability.of(observations, model, each).loss for each in np.geomspace(0.25, 8, 200)]
        assert best.loss <= min(losses) + 1e-5


def hand_made(sure: list[float], right: list[bool]) -> Observations:
    """One model over two tokens, at temperature 1 only: as sure and as right as is told."""
    count, p = len(sure), np.array(sure)
    partitions = -np.log(p)[:, None, None].repeat(11, 2)
    return Observations(
        names=("one",), example=np.zeros(count, np.int32), truth=np.array(right, np.int32),
        predicted=np.ones((count, 1), np.int32),
        gaps=np.where(right, 0, np.log((1 - p) / p))[:, None].astype(np.float32),
        partitions=partitions.astype(np.float32), slopes=np.zeros((count, 1, 11), np.float32),
        cut=np.zeros(count, np.bool_),
    )  # fmt: skip


def test_loss_error_and_bins_can_be_worked_out_by_eye() -> None:
    found = Reliability.of(hand_made([0.56, 0.6, 0.95, 0.95], [True, False, True, True]), 0)
    assert [each for each in found.bins if each.count] == [
        Bin(0.5, 0.6, 2, pytest.approx(0.58), 0.5),
        Bin(0.9, 1.0, 2, pytest.approx(0.95), 1.0),
    ]
    assert found.error == pytest.approx((0.08 + 0.05) / 2)
    assert found.loss == pytest.approx(-(log(0.56) + log(0.4) + 2 * log(0.95)) / 4)
    assert all(low.high == high.low for low, high in pairwise(found.bins))
    lines = found.diagram().splitlines()
    assert len(lines) == 3
    assert lines[1].split()[:5] == ["0.5", "to", "0.6", "2", "50.0%"]
    assert lines[2].count("#") == 19
    assert lines[1].index("|") - lines[1].index("#") == round(0.58 * 20)


def test_the_report_names_every_model_and_its_temperature() -> None:
    calibration = Calibration.fit(observe([DRAFT, ASSISTANT], written_at(1.0, DRAFT, 10)))
    report = calibration.report()
    for name, temperature in zip(("random-0", "random-1"), calibration.temperatures, strict=True):
        assert f"{name}: temperature {temperature:.2f}" in report


def test_a_reliability_diagram_is_drawn_for_every_model(monkeypatch) -> None:
    calibration = Calibration.fit(observe([DRAFT, ASSISTANT], written_at(1.0, DRAFT, 10)))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match=r"cosd\[plots\]"):
            calibration.plot()
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    axes = calibration.plot()
    assert [each.get_title() for each in axes] == ["random-0", "random-1"]
    pyplot.close("all")


def test_confidences_of_a_softmax_are_what_calibration_says() -> None:
    """The core's calibrated confidence and the observations' are one number."""
    prompt, truth = "Hello", "world"
    observations = observe([DRAFT, ASSISTANT], [(prompt, truth)], end_token=False)
    decoder = CoSDDecoder(DRAFT, ASSISTANT, verifier="assistant", calibration=(2.3, 0.7))
    for at in range(len(truth)):
        token = decoder.generate(prompt + truth[:at], max_new_tokens=1).tokens[0]
        p, q = observations.confidences((2.3, 0.7))[at]
        assert (token.p, token.q) == (pytest.approx(p, abs=2e-3), pytest.approx(q, abs=2e-3))
