"""A tree verifier answers what scikit-learn's answers, is saved without loss, and knows what it cannot do."""

from functools import cache
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
    TreeVerifier,
)
from cosd_core.verifiers import Leaf, Split
from tests.models import random_model

properties = settings(deadline=None, max_examples=80)
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
    pytest.param(lambda: Classifier().fit([[0.1], [0.2]], [0, 1]), "two columns", id="one-feature"),
    pytest.param(lambda: Classifier().fit([[1, 2, 3]] * 2, [0, 1]), "two columns", id="three-features"),
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
