"""The paper's second verifier (section 3.3): a small decision tree over the two confidences."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from cosd_core.verifiers.base import ConfidenceVerifier
from cosd_core.verifiers.features import CONFIDENCES
from cosd_core.verifiers.nodes import Leaf
from cosd_core.verifiers.regions import Region, draw, plot, rules
from cosd_core.verifiers.tree_base import LearnedTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TreeVerifier(LearnedTree, ConfidenceVerifier):
    """y replaces x if and only if x != y and T(p, q) = 1, T a decision tree.

    ::

        TreeVerifier.load("tree.json")
        TreeVerifier.fit(observe((draft, assistant), "data.jsonl"))
        TreeVerifier.from_classifier(sklearn_tree)      # fitted on columns p, q and labels 0, 1

    Attributes:
        nodes: The tree, root first, every child after its parent.
        about: What is known of it: the pair it was trained for, scores, versions. Plain JSON values.

    Raises:
        InvalidOptionError: The nodes are no tree.
    """

    name: ClassVar[str] = "tree"
    features: ClassVar[tuple[str, ...]] = CONFIDENCES

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The leaves as rectangles in the (p, q) plane, left to right, but for those nothing reaches."""
        found: list[Region] = []
        waiting = [(0, Region())]
        while waiting:
            at, region = waiting.pop()
            node = self.nodes[at]
            if isinstance(node, Leaf):
                found.append(Region(region.p, region.q, node.replace))
                continue
            low, high = getattr(region, node.feature)
            if node.threshold < high:
                waiting.append((node.right, region.within(node.feature, max(low, node.threshold), high)))
            if low < node.threshold:
                waiting.append((node.left, region.within(node.feature, low, min(high, node.threshold))))
        return tuple(found)

    def explain(self) -> str:
        """The tree as rules, and its regions in the (p, q) plane drawn in characters."""
        return f"{rules(self.regions)}\n\n{draw(self.replaces)}"

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draw the decision regions in the (p, q) plane with matplotlib (``pip install "cosd[plots]"``).

        Args:
            axes: Where to; None: a new figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        return plot(self.regions, axes)

    def replaces(self, p: float, q: float) -> bool:
        """T(p, q), the features rounded to float32 as scikit-learn does."""
        return self.answer({"p": p, "q": q})

    def reason(self, p: float, q: float, *, replaced: bool) -> str:
        """The path through the tree."""
        path = " and ".join(self.path({"p": p, "q": q})) or "always"
        return f"the tree says {'replace' if replaced else 'keep'} where {path} (p = {p:.2f}, q = {q:.2f})"
