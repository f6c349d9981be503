"""The nodes of a decision tree, and their form in JSON, checked one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import Any

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
    """The answer: whether y replaces x."""

    replace: bool


Node = Split | Leaf


def no_tree(nodes: Sequence[Node], features: Sequence[str]) -> str | None:
    """What keeps these nodes from being a tree over these features, or None."""
    if not isinstance(nodes, tuple) or not all(isinstance(node, Split | Leaf) for node in nodes):
        return f"{quoted(nodes)} is no tuple of Split and Leaf"
    if not nodes:
        return "there are none"
    children: list[int] = []
    for at, node in enumerate(nodes):
        if isinstance(node, Leaf):
            continue
        if node.feature not in features:
            return f"node {at} asks for feature {quoted(node.feature)}, there are {features}"
        if not isinstance(node.threshold, Real) or not isfinite(node.threshold):
            return f"node {at} has the threshold {quoted(node.threshold)}"
        if not (at < node.left < len(nodes) and at < node.right < len(nodes)):
            return f"node {at} leads to {node.left} and {node.right}; children come after their parent"
        children += (node.left, node.right)
    if sorted(children) != list(range(1, len(nodes))):
        return "every node but the first should be the child of exactly one other"
    return None


def read_node(at: int, node: object) -> Node:
    """The node that JSON describes.

    Raises:
        VerifierFileError: It describes none; with its number.
    """
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


def write_node(node: Node) -> dict[str, Any]:
    """The node as JSON."""
    if isinstance(node, Leaf):
        return {"replace": node.replace}
    return {"feature": node.feature, "threshold": node.threshold, "left": node.left, "right": node.right}
