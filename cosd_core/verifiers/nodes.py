"""The nodes of a decision tree over p and q, and their form in JSON, checked one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real

from cosd_core.errors import VerifierFileError, quoted


@dataclass(frozen=True, slots=True)
class Split:
    """Go to node ``left`` where the feature is at most ``threshold``, else to node ``right``."""

    feature: str
    threshold: float
    left: int
    right: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """A decision: whether y replaces x."""

    replace: bool


Node = Split | Leaf

FEATURES = ("p", "q")
"""The features of a tree, in the order of its training columns."""


_MOST_NODES, _MOST_LEVELS = 20_000, 100
"""More would slow decoding down; a tree that is fitted has a few dozen nodes on a few levels."""


def find_problem(nodes: Sequence[Node]) -> str | None:
    """The reason why these nodes are no tree, or None."""
    if not isinstance(nodes, tuple) or not all(isinstance(node, Split | Leaf) for node in nodes):
        return f"{quoted(nodes)} is no tuple of Split and Leaf"
    if not nodes:
        return "there are none"
    if len(nodes) > _MOST_NODES:
        return f"there are {len(nodes)}, at most {_MOST_NODES} are allowed"
    children: list[int] = []
    levels = [1] * len(nodes)
    for index, node in enumerate(nodes):
        if isinstance(node, Leaf):
            continue
        if node.feature not in FEATURES:
            return f"node {index} asks for feature {quoted(node.feature)}, there are {FEATURES}"
        if not isinstance(node.threshold, Real) or not isfinite(node.threshold):
            return f"node {index} has the threshold {quoted(node.threshold)}"
        if not (index < node.left < len(nodes) and index < node.right < len(nodes)):
            return f"node {index} leads to {node.left} and {node.right}; children come after their parent"
        children += (node.left, node.right)
        levels[node.left] = levels[node.right] = levels[index] + 1
    if sorted(children) != list(range(1, len(nodes))):
        return "every node but the first should be the child of exactly one other"
    if max(levels) > _MOST_LEVELS:
        return f"there are {max(levels)} levels, at most {_MOST_LEVELS} are allowed"
    return None


def simplify(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The same decisions with fewer nodes: a split into two equal leaves becomes one leaf."""
    kept: list[Node] = []

    def copy(index: int) -> None:
        node, place = nodes[index], len(kept)
        kept.append(node)
        if isinstance(node, Split):
            copy(node.left)
            right = len(kept)
            copy(node.right)
            if kept[place + 1] == kept[right] and isinstance(kept[right], Leaf):
                kept[place:] = [kept[right]]
            else:
                kept[place] = Split(node.feature, node.threshold, place + 1, right)

    copy(0)
    return tuple(kept)


def read_nodes(nodes: Sequence[object]) -> tuple[Node, ...]:
    """The nodes that JSON describes.

    Raises:
        VerifierFileError: An entry is no node; with its index.
    """
    return tuple(_read_node(index, node) for index, node in enumerate(nodes))


def _read_node(index: int, node: object) -> Node:
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
                return Split(name, _as_float(index, value), left, right)
    raise VerifierFileError(
        f'node {index} is {quoted(node)}; it should be {{"replace": true or false}} or '
        '{"feature": name, "threshold": number, "left": index, "right": index}'
    )


def _as_float(index: int, value: float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise VerifierFileError(
            f"node {index} has the threshold {quoted(value)}, which is too large"
        ) from error
