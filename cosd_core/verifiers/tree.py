"""The paper's second verifier (section 3.3): a small decision tree over the two confidences."""

import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import check_calibration
from cosd_core.verifiers.base import ConfidenceVerifier
from cosd_core.verifiers.nodes import Leaf, Node, Split, find_problem, read_nodes, simplify
from cosd_core.verifiers.observations import Observations
from cosd_core.verifiers.regions import Region, draw, plot, regions_of, rules
from cosd_core.verifiers.tree_file import read_tree, write_tree
from cosd_core.verifiers.tree_fitting import DEPTHS, LEAVES, describe, grow, nodes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TreeVerifier(ConfidenceVerifier):
    """y replaces x if and only if x != y and T(p, q) = 1, T a decision tree.

    ::

        TreeVerifier.load("tree.json")
        TreeVerifier.fit(observe((draft, assistant), "data.jsonl"))
        TreeVerifier.from_classifier(sklearn_tree)      # fitted on columns p, q and labels 0, 1

    Attributes:
        nodes: The tree, root first, every child after its parent.
        about: Its origin: the pair it was trained for, scores, versions. Plain JSON values.

    Raises:
        InvalidOptionError: The nodes are no tree, or ``about`` is no dictionary.
    """

    nodes: tuple[Node, ...]
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)

    name: ClassVar[str] = "tree"

    def __post_init__(self) -> None:
        if not isinstance(self.about, Mapping):
            raise InvalidOptionError(f"about={quoted(self.about)} should be a dictionary")
        if problem := find_problem(self.nodes):
            raise InvalidOptionError(f"nodes are no decision tree: {problem}")

    @property
    def calibration(self) -> Sequence[float] | None:
        """The temperatures of the confidences it was trained on, if ``about`` holds them."""
        known = self.about.get("calibration")
        if known is None:
            return None
        return check_calibration(known, len(known) if isinstance(known, list) else 2)

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
        """Learn a tree from the models' predictions on true texts (paper, section 3.3).

        The label of a position is whether y should replace x: False where x is the true token, True where y
        is and x is not; positions where neither is are dropped. scikit-learn grows the tree by cross-entropy.
        Its depth and the size of its leaves are chosen by cross-validation over whole examples, scored where
        the models differ: the simplest tree within one standard error of the best is taken. ``about`` holds
        the models, the balance of the labels, the scores and the versions.

        Args:
            observations: The result of :func:`observe`. All assistants' positions are used together.
            calibration: The temperatures of the confidences; a decoder with this tree uses them too.
            agreeing: Whether to include positions where both models predict the same token.
            depths: Depths to choose from.
            leaves: Fewest positions in a leaf to choose from.
            seed: Divides the examples into folds.

        Raises:
            TrainingDataError: At no position is the true token that of one of the models.
            InvalidOptionError: A limit or a temperature is wrong.
        """
        decisions = observations.decisions(calibration, agreeing=agreeing)
        classifier, chosen = grow(decisions, depths=depths, leaves=leaves, seed=seed)
        about = describe(observations, decisions, chosen, calibration)
        return cls.from_classifier(classifier, about=about).simplified()

    @classmethod
    def from_classifier(cls, classifier: Any, *, about: Mapping[str, Any] | None = None) -> Self:
        """Convert a fitted ``sklearn.tree.DecisionTreeClassifier`` over the columns p and q.

        Raises:
            InvalidOptionError: It is another estimator, not fitted, or has other features or labels.
        """
        return cls(nodes_of(classifier), dict(about or {}))

    @classmethod
    def from_dict(cls, nodes: Sequence[Any], about: Mapping[str, Any] | None = None) -> Self:
        """Make a tree from the entries of :meth:`to_dict`, without the name.

        Raises:
            InvalidOptionError: The nodes are no tree.
            VerifierFileError: A node is of no known form.
        """
        return cls(read_nodes(nodes), {} if about is None else about)

    def to_dict(self) -> dict[str, Any]:
        """Name, nodes and ``about``."""
        return {"name": self.name, "nodes": list(map(asdict, self.nodes)), "about": dict(self.about)}

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a tree that :meth:`save` wrote. Nothing in the file is executed.

        Raises:
            VerifierFileError: The file is missing, too large, no JSON, or no tree of this format.
        """
        return read_tree(path, cls.from_dict)

    def save(self, path: str | Path) -> None:
        """Write the tree as JSON.

        Raises:
            VerifierFileError: The file cannot be written, or ``about`` has values that JSON has not.
        """
        write_tree(path, self.to_dict())

    def simplified(self) -> Self:
        """The same decisions with fewer nodes: a split into two equal leaves becomes one leaf."""
        return type(self)(simplify(self.nodes), self.about)

    def replaces(self, p: float, q: float) -> bool:
        """T(p, q)."""
        *_, leaf = self._path(p, q)
        return isinstance(leaf, Leaf) and leaf.replace

    def can_replace(self, p: float) -> bool:
        """Whether some q leads to a leaf that replaces."""
        return bisect_left(self._replaceable_bounds, _float32(p)) % 2 == 1

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:  # noqa: ARG002
        """The path through the tree."""
        values = {"p": _float32(p), "q": _float32(q)}
        conditions = [
            f"{node.feature} {'<=' if values[node.feature] <= node.threshold else '>'} {node.threshold:.3g}"
            for node in self._path(p, q)
            if isinstance(node, Split)
        ]
        path, verb = " and ".join(conditions) or "always", "replace" if replaced else "keep"
        return f"the tree decides to {verb} where {path} (p = {p:.2f}, q = {q:.2f})"

    def explain(self) -> str:
        """The tree as rules, and its regions in the (p, q) plane drawn in characters."""
        return f"{rules(self.regions)}\n\n{draw(self.replaces)}"

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draw the decision regions in the (p, q) plane with matplotlib (``pip install "cosd[plots]"``).

        Args:
            axes: The axes to draw on; None: those of a new figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return plot(self.regions, axes)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The reachable leaves as rectangles in the (p, q) plane, from left to right."""
        return regions_of(self.nodes)

    def _path(self, p: float, q: float) -> Iterator[Node]:
        """The nodes from the root to a leaf; features are rounded to float32 as scikit-learn does."""
        values = {"p": _float32(p), "q": _float32(q)}
        node = self.nodes[0]
        yield node
        while isinstance(node, Split):
            node = self.nodes[node.left if values[node.feature] <= node.threshold else node.right]
            yield node

    @cached_property
    def _replaceable_bounds(self) -> list[float]:
        """Ascending bounds of disjoint intervals: a p is replaceable if an odd number of them is below it."""
        bounds: list[float] = []
        for low, high in sorted(region.p for region in self.regions if region.replace):
            if not bounds or low > bounds[-1]:
                bounds += (low, high)
            else:
                bounds[-1] = max(bounds[-1], high)
        return bounds


def _float32(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
