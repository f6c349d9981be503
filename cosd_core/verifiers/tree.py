"""The paper's second verifier (section 3.3): a small decision tree over the two confidences.

A saved tree is data, never code: a JSON object that is checked node by node when it is read::

    {"format": "cosd-tree", "version": 1, "features": ["p", "q"],
     "nodes": [{"feature": "q", "threshold": 0.83, "left": 1, "right": 2},
               {"replace": false}, {"replace": true}],
     "about": {"pair": ["org/a", "org/b"], "accuracy": 0.93}}

Node 0 is the root; a position goes left where its feature is at most the threshold. ``about`` is free
text and numbers for people and is never acted on.
"""

import json
import struct
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, isfinite
from pathlib import Path
from typing import Any, ClassVar, Self

from cosd_core.errors import InvalidOptionError, VerifierFileError, quoted
from cosd_core.verifiers.base import ConfidenceVerifier

FEATURES = ("p", "q")
_FORMAT, _VERSION = "cosd-tree", 1
_LARGEST_FILE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Split:
    """Go to node ``left`` where the feature is at most ``threshold``, else to node ``right``."""

    feature: str
    threshold: float
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """The answer: whether y replaces x."""

    replace: bool


Node = Split | Leaf


@dataclass(frozen=True)
class TreeVerifier(ConfidenceVerifier):
    """y replaces x if and only if x != y and T(p, q) = 1, T a decision tree.

    ::

        TreeVerifier.load("tree.json")
        TreeVerifier.from_classifier(sklearn_tree)      # fitted on columns p, q and labels 0, 1

    Attributes:
        nodes: The tree, root first, every child after its parent.
        about: What is known of it: the pair it was trained for, scores, versions. Plain JSON values.

    Raises:
        InvalidOptionError: The nodes are no tree.
    """

    nodes: tuple[Node, ...]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    name: ClassVar[str] = "tree"

    def __post_init__(self) -> None:
        if problem := _no_tree(self.nodes):
            raise InvalidOptionError(f"nodes are no decision tree: {problem}")

    @classmethod
    def from_classifier(cls, classifier: Any, *, about: Mapping[str, Any] | None = None) -> Self:
        """Take over a fitted ``sklearn.tree.DecisionTreeClassifier`` over the columns (p, q).

        Raises:
            InvalidOptionError: It is another estimator, not fitted, or has other features or labels.
        """
        from sklearn.tree import DecisionTreeClassifier

        if not isinstance(classifier, DecisionTreeClassifier):
            raise InvalidOptionError(
                f"classifier should be a sklearn.tree.DecisionTreeClassifier, not {quoted(classifier)}"
            )
        if not hasattr(classifier, "tree_"):
            raise InvalidOptionError("classifier is not fitted: call fit on columns (p, q) first")
        names = tuple(getattr(classifier, "feature_names_in_", FEATURES))
        if classifier.n_features_in_ != 2 or names != FEATURES:
            raise InvalidOptionError(
                f"classifier should see the two columns {FEATURES}, not {classifier.n_features_in_}: {names}"
            )
        if classifier.n_outputs_ != 1 or not set(classifier.classes_.tolist()) <= {0, 1}:
            raise InvalidOptionError(f"classifier should answer 0 or 1, not {quoted(classifier.classes_)}")
        tree = classifier.tree_
        answers = classifier.classes_[tree.value[:, 0, :].argmax(-1)]
        nodes = tuple(
            Split(FEATURES[tree.feature[at]], float(tree.threshold[at]), int(left), int(right))
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
        return cls(tuple(_read_node(at, node) for at, node in enumerate(nodes)), dict(about or {}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a tree that :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            VerifierFileError: The file is missing, too large, no JSON, or no tree of this format.
        """
        try:
            content = json.loads(_read_file(path))
        except (OSError, TypeError) as error:
            raise VerifierFileError(f"cannot read tree file {quoted(path)}: {quoted(error)}") from error
        except (ValueError, RecursionError) as error:
            raise VerifierFileError(f"tree file {quoted(path)} is not JSON: {quoted(error)}") from error
        try:
            return cls(_read_nodes(content), content.get("about", {}))
        except (InvalidOptionError, VerifierFileError) as error:
            raise VerifierFileError(f"tree file {quoted(path)}: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the tree as JSON.

        Raises:
            VerifierFileError: The file cannot be written, or ``about`` holds what JSON cannot.
        """
        content = {"format": _FORMAT, "version": _VERSION, "features": list(FEATURES), **self.to_dict()}
        del content["name"]
        try:
            Path(path).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        except (OSError, TypeError, ValueError) as error:
            raise VerifierFileError(f"cannot write tree file {quoted(path)}: {quoted(error)}") from error

    def to_dict(self) -> dict[str, Any]:
        """Name, nodes and what is known of the tree."""
        return {
            "name": self.name,
            "nodes": [_write_node(node) for node in self.nodes],
            "about": dict(self.about),
        }

    def replaces(self, p: float, q: float) -> bool:
        """T(p, q), the features rounded to float32 as scikit-learn does."""
        features = {"p": _single(p), "q": _single(q)}
        node = self.nodes[0]
        while isinstance(node, Split):
            node = self.nodes[node.left if features[node.feature] <= node.threshold else node.right]
        return node.replace

    def can_replace(self, p: float) -> bool:
        """Whether a leaf that answers 1 can be reached with this p."""
        thresholds, answers = self._reach
        return answers[bisect_left(thresholds, _single(p))]

    def reason(self, p: float, q: float, *, replaced: bool) -> str:
        """The path through the tree."""
        features, steps, node = {"p": _single(p), "q": _single(q)}, [], self.nodes[0]
        while isinstance(node, Split):
            left = features[node.feature] <= node.threshold
            steps.append(f"{node.feature} {'<=' if left else '>'} {node.threshold:.3g}")
            node = self.nodes[node.left if left else node.right]
        path = " and ".join(steps) or "always"
        return f"the tree says {'replace' if replaced else 'keep'} where {path} (p = {p:.2f}, q = {q:.2f})"

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


def _single(value: float) -> float:
    """The value rounded to float32."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded


def _no_tree(nodes: Sequence[Node]) -> str | None:
    """What keeps these nodes from being a tree, or None."""
    if not isinstance(nodes, tuple) or not all(isinstance(node, Split | Leaf) for node in nodes):
        return f"{quoted(nodes)} is no tuple of Split and Leaf"
    if not nodes:
        return "there are none"
    children: list[int] = []
    for at, node in enumerate(nodes):
        if isinstance(node, Leaf):
            continue
        if node.feature not in FEATURES:
            return f"node {at} asks for feature {quoted(node.feature)}, there are {FEATURES}"
        if not isfinite(node.threshold):
            return f"node {at} has the threshold {node.threshold!r}"
        if not (at < node.left < len(nodes) and at < node.right < len(nodes)):
            return f"node {at} leads to {node.left} and {node.right}; children come after their parent"
        children += (node.left, node.right)
    if sorted(children) != list(range(1, len(nodes))):
        return "every node but the first should be the child of exactly one other"
    return None


def _read_file(path: str | Path) -> bytes:
    if not Path(path).is_file():
        raise FileNotFoundError("there is no such file")
    with Path(path).open("rb") as file:
        content = file.read(_LARGEST_FILE + 1)
    if len(content) > _LARGEST_FILE:
        raise OSError(f"it has more than {_LARGEST_FILE} bytes")
    return content


def _read_nodes(content: object) -> tuple[Node, ...]:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise VerifierFileError(f'it should be an object with "format": "{_FORMAT}"')
    if type(content.get("version")) is not int or content["version"] != _VERSION:
        raise VerifierFileError(
            f"version {quoted(content.get('version'))} is not known; this cosd reads {_VERSION}"
        )
    if content.get("features") != list(FEATURES):
        raise VerifierFileError(f"features {quoted(content.get('features'))} should be {list(FEATURES)}")
    if unknown := set(content) - {"format", "version", "features", "nodes", "about"}:
        raise VerifierFileError(f"unknown entries {quoted(sorted(unknown))}")
    if not isinstance(content.get("about", {}), dict):
        raise VerifierFileError(f"about should be an object, not {quoted(content['about'])}")
    if not isinstance(content.get("nodes"), list):
        raise VerifierFileError(f"nodes should be a list, not {quoted(content.get('nodes'))}")
    return tuple(_read_node(at, node) for at, node in enumerate(content["nodes"]))


def _read_node(at: int, node: object) -> Node:
    match node:
        case {"replace": bool(answer), **rest} if not rest:
            return Leaf(answer)
        case {
            "feature": str(name),
            "threshold": int() | float() as value,
            "left": int(left),
            "right": int(right),
            **rest,
        }:
            if not rest and not any(isinstance(number, bool) for number in (value, left, right)):
                return Split(name, _as_float(at, value), left, right)
    raise VerifierFileError(
        f'node {at} is {quoted(node)}; it should be {{"replace": true or false}} or '
        '{"feature": name, "threshold": number, "left": index, "right": index}'
    )


def _as_float(at: int, value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise VerifierFileError(f"node {at} has the threshold {quoted(value)}, which is too large") from error


def _write_node(node: Node) -> dict[str, Any]:
    if isinstance(node, Leaf):
        return {"replace": node.replace}
    return {"feature": node.feature, "threshold": node.threshold, "left": node.left, "right": node.right}
