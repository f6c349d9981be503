"""A wide tree sees the same numbers where it learns and where it judges, and is else a tree as any other."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

from cosd_core import (
    AdaptiveSchedule,
    AverageVerifier,
    CoSDDecoder,
    FixedSchedule,
    InvalidOptionError,
    Leaf,
    Observations,
    Prediction,
    RuleVerifier,
    Settings,
    Split,
    TreeVerifier,
    Verifier,
    VerifierFileError,
    VocabularyMismatchError,
    WideTreeVerifier,
    observe,
)
from cosd_core.demo import KINDS, held_out, load_pair
from cosd_core.evaluation.likelihood import Continuation, log_likelihoods
from cosd_core.verifiers import Position, load_tree, make_verifier
from cosd_core.verifiers.features import FEATURES, MEANINGS, Further
from examples.bundled_pairs import load_words_pair
from tests.models import random_model
from tests.test_tree import read

PROMPTS = ["The capital", "x", "1 + 1 =", "a b c"]
AVERAGING = WideTreeVerifier((Split("lead", 0.0, 1, 2), Leaf(False), Leaf(True)))
shares = st.floats(0, 1, allow_subnormal=False)


@st.composite
def wide_trees(draw: st.DrawFn) -> WideTreeVerifier:
    """A tree of up to three splits, over any features."""

    def split(left: int, right: int) -> Split:
        name = draw(st.sampled_from(FEATURES))
        scale = 4.0 if "entropy" in name else 1.0
        return Split(name, draw(st.floats(-0.5 if name == "lead" else 0, 1)) * scale, left, right)

    answers = [Leaf(draw(st.booleans())) for _ in range(4)]
    return WideTreeVerifier((split(1, 2), split(3, 4), split(5, 6), *answers))


def thought(*weights: float, confidence: float | None = None) -> Prediction:
    """What a model with these probabilities would write greedily."""
    logits = torch.tensor(weights, dtype=torch.float64).log()
    best = max(range(len(weights)), key=lambda at: weights[at])
    return Prediction(best, weights[best] if confidence is None else confidence, logits)


# What it sees


def test_the_features_by_eye() -> None:
    seen = Further.of(thought(0.5, 0.25, 0.25, 0), thought(0.2, 0.7, 0.1, 0))
    assert seen.p_of_y == pytest.approx(0.25)
    assert seen.q_of_x == pytest.approx(0.2)
    assert seen.lead == pytest.approx(0.7 + 0.25 - 0.5 - 0.2)
    assert (seen.p_margin, seen.q_margin) == (pytest.approx(0.25), pytest.approx(0.5))
    assert seen.p_entropy == pytest.approx(1.5 * np.log(2))
    assert seen.q_entropy == pytest.approx(-sum(each * np.log(each) for each in (0.2, 0.7, 0.1)))


def test_calibration_moves_the_confidences_alone() -> None:
    draft, opinion = thought(0.5, 0.3, 0.2), thought(0.2, 0.7, 0.1)
    hot = thought(0.5, 0.3, 0.2, confidence=0.4)
    assert Further.of(hot, opinion) == Further.of(draft, opinion)
    by_p = WideTreeVerifier((Split("p", 0.45, 1, 2), Leaf(True), Leaf(False)))
    assert by_p.judge(Position(hot, (opinion,)))
    assert not by_p.judge(Position(draft, (opinion,)))


def test_swapped_features_are_those_of_swapped_roles() -> None:
    one, other = thought(0.5, 0.3, 0.2), thought(0.15, 0.25, 0.6)
    assert Further.of(one, other).swapped() == Further.of(other, one)


def test_every_feature_is_told_in_words() -> None:
    assert tuple(MEANINGS) == FEATURES


class Recording(Verifier):
    """The rule, and everything that a wide tree would have seen."""

    name = "recording"
    needs_logits = True

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def judge(self, position: Position) -> Any:
        assert position.opinions
        [opinion], draft = position.opinions, position.draft
        further = Further.of(draft, opinion)._asdict()
        self.seen.append({"p": draft.confidence, "q": opinion.confidence, **further})
        return RuleVerifier(0.9, 0.3).judge(position)


@pytest.mark.parametrize("calibration", [None, (1.7, 0.6)])
def test_learning_and_judging_see_the_same_numbers(calibration: tuple[float, float] | None) -> None:
    pair = random_model(seed=0), random_model(seed=1)
    recording = Recording()
    decoder = CoSDDecoder(
        *pair, verifier=recording, schedule=FixedSchedule(), draft_length=1, calibration=calibration
    )
    for prompt in PROMPTS:
        written = decoder.generate(prompt, max_new_tokens=30, eos_token_id=[])
        observed = observe(pair, [(prompt, written.token_ids)], end_token=False).features(calibration)
        assert set(observed) == set(FEATURES)
        judged = {name: [each[name] for each in recording.seen] for name in FEATURES}
        for name in FEATURES:
            # calibrated confidences are interpolated while learning
            tolerance = 2e-3 if calibration and name in "pq" else 1e-5
            np.testing.assert_allclose(observed[name][:, 0], judged[name], atol=tolerance, err_msg=name)
        recording.seen.clear()


# What it writes


@pytest.mark.parametrize("seed", range(6))
def test_over_p_and_q_alone_it_is_the_papers_tree(seed: int) -> None:
    random = np.random.default_rng(seed)
    classifier = DecisionTreeClassifier(max_depth=3, random_state=seed)
    plain = TreeVerifier.from_classifier(classifier.fit(random.random((40, 2)), random.integers(0, 2, 40)))
    wide = WideTreeVerifier(plain.nodes)
    models = [random_model(seed=seed), random_model(seed=seed + 1), random_model(seed=seed + 2)]
    for temperature in (0.0, 1.0):
        options: dict[str, Any] = {"max_new_tokens": 25, "temperature": temperature, "seed": 3}
        expected, written = (
            CoSDDecoder(models[0], models[1:], verifier=each).generate(PROMPTS, **options)
            for each in (plain, wide)
        )
        assert [each.token_ids for each in written] == [each.token_ids for each in expected]
    assert all(wide.can_replace(p) == plain.can_replace(p) for p in np.linspace(0, 1, 50))


@settings(deadline=None, max_examples=40)
@given(
    tree=wide_trees(),
    seed=st.integers(0, 5),
    length=st.integers(1, 8),
    temperature=st.sampled_from([0.0, 1.0]),
    cost=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_lazy_batches_write_the_fixed_schedules_texts(tree, seed, length, temperature, cost) -> None:
    pair = random_model(seed=seed), random_model(seed=seed + 1)
    options: dict[str, Any] = {"max_new_tokens": 20, "temperature": temperature, "seed": 1}
    fixed = CoSDDecoder(*pair, verifier=tree, schedule=FixedSchedule(), draft_length=1)
    lazy = CoSDDecoder(*pair, verifier=tree, schedule=AdaptiveSchedule(cost), draft_length=length)
    expected = [fixed.generate(prompt, **options).token_ids for prompt in PROMPTS]
    written = lazy.generate(PROMPTS, **options)
    assert [each.token_ids for each in written] == expected
    for token in (token for each in written for token in each.tokens if token.q is None):
        assert not tree.can_replace(token.p)


def test_by_the_lead_it_writes_what_averaging_writes() -> None:
    facts, arithmetic = load_pair()
    prompts = [question.prompt for kind in KINDS for question in held_out(kind, 25)]
    for pair in ((facts, arithmetic), (arithmetic, facts)):
        by_lead, averaged = (
            CoSDDecoder(*pair, verifier=each).generate(prompts, max_new_tokens=48)
            for each in (AVERAGING, AverageVerifier())
        )
        assert sum(each.stats.replaced for each in by_lead) > 50
        # where a third token leads the mixture, averaging writes that one
        assert [each.text for each in by_lead] == [each.text for each in averaged]


def test_of_several_assistants_the_most_confident_that_is_preferred_wins() -> None:
    draft = thought(0.5, 0.3, 0.1, 0.1)
    likes_x, second, third = thought(0.3, 0.2, 0.1, 0.4), thought(0.0, 0.6, 0.4, 0.0), thought(0, 0.1, 0.9, 0)
    tree = WideTreeVerifier((Split("q_of_x", 0.2, 1, 2), Leaf(True), Leaf(False)))
    verdict = tree.judge(Position(draft, (likes_x, second, third)))
    assert verdict is not None
    assert (verdict.id, verdict.assistant_index) == (2, 2)
    assert tree.judge(Position(draft, (likes_x,))) is None


# Learning


def follows(feature: str, threshold: float) -> Observations:
    """What two random models thought, as if the one were right that a split on a feature says."""
    found = read(random_model(seed=0), random_model(seed=1))
    assert not found.agreement.all()
    replace = found.features()[feature][:, 0] > threshold
    truth = np.where(replace, found.picks[:, 1], found.picks[:, 0])
    return Observations(
        **{name: getattr(found, name) for name in found.__dataclass_fields__ if name != "truth"}, truth=truth
    )


@pytest.mark.parametrize(("feature", "threshold"), [("lead", 0.0), ("q_margin", 0.3), ("p_entropy", 1.5)])
def test_it_finds_the_feature_that_decides(feature: str, threshold: float) -> None:
    found = follows(feature, threshold)
    tree = WideTreeVerifier.fit(found, agreeing=False)
    [split] = [node for node in tree.nodes if isinstance(node, Split)]
    assert split.feature == feature
    assert abs(split.threshold - threshold) < 0.1
    assert tree.about["chosen"]["accuracy"] > 0.97


def test_it_is_told_as_an_outline() -> None:
    tree = WideTreeVerifier(
        (Split("lead", 0.05, 1, 2), Leaf(False), Split("q_entropy", 1.5, 3, 4), Leaf(True), Leaf(False))
    )
    assert tree.explain() == "\n".join([
        "of a different y:",
        "  lead <= 0.05",
        "    x stays",
        "  lead > 0.05",
        "    q_entropy <= 1.5",
        "      y replaces x",
        "    q_entropy > 1.5",
        "      x stays",
        "",
        f"  lead: {MEANINGS['lead']}",
        f"  q_entropy: {MEANINGS['q_entropy']}",
    ])  # fmt: skip
    assert WideTreeVerifier((Leaf(True),)).explain() == "of a different y:\n  y replaces x"
    assert tree.reason(0.5, 0.25, replaced=True) == "the wide tree says replace (p = 0.50, q = 0.25)"


# Where it is taken


def test_its_file_is_taken_wherever_a_trees_is(tmp_path) -> None:
    learned = WideTreeVerifier.fit(follows("lead", 0.0), calibration=(1.5, 0.8))
    learned.save(path := tmp_path / "wide.json")
    assert WideTreeVerifier.load(path) == learned == load_tree(path) == make_verifier(learned.to_dict())
    pair = {"draft_model": random_model(seed=0), "assistant_model": random_model(seed=1)}
    for chosen in ({"verifier": "tree", "tree_path": str(path)}, {"verifier": learned.to_dict()}):
        decoder = Settings(**pair, **chosen).decoder()
        assert decoder.verifier == learned
        assert decoder.calibration == (1.5, 0.8)


def test_a_deep_tree_is_told_too() -> None:
    depth = 3000
    nodes: list[Split | Leaf] = []
    for at in range(depth):
        nodes += [Split("lead", at / depth, 2 * at + 1, 2 * at + 2), Leaf(False)]
    told = WideTreeVerifier((*nodes, Leaf(True))).explain()
    assert told.count("x stays") == depth
    assert told.count("y replaces x") == 1


def test_the_two_kinds_of_files_are_told_apart(tmp_path) -> None:
    wide, plain = tmp_path / "wide.json", tmp_path / "plain.json"
    AVERAGING.save(wide)
    TreeVerifier((Leaf(True),)).save(plain)
    with pytest.raises(VerifierFileError, match=r"features .*p_entropy.* should be \['p', 'q'\]"):
        TreeVerifier.load(wide)
    with pytest.raises(VerifierFileError, match=r"features \['p', 'q'\] should be .*p_entropy"):
        WideTreeVerifier.load(plain)
    content = json.loads(wide.read_text())
    content["features"] = content["features"][:4]
    wide.write_text(json.dumps(content))
    with pytest.raises(VerifierFileError, match=r"should be \['p', 'q'\] or \['p', 'q', 'p_of_y'"):
        load_tree(wide)


def test_features_that_a_tree_has_not_are_refused(tmp_path) -> None:
    nodes = (Split("lead", 0.0, 1, 2), Leaf(False), Leaf(True))
    with pytest.raises(InvalidOptionError, match="asks for feature 'lead'"):
        TreeVerifier(nodes)
    with pytest.raises(InvalidOptionError, match="asks for feature 'r'"):
        WideTreeVerifier((Split("r", 0.0, 1, 2), Leaf(False), Leaf(True)))
    with pytest.raises(InvalidOptionError, match="threshold 'low'"):
        WideTreeVerifier((Split("lead", "low", 1, 2), Leaf(False), Leaf(True)))  # type: ignore[arg-type]
    for about in ("abc", ["abc"], [["a", 1]], 3):
        with pytest.raises(InvalidOptionError, match="about="):
            make_verifier({"name": "wide-tree", "nodes": [{"replace": True}], "about": about})
    with pytest.raises(InvalidOptionError, match="p_entropy"):
        WideTreeVerifier.from_classifier(DecisionTreeClassifier().fit([[0.1, 0.2], [0.3, 0.4]], [0, 1]))


def test_what_it_cannot_do_is_said() -> None:
    one, other = random_model(seed=0), random_model(seed=1)
    with pytest.raises(InvalidOptionError, match=r"WideTreeVerifier\.load"):
        CoSDDecoder(one, other, verifier="wide-tree")
    with pytest.raises(InvalidOptionError, match=r"wide-tree.*two confidences"):
        CoSDDecoder(one, [other, other], verifier=[AVERAGING, "rule"])
    facts, _ = load_pair()
    _, arithmetic = load_words_pair()
    with pytest.raises(VocabularyMismatchError, match="wide-tree"):
        CoSDDecoder(facts, arithmetic, verifier=AVERAGING)


def test_likelihoods_are_those_of_whose_token_stands() -> None:
    pair = random_model(seed=0), random_model(seed=1)
    nodes = (Split("p", 0.6, 1, 2), Leaf(True), Leaf(False))
    texts = [Continuation((ids, ids), (7, 50, 101)) for ids in ((65, 66), (70,), (80, 81, 82))]
    plain, wide = (
        log_likelihoods(CoSDDecoder(*pair, verifier=kind(nodes)), texts)
        for kind in (TreeVerifier, WideTreeVerifier)
    )
    assert wide == plain
    greedy = CoSDDecoder(*pair, verifier=AVERAGING).generate("Hello", max_new_tokens=6, eos_token_id=[])
    ids = tuple(pair[0].tokenizer("Hello")["input_ids"])
    [found] = log_likelihoods(
        CoSDDecoder(*pair, verifier=AVERAGING), [Continuation((ids, ids), greedy.token_ids)]
    )
    assert found.greedy
