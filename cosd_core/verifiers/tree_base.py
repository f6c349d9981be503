"""What learned trees have in common: their nodes, their learning and their file.

A saved tree is data, never code: a JSON object that is checked node by node when it is read::

    {"format": "cosd-tree", "version": 1, "features": ["p", "q"],
     "nodes": [{"feature": "q", "threshold": 0.83, "left": 1, "right": 2},
               {"replace": false}, {"replace": true}],
     "about": {"pair": ["org/a", "org/b"], "calibration": null}}

Node 0 is the root; a position goes left where its feature is at most the threshold. ``about`` is text and
numbers for people, but for the temperatures that the tree was learned at.
"""

import json
import struct
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from cosd_core.errors import InvalidOptionError, VerifierFileError, quoted
from cosd_core.options import check_calibration
from cosd_core.verifiers.base import PairwiseVerifier
from cosd_core.verifiers.nodes import Leaf, Node, Split, no_tree, read_node, write_node
from cosd_core.verifiers.observations import Decisions, Observations
from cosd_core.verifiers.tree_fitting import DEPTHS, LEAVES, Growth, grow

_FORMAT, _VERSION = "cosd-tree", 1
_LARGEST_FILE = 16 * 2**20


@dataclass(frozen=True)
class LearnedTree(PairwiseVerifier):
    """y replaces x if and only if x != y and a decision tree over some features says so.

    Attributes:
        nodes: The tree, root first, every child after its parent.
        about: What is known of it: the pair it was trained for, scores, versions. Plain JSON values.
        features: What it may ask for.

    Raises:
        InvalidOptionError: The nodes are no tree, or ``about`` is no dictionary.
    """

    nodes: tuple[Node, ...]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    features: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        if not isinstance(self.about, Mapping):
            raise InvalidOptionError(f"about={quoted(self.about)} should be a dictionary")
        if problem := no_tree(self.nodes, self.features):
            raise InvalidOptionError(f"nodes are no decision tree: {problem}")

    @property
    def calibration(self) -> Sequence[float] | None:
        """The temperatures of the confidences that the tree was learned from, as far as ``about`` tells."""
        known = self.about.get("calibration")
        return (
            None if known is None else check_calibration(known, len(known) if isinstance(known, list) else 2)
        )

    @classmethod
    def fit(
        cls,
        observations: Observations,
        *,
        calibration: Sequence[float] | None = None,
        agreeing: bool = True,
        depths: Sequence[int] = DEPTHS,
        leaves: Sequence[int] = LEAVES,
        seed: int = 0,
    ) -> Self:
        """Learn a tree from what the models thought of true texts (paper, section 3.3).

        A position's label says whether y should replace x: no where x is the true token, yes where it is not
        and y is; where neither is, it is dropped. scikit-learn grows the tree by cross-entropy. How deep it
        may be and how small its leaves is chosen by cross-validation over whole examples, scored where the
        models differ; the simplest tree within one standard error of the best is taken. ``about`` tells of
        the data, the balance of the labels, the scores and the versions.

        Args:
            observations: What :func:`observe` found. Several assistants' positions are learned together.
            calibration: The temperatures of the confidences, which the decoder takes over.
            agreeing: Whether to learn from positions where both models write the same token.
            depths: Depths to choose from.
            leaves: Fewest positions in a leaf to choose from.
            seed: Divides the examples into folds.

        Raises:
            TrainingDataError: At no position is the true token that of one of the models.
            InvalidOptionError: A limit or a temperature is wrong.
        """
        decisions = observations.decisions(calibration, agreeing=agreeing, features=cls.features)
        growth = grow(decisions, depths=depths, leaves=leaves, seed=seed)
        about = _about(observations, decisions, growth, calibration)
        return cls.from_classifier(growth.classifier, about=about).simplified()

    @classmethod
    def from_classifier(cls, classifier: Any, *, about: Mapping[str, Any] | None = None) -> Self:
        """Take over a fitted ``sklearn.tree.DecisionTreeClassifier`` over the columns :attr:`features`.

        Raises:
            InvalidOptionError: It is another estimator, not fitted, or has other features or labels.
        """
        from sklearn.tree import DecisionTreeClassifier

        features = cls.features
        if not isinstance(classifier, DecisionTreeClassifier):
            raise InvalidOptionError(
                f"classifier should be a sklearn.tree.DecisionTreeClassifier, not {quoted(classifier)}"
            )
        if not hasattr(classifier, "tree_"):
            raise InvalidOptionError(
                f"classifier is not fitted: call fit on columns ({', '.join(features)}) first"
            )
        names = tuple(getattr(classifier, "feature_names_in_", features))
        if classifier.n_features_in_ != len(features) or names != features:
            raise InvalidOptionError(
                f"classifier should see the columns {features}, not {classifier.n_features_in_}: {names}"
            )
        if classifier.n_outputs_ != 1 or not set(classifier.classes_.tolist()) <= {0, 1}:
            raise InvalidOptionError(f"classifier should answer 0 or 1, not {quoted(classifier.classes_)}")
        tree = classifier.tree_
        answers = classifier.classes_[tree.value[:, 0, :].argmax(-1)]
        nodes = tuple(
            Split(features[tree.feature[at]], float(tree.threshold[at]), int(left), int(right))
            if left != right
            else Leaf(bool(answers[at]))
            for at, (left, right) in enumerate(zip(tree.children_left, tree.children_right, strict=True))
        )
        return cls(nodes, dict(about or {}))

    @classmethod
    def of(cls, nodes: Sequence[Any], about: Mapping[str, Any] | None = None) -> Self:
        """The tree of what :meth:`to_dict` says.

        Raises:
            InvalidOptionError: The nodes are no tree.
            VerifierFileError: A node is of no known form.
        """
        return cls(
            tuple(read_node(at, node) for at, node in enumerate(nodes)), {} if about is None else about
        )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a tree that :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            VerifierFileError: The file is missing, too large, no JSON, or no tree of this format.
        """
        return read_tree(path, [cls])

    def save(self, path: str | Path) -> None:
        """Write the tree as JSON.

        Raises:
            VerifierFileError: The file cannot be written, or ``about`` holds what JSON cannot.
        """
        content = {"format": _FORMAT, "version": _VERSION, "features": [*self.features], **self.to_dict()}
        del content["name"]
        try:
            Path(path).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        except (OSError, TypeError, ValueError) as error:
            raise VerifierFileError(f"cannot write tree file {quoted(path)}: {quoted(error)}") from error

    def to_dict(self) -> dict[str, Any]:
        """Name, nodes and what is known of the tree."""
        return {
            "name": self.name,
            "nodes": [write_node(node) for node in self.nodes],
            "about": dict(self.about),
        }

    def simplified(self) -> Self:
        """The same answers with fewer nodes: a split into two equal answers is one answer."""
        nodes: list[Node] = []

        def take(at: int) -> None:
            node, place = self.nodes[at], len(nodes)
            nodes.append(node)
            if isinstance(node, Split):
                take(node.left)
                right = len(nodes)
                take(node.right)
                if nodes[place + 1] == nodes[right] and isinstance(nodes[right], Leaf):
                    nodes[place:] = [nodes[right]]
                else:
                    nodes[place] = Split(node.feature, node.threshold, place + 1, right)

        take(0)
        return type(self)(tuple(nodes), self.about)

    @abstractmethod
    def explain(self) -> str:
        """The tree in words."""

    def can_replace(self, p: float) -> bool:
        """Whether a leaf that answers 1 can be reached with this p."""
        thresholds, answers = self._reach
        return answers[bisect_left(thresholds, _single(p))]

    def answer(self, seen: Mapping[str, float]) -> bool:
        """What the tree says of these features, which are rounded to float32 as scikit-learn does."""
        node = self.nodes[0]
        while isinstance(node, Split):
            left = _single(seen[node.feature]) <= node.threshold
            node = self.nodes[node.left if left else node.right]
        return node.replace

    def path(self, seen: Mapping[str, float]) -> Iterator[str]:
        """The conditions on the way to the answer, in words."""
        node = self.nodes[0]
        while isinstance(node, Split):
            left = _single(seen[node.feature]) <= node.threshold
            yield f"{node.feature} {'<=' if left else '>'} {node.threshold:.3g}"
            node = self.nodes[node.left if left else node.right]

    @cached_property
    def _reach(self) -> tuple[list[float], list[bool]]:
        """Between neighbouring thresholds on p, whether an answer 1 can be reached."""
        thresholds = sorted({n.threshold for n in self.nodes if isinstance(n, Split) and n.feature == "p"})
        return thresholds, [self._reaches(p) for p in (*thresholds, inf)]

    def _reaches(self, p: float) -> bool:
        open_nodes = [0]
        while open_nodes:
            node = self.nodes[open_nodes.pop()]
            if isinstance(node, Leaf):
                if node.replace:
                    return True
            elif node.feature == "p":
                open_nodes.append(node.left if p <= node.threshold else node.right)
            else:
                open_nodes += (node.left, node.right)
        return False


Tree = TypeVar("Tree", bound=LearnedTree)


def read_tree(path: str | Path, kinds: Sequence[type[Tree]]) -> Tree:
    """Read a tree of one of these kinds from a file: the one that has the file's features.

    Raises:
        VerifierFileError: As :meth:`LearnedTree.load`.
    """
    try:
        content = json.loads(_read_file(path))
    except (OSError, TypeError) as error:
        raise VerifierFileError(f"cannot read tree file {quoted(path)}: {quoted(error)}") from error
    except (ValueError, RecursionError) as error:
        raise VerifierFileError(f"tree file {quoted(path)} is not JSON: {quoted(error)}") from error
    try:
        return _read(content, kinds)
    except (InvalidOptionError, VerifierFileError) as error:
        raise VerifierFileError(f"tree file {quoted(path)}: {error}") from error


def _read_file(path: str | Path) -> bytes:
    if not Path(path).is_file():
        raise FileNotFoundError("there is no such file")
    with Path(path).open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise OSError(f"it has more than {_LARGEST_FILE} bytes")
    return content


def _read(content: object, kinds: Sequence[type[Tree]]) -> Tree:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise VerifierFileError(f'it should be an object with "format": "{_FORMAT}"')
    if type(content.get("version")) is not int or content["version"] != _VERSION:
        raise VerifierFileError(
            f"version {quoted(content.get('version'))} is not known; this cosd reads {_VERSION}"
        )
    kind = next((kind for kind in kinds if content.get("features") == [*kind.features]), None)
    if kind is None:
        known = " or ".join(str([*kind.features]) for kind in kinds)
        raise VerifierFileError(f"features {quoted(content.get('features'))} should be {known}")
    if unknown := set(content) - {"format", "version", "features", "nodes", "about"}:
        raise VerifierFileError(f"unknown entries {quoted(sorted(unknown))}")
    if not isinstance(content.get("about", {}), dict):
        raise VerifierFileError(f"about should be an object, not {quoted(content['about'])}")
    if not isinstance(content.get("nodes"), list):
        raise VerifierFileError(f"nodes should be a list, not {quoted(content.get('nodes'))}")
    return kind.of(content["nodes"], content.get("about", {}))


def _about(
    observations: Observations, decisions: Decisions, growth: Growth, calibration: Sequence[float] | None
) -> dict[str, Any]:
    """What is known of a tree that was learned, as plain JSON values."""
    import sklearn

    from cosd_core import __version__

    replaced, agreeing = int(decisions.replace.sum()), int(decisions.agrees.sum())
    chosen = growth.chosen
    return {
        "pair": list(observations.names),
        "calibration": None if calibration is None else list(calibration),
        "examples": observations.examples,
        "positions": {
            "keep": len(decisions) - replaced,
            "replace": replaced,
            "neither": decisions.dropped,
            "agreeing": agreeing,
        },
        "chosen": {
            "depth": chosen.depth,
            "leaf": chosen.leaf,
            "cross_entropy": round(chosen.loss, 5),
            "standard_error": round(chosen.error, 5),
            "accuracy": round(chosen.accuracy, 5),
        }
        if chosen
        else None,
        "versions": {"cosd": __version__, "scikit-learn": sklearn.__version__},
    }


def _single(value: float) -> float:
    """The value rounded to float32."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
