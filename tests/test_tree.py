"""A tree verifier answers what scikit-learn's answers, is saved without loss, and knows what it cannot do.

It is learned from what models thought of true texts, and explains itself.
"""

import json
import sys
from dataclasses import asdict, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from cosd_core import (
    AdaptiveSchedule,
    CoSDDecoder,
    CoSDError,
    FixedSchedule,
    InvalidOptionError,
    LanguageModel,
    MissingExtraError,
    Observations,
    TrainingDataError,
    TreeVerifier,
    VerifierFileError,
    observe,
)
from cosd_core.frontend.settings import Settings as CoreSettings
from cosd_core.verifiers import Leaf, Split
from tests.grids import exhaustive
from tests.models import random_model

properties = settings(deadline=None, max_examples=30)
shares = st.floats(0, 1, allow_subnormal=False)


@cache
def fitted(seed: int, samples: int, depth: int | None, grid: int | None) -> DecisionTreeClassifier:
    """A tree over random points; on a grid, many points share a coordinate and thresholds lie between."""
    random = np.random.default_rng(seed)
    points = (
        random.random((samples, 2)) if grid is None else random.integers(0, grid + 1, (samples, 2)) / grid
    )
    labels = random.integers(0, 2, samples)
    return DecisionTreeClassifier(max_depth=depth, random_state=seed).fit(points, labels)


classifiers = st.builds(
    fitted, st.integers(0, 40), st.sampled_from([1, 2, 5, 40]), st.sampled_from([1, 2, 4, None]),
    st.sampled_from([None, 1, 3, 10]),
)  # fmt: skip


def thresholds(classifier: DecisionTreeClassifier) -> list[float]:
    return [float(value) for value in classifier.tree_.threshold if value >= 0] or [0.5]


def neighbours(value: float) -> list[float]:
    """The value, and the numbers next to it in float64 and in float32."""
    single = np.float32(value)
    near = [value, *np.nextafter(value, [0.0, 2.0]), single, *np.nextafter(single, np.float32([0, 2]))]
    return [float(each) for each in near]


@st.composite
def points(draw: st.DrawFn, classifier: DecisionTreeClassifier) -> tuple[float, float]:
    near = st.sampled_from(thresholds(classifier)).flatmap(lambda value: st.sampled_from(neighbours(value)))
    return draw(near | shares), draw(near | shares)


@properties
@given(data=st.data(), classifier=classifiers)
def test_the_answer_is_scikit_learns_also_on_thresholds_and_next_to_them(data, classifier):
    tree = TreeVerifier.from_classifier(classifier)
    asked = data.draw(st.lists(points(classifier), min_size=1, max_size=20))
    expected = classifier.predict(np.array(asked)).tolist()
    assert [tree.replaces(p, q) for p, q in asked] == [answer == 1 for answer in expected]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trees")


@properties
@given(
    classifier=classifiers, about=st.dictionaries(st.text(max_size=5), st.floats(0, 1) | st.text(max_size=5))
)
def test_a_saved_tree_comes_back_exactly(folder, classifier, about):
    tree = TreeVerifier.from_classifier(classifier, about=about)
    tree.save(folder / "tree.json")
    loaded = TreeVerifier.load(folder / "tree.json")
    assert loaded == tree
    assert loaded.about == tree.about == about
    assert [*map(repr, loaded.nodes)] == [*map(repr, tree.nodes)]
    loaded.save(str(folder / "again.json"))
    assert (folder / "again.json").read_bytes() == (folder / "tree.json").read_bytes()


@properties
@given(data=st.data(), classifier=classifiers)
def test_a_p_that_cannot_be_replaced_is_not_replaced_at_any_q(data, classifier):
    tree = TreeVerifier.from_classifier(classifier)
    p, q = data.draw(points(classifier))
    if tree.replaces(p, q):
        assert tree.can_replace(p)


@properties
@given(data=st.data(), classifier=classifiers)
def test_a_p_can_be_replaced_exactly_if_some_q_does_it(data, classifier):
    tree = TreeVerifier.from_classifier(classifier)
    p, _ = data.draw(points(classifier))
    candidates = [0.0, 1.0, *(near for value in thresholds(classifier) for near in neighbours(value))]
    assert tree.can_replace(p) == any(tree.replaces(p, q) for q in candidates)


def test_a_p_without_a_leaf_that_replaces_is_safe():
    tree = TreeVerifier((Split("p", 0.5, 1, 2), Split("q", 0.25, 3, 4), Leaf(False), Leaf(False), Leaf(True)))
    assert tree.can_replace(0.5)
    assert not tree.can_replace(0.500001)
    assert not tree.can_replace(1.0)
    assert tree.replaces(0.5, 0.26)
    assert not tree.replaces(0.5, 0.25)


def test_a_p_is_rounded_to_float32_before_either_question():
    tree = TreeVerifier((Split("p", 0.5, 1, 2), Leaf(True), Leaf(False)))
    just_above = float(np.nextafter(0.5, 1.0))
    assert tree.replaces(just_above, 0.9)
    assert tree.can_replace(just_above)


def stripes(first: int, last: int) -> list[Split | Leaf]:
    """A balanced tree over p, leaves in turn: intervals of equal width replace and do not."""
    if last - first == 1:
        return [Leaf(first % 2 == 0)]
    middle = (first + last) // 2
    left, right = stripes(first, middle), stripes(middle, last)
    moved = [
        replace(node, left=node.left + at, right=node.right + at) if isinstance(node, Split) else node
        for at, side in ((1, left), (1 + len(left), right))
        for node in side
    ]
    return [Split("p", middle / 4096, 1, 1 + len(left)), *moved]


def test_the_largest_tree_answers_from_sorted_disjoint_intervals():
    tree = TreeVerifier(tuple(stripes(0, 4096)))
    assert [tree.can_replace((at + 0.5) / 4096) for at in range(4096)] == [True, False] * 2048
    bounds = tree._replaceable_bounds
    assert len(bounds) == 4096
    assert all(low < high for low, high in pairwise(bounds))


@pytest.mark.parametrize(("splits", "problem"), [(100, "101 levels"), (10_000, "20001, at most 20000")])
def test_a_tree_that_would_slow_decoding_down_is_refused(splits: int, problem: str, tmp_path: Path) -> None:
    nodes: list[Split | Leaf] = []
    for at in range(splits):
        nodes += [Split("p", 1 - at / splits, 2 * at + 2, 2 * at + 1), Leaf(bool(at % 2))]
    with pytest.raises(InvalidOptionError, match=problem):
        TreeVerifier((*nodes, Leaf(True)))
    entries = list(map(asdict, (*nodes, Leaf(True))))
    file = {"format": "cosd-tree", "version": 1, "features": ["p", "q"], "nodes": entries}
    (tmp_path / "tree.json").write_text(json.dumps(file))
    with pytest.raises(VerifierFileError, match=problem):
        TreeVerifier.load(tmp_path / "tree.json")


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("kind", [int, float, bool])
def test_a_tree_of_one_class_is_one_leaf(label, kind):
    tree = TreeVerifier.from_classifier(
        DecisionTreeClassifier().fit([[0.1, 0.2], [0.3, 0.4]], [kind(label)] * 2)
    )
    assert tree.nodes == (Leaf(bool(label)),)
    assert tree.can_replace(0.3) is tree.replaces(0.3, 0.9) is bool(label)


def test_columns_named_p_and_q_are_taken():
    classifier = DecisionTreeClassifier().fit([[0.0, 1.0], [1.0, 0.0]], [1, 0])
    classifier.feature_names_in_ = np.array(["p", "q"], dtype=object)
    assert TreeVerifier.from_classifier(classifier).replaces(0.0, 1.0)
    classifier.feature_names_in_ = np.array(["q", "p"], dtype=object)
    with pytest.raises(InvalidOptionError, match="'q', 'p'"):
        TreeVerifier.from_classifier(classifier)


Classifier = DecisionTreeClassifier
SQUARE = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
REFUSED = [
    pytest.param(lambda: Classifier(), "not fitted", id="not-fitted"),
    pytest.param(lambda: Classifier().fit([[0.1], [0.2]], [0, 1]), "the columns", id="one-feature"),
    pytest.param(lambda: Classifier().fit([[1, 2, 3]] * 2, [0, 1]), "the columns", id="three-features"),
    pytest.param(lambda: Classifier().fit(SQUARE, [0, 1, 2, 0]), r"\[0, 1, 2\]", id="three-labels"),
    pytest.param(lambda: Classifier().fit(SQUARE, [-1, 1, 1, 1]), r"\[-1, 1\]", id="minus-one"),
    pytest.param(lambda: Classifier().fit(SQUARE, list("abab")), "'a', 'b'", id="text-labels"),
    pytest.param(lambda: Classifier().fit(SQUARE, [[0, 1]] * 4), "0 or 1", id="two-outputs"),
    pytest.param(lambda: RandomForestClassifier(2).fit(SQUARE, [0, 1, 0, 1]), "RandomForest", id="forest"),
    pytest.param(lambda: DecisionTreeRegressor().fit(SQUARE, [0, 1, 0, 1]), "Regressor", id="regressor"),
    pytest.param(lambda: Classifier, "DecisionTreeClassifier", id="a-class"),
    pytest.param(lambda: None, "None", id="none"),
]


@pytest.mark.parametrize(("make", "named"), REFUSED)
def test_another_estimator_is_refused_with_what_it_is(make, named):
    with pytest.raises(CoSDError, match=named) as caught:
        TreeVerifier.from_classifier(make())
    assert isinstance(caught.value, InvalidOptionError)
    assert len(str(caught.value).splitlines()) == 1


@exhaustive
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 40),
    length=st.integers(1, 8),
    temperature=st.sampled_from([0.0, 1.0]),
    cost=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_lazy_decoding_with_a_tree_writes_the_fixed_schedules_text(seed, length, temperature, cost):
    tree = TreeVerifier.from_classifier(fitted(seed, 40, 4, None))
    options: dict[str, Any] = {
        "max_new_tokens": 30,
        "temperature": temperature,
        "seed": 1,
        "eos_token_id": [],
    }
    pair = random_model(seed=0), random_model(seed=1)
    fixed = CoSDDecoder(*pair, verifier=tree, schedule=FixedSchedule(), draft_length=8)
    lazy = CoSDDecoder(*pair, verifier=tree, schedule=AdaptiveSchedule(cost), draft_length=length)
    expected = fixed.generate("The capital", **options)
    assume(expected.stats.replaced)
    assert lazy.generate("The capital", **options).token_ids == expected.token_ids


def test_lazy_decoding_skips_what_a_tree_cannot_replace():
    tree = TreeVerifier((Split("p", 0.2, 1, 2), Leaf(True), Leaf(False)))
    decoder = CoSDDecoder(random_model(seed=0), random_model(seed=1), verifier=tree)
    result = decoder.generate("The capital", max_new_tokens=40, eos_token_id=[])
    assert result.stats.assistant_skipped > 0
    assert all(token.p > 0.2 for token in result.tokens if token.q is None)


# Explaining


@properties
@given(data=st.data(), classifier=classifiers)
def test_the_simplified_tree_gives_the_same_answers_with_no_split_in_vain(data, classifier):
    tree = TreeVerifier.from_classifier(classifier)
    simple = tree.simplified()
    assert len(simple.nodes) <= len(tree.nodes)
    for p, q in data.draw(st.lists(points(classifier), min_size=1, max_size=20)):
        assert simple.replaces(p, q) == tree.replaces(p, q)
        assert simple.can_replace(p) == tree.can_replace(p)
    for node in simple.nodes:
        if isinstance(node, Split):
            children = simple.nodes[node.left], simple.nodes[node.right]
            assert children[0] != children[1] or isinstance(children[0], Split)
    assert simple.simplified() == simple


@properties
@given(data=st.data(), classifier=classifiers)
def test_every_point_lies_in_one_region_which_has_its_answer(data, classifier):
    tree = TreeVerifier.from_classifier(classifier)
    p, q = (float(np.float32(each)) for each in data.draw(points(classifier)))
    around = [
        region for region in tree.regions
        if region.p[0] < p <= region.p[1] and region.q[0] < q <= region.q[1]
    ]  # fmt: skip
    assert [region.replace for region in around] == [tree.replaces(p, q)]


def test_the_rules_and_the_drawing_can_be_read():
    tree = TreeVerifier((
        Split("p", 0.5, 1, 6), Split("q", 0.25, 2, 3), Leaf(False), Split("p", 0.1, 4, 5), Leaf(True),
        Leaf(False), Split("q", 0.9, 7, 8), Leaf(False), Leaf(True),
    ))  # fmt: skip
    said = tree.explain().splitlines()
    assert said[:3] == [
        "y replaces a different x",
        "  if p <= 0.1 and q > 0.25",
        "  or if p > 0.5 and q > 0.9",
    ]
    drawn = said[5:25]
    assert drawn[0] == "1 #####" + "." * 20 + "#" * 25
    assert drawn[1] == "  #####" + "." * 20 + "#" * 25
    assert drawn[2] == "  #####" + "." * 45
    assert drawn[14] == drawn[2]
    assert drawn[15] == "  " + "." * 50
    assert drawn[19] == "0 " + "." * 50


@pytest.mark.parametrize(("answer", "said"), [(True, "  if always"), (False, "  never")])
def test_a_tree_of_one_leaf_says_so(answer, said):
    assert TreeVerifier((Leaf(answer),)).explain().splitlines()[1] == said


def test_the_regions_are_drawn_with_matplotlib_where_it_is(monkeypatch):
    tree = TreeVerifier((Split("p", 0.5, 1, 2), Leaf(True), Leaf(False)))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match=r"cosd\[plots\]"):
            tree.plot()
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    axes = tree.plot()
    assert len(axes.patches) == 2
    assert tree.plot(axes) is axes
    pyplot.close("all")


# Learning


def seen(decide: Any, *, examples: int, seed: int = 0, noise: float = 0.0) -> Observations:
    """Two models over three tokens that never agree; which of them is right follows from (p, q)."""
    random = np.random.default_rng(seed)
    count = 20 * examples
    sure = random.random((count, 2))
    replace = np.array([decide(p, q) for p, q in sure]) ^ (random.random(count) < noise)
    picks = np.tile([0, 1], (count, 1))
    partitions = np.repeat(-np.log(sure)[:, :, None], 11, 2)
    return Observations(
        names=("one", "two"), example=np.repeat(np.arange(examples), 20).astype(np.int32),
        truth=np.where(replace, 1, 0).astype(np.int32), predicted=picks.astype(np.int32),
        gaps=np.zeros((count, 2), np.float32),
        partitions=partitions.astype(np.float32), slopes=np.zeros((count, 2, 11), np.float32),
        cut=np.zeros(count, np.bool_),
    )  # fmt: skip


def read(*models: LanguageModel) -> Observations:
    """What models thought of texts that the first and the last of them wrote."""
    prompts = ["The capital", "x", "1 + 1 ="]
    texts = [
        (prompt, each.token_ids)
        for name in ("draft", "assistant")
        for prompt, each in zip(
            prompts,
            CoSDDecoder(models[0], models[-1], verifier=name).generate(
                prompts, max_new_tokens=30, eos_token_id=[]
            ),
            strict=True,
        )
    ]
    return observe(models, texts, end_token=False)


def test_a_rule_is_found_again():
    tree = TreeVerifier.fit(seen(lambda p, q: p < 0.4 and q > 0.3, examples=100))
    answers = [
        tree.replaces(p, q) == (p < 0.4 and q > 0.3)
        for p in np.linspace(0.02, 0.98, 25)
        for q in np.linspace(0.02, 0.98, 25)
    ]
    assert np.mean(answers) > 0.97
    assert tree.about["chosen"]["depth"] == 2
    assert tree.about["chosen"]["accuracy"] > 0.97
    assert "p <=" in tree.explain()


def test_the_simplest_tree_within_one_standard_error_is_taken():
    found = seen(lambda p, _: p < 0.5, examples=60, noise=0.2)
    tree = TreeVerifier.fit(found)
    assert tree.about["chosen"]["depth"] == 1
    assert len(tree.nodes) == 3
    assert abs(tree.nodes[0].threshold - 0.5) < 0.1


def test_what_is_told_of_it_is_counted_and_saved(tmp_path):
    found = read(random_model(seed=0), random_model(seed=1))
    tree = TreeVerifier.fit(found, calibration=(1.5, 0.8))
    right, agreement = found.right, found.agreement[:, 0]
    about = tree.about
    assert about["pair"] == ["random-0", "random-1"]
    assert about["examples"] == 6
    assert about["positions"] == {
        "keep": int(right[:, 0].sum()),
        "replace": int((~right[:, 0] & right[:, 1]).sum()),
        "neither": int((~right.any(1)).sum()),
        "agreeing": int((agreement & right[:, 0]).sum()),
    }
    assert about["calibration"] == [1.5, 0.8]
    assert set(about["versions"]) == {"cosd", "scikit-learn"}
    tree.save(tmp_path / "tree.json")
    assert TreeVerifier.load(tmp_path / "tree.json").about == about


def test_positions_where_all_agree_can_be_left_out():
    found = read(random_model(seed=0), random_model(seed=0))
    assert found.agreement.all()
    assert TreeVerifier.fit(found).nodes == (Leaf(False),)
    with pytest.raises(TrainingDataError, match="nothing to learn"):
        TreeVerifier.fit(found, agreeing=False)


def test_one_example_is_enough_for_the_smallest_tree():
    tree = TreeVerifier.fit(seen(lambda p, _: p < 0.5, examples=1))
    assert tree.about["chosen"] is None
    assert len(tree.nodes) == 3


def test_several_assistants_are_learned_together():
    found = read(*(random_model(seed=seed) for seed in range(3)))
    both, *each = [found, found.of_models(0, 1), found.of_models(0, 2)]
    counts = [one.decisions() for one in (both, *each)]
    assert len(counts[0]) == len(counts[1]) + len(counts[2])
    assert TreeVerifier.fit(found).about["pair"] == ["random-0", "random-1", "random-2"]


@pytest.mark.parametrize("limits", [{"depths": []}, {"depths": [0]}, {"leaves": [1.5]}, {"leaves": [True]}])
def test_wrong_limits_are_refused(limits):
    with pytest.raises(InvalidOptionError, match=next(iter(limits))):
        TreeVerifier.fit(seen(lambda p, _: p < 0.5, examples=3), **limits)


def test_a_tree_brings_the_temperatures_that_it_was_learned_at(tmp_path):
    draft, assistant, third = (random_model(seed=seed) for seed in range(3))
    tree = TreeVerifier.fit(read(draft, assistant), calibration=(1.6, 0.7))
    tree.save(path := tmp_path / "tree.json")
    pair = {"draft_model": draft, "assistant_model": assistant}
    for decoder in (
        CoSDDecoder(draft, assistant, verifier=TreeVerifier.load(path)),
        CoSDDecoder(draft, assistant, verifier=tree.to_dict()),
        CoreSettings(**pair, verifier="tree", tree_path=str(path)).decoder(),
    ):
        assert decoder.calibration == (1.6, 0.7)
    assert CoSDDecoder(draft, assistant, verifier=tree, calibration=(1, 2)).calibration == (1.0, 2.0)
    plain = TreeVerifier.fit(read(draft, third))
    assert CoSDDecoder(draft, third, verifier=plain).calibration == (1.0, 1.0)
    panel = CoSDDecoder(draft, [third, assistant], verifier=["rule", tree])
    assert panel.calibration == (1.6, 1.0, 0.7)
    other = TreeVerifier.fit(read(draft, third), calibration=(1.2, 0.9))
    with pytest.raises(InvalidOptionError, match="2 temperatures of the draft"):
        CoSDDecoder(draft, [third, assistant], verifier=[other, tree])
    with pytest.raises(InvalidOptionError, match="calibration"):
        CoSDDecoder(draft, [assistant, third], verifier=tree)
    for hostile in ("hot", [1, "x"], {}, [1e9, 1]):
        wrong = TreeVerifier(tree.nodes, {"calibration": hostile})
        with pytest.raises(InvalidOptionError, match="calibration"):
            CoSDDecoder(draft, assistant, verifier=wrong)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 5), length=st.integers(1, 8), cost=st.sampled_from([0.1, 1.0, 10.0]))
def test_lazy_decoding_with_a_learned_tree_writes_the_fixed_schedules_text(seed, length, cost):
    pair = random_model(seed=seed), random_model(seed=seed + 1)
    calibration = (1.6, 0.7)
    tree = TreeVerifier.fit(read(*pair), calibration=calibration)
    shared: dict[str, Any] = {"verifier": tree, "calibration": calibration}
    fixed = CoSDDecoder(*pair, schedule=FixedSchedule(), **shared)
    lazy = CoSDDecoder(*pair, schedule=AdaptiveSchedule(cost), draft_length=length, **shared)
    expected, written = (
        each.generate("The capital", max_new_tokens=30, eos_token_id=[]) for each in (fixed, lazy)
    )
    assert written.token_ids == expected.token_ids
    skipped = [token for token in written.tokens if token.q is None]
    assume(skipped)
    assert not any(tree.can_replace(token.p) for token in skipped)
