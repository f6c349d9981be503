"""A tree that sees more of both distributions than the paper's two confidences."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from cosd_core.prediction import Prediction
from cosd_core.verifiers.features import FEATURES, MEANINGS, Further
from cosd_core.verifiers.nodes import Leaf
from cosd_core.verifiers.tree_base import LearnedTree


@dataclass(frozen=True)
class WideTreeVerifier(LearnedTree):
    """y replaces x if and only if x != y and a tree over p, q and :class:`Further` says so.

    ::

        tree = WideTreeVerifier.fit(observe((draft, assistant), "data.jsonl"))
        print(tree.explain())

    Not of the paper: for pairs whose two confidences do not tell enough. ``docs/benchmarks.md`` says what it
    brings. As for averaging, the models must share one vocabulary.

    Attributes:
        nodes: The tree, root first, every child after its parent.
        about: What is known of it, as in :class:`TreeVerifier`.

    Raises:
        InvalidOptionError: The nodes are no tree.
    """

    name: ClassVar[str] = "wide-tree"
    features: ClassVar[tuple[str, ...]] = FEATURES
    needs_logits: ClassVar[bool] = True

    def prefers(self, draft: Prediction, opinion: Prediction, assistant: int) -> bool:  # noqa: ARG002
        """By all features."""
        return self.replaces(draft.confidence, opinion.confidence, Further.of(draft, opinion))

    def replaces(self, p: float, q: float, further: Further) -> bool:
        """Whether y replaces a different x."""
        return self.answer({"p": p, "q": q, **further._asdict()})

    def explain(self) -> str:
        """The tree as an outline, and what its features mean."""
        asked = {node.feature for node in self.nodes if not isinstance(node, Leaf)}
        legend = [f"  {name}: {meaning}" for name, meaning in MEANINGS.items() if name in asked]
        return "\n".join(["of a different y:", *self._outline(), *(["", *legend] if legend else [])])

    def _outline(self) -> Iterator[str]:
        waiting = [(0, 1, "")]  # a stack, since a file may hold a tree that is deeper than calls may be
        while waiting:
            at, depth, condition = waiting.pop()
            if condition:
                yield f"{'  ' * (depth - 1)}{condition}"
            node = self.nodes[at]
            if isinstance(node, Leaf):
                yield f"{'  ' * depth}{'y replaces x' if node.replace else 'x stays'}"
                continue
            for sign, child in ((">", node.right), ("<=", node.left)):
                waiting.append((child, depth + 1, f"{node.feature} {sign} {node.threshold:.4g}"))

    def reason(self, p: float, q: float, *, replaced: bool) -> str:
        """The answer; the features it hangs on are not kept."""
        return f"the wide tree says {'replace' if replaced else 'keep'} (p = {p:.2f}, q = {q:.2f})"
