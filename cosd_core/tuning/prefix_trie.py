"""The predictions of two models after every prefix, as a trie, and the replay of a setting in it."""

from dataclasses import dataclass

from cosd_core.verifiers import ConfidenceVerifier

Temperatures = tuple[tuple[float, ...], tuple[float, ...]]
"""Per model the temperatures at which its confidences are stored; the first is 1."""

UNCALIBRATED: Temperatures = ((1.0,), (1.0,))


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """The predictions of both models after a prefix.

    Attributes:
        tokens: Every model's token.
        confidences: Every model's confidence in its token, at each of its temperatures.
    """

    tokens: tuple[int, int]
    confidences: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Ending:
    """A finished text.

    Attributes:
        text: The text after the prompt.
        finish_reason: ``"stop"`` or ``"length"``.
    """

    text: str
    finish_reason: str


class Node:
    """A prefix, with its ending or the predictions after it, if either is known."""

    __slots__ = ("children", "ending", "prediction")

    def __init__(self) -> None:
        self.prediction: PairPrediction | None = None
        self.ending: Ending | None = None
        self.children: dict[int, Node] = {}

    def child(self, token: int) -> "Node":
        """The prefix with one more token."""
        found = self.children.get(token)
        if found is None:
            found = self.children[token] = Node()
        return found


@dataclass(frozen=True, slots=True)
class Setting:
    """A verifier, the roles and the calibration: all that the text after a prefix depends on.

    Attributes:
        verifier: The verifier.
        swapped: Whether the second model drafts.
        temperature_index: The index of the calibration among the stored temperatures; 0: uncalibrated.
    """

    verifier: ConfidenceVerifier
    swapped: bool = False
    temperature_index: int = 0

    def token(self, prediction: PairPrediction) -> int:
        """The token that decoding writes: x, or the y that replaces it."""
        draft, assistant = (1, 0) if self.swapped else (0, 1)
        x, y = prediction.tokens[draft], prediction.tokens[assistant]
        p = prediction.confidences[draft][self.temperature_index]
        q = prediction.confidences[assistant][self.temperature_index]
        return y if x != y and self.verifier.replaces(p, q) else x


@dataclass(frozen=True, slots=True)
class Path:
    """The known part of a setting's text.

    Attributes:
        nodes: The prefixes, the empty one first.
        tokens: The tokens between them.
    """

    nodes: tuple[Node, ...]
    tokens: tuple[int, ...]

    @property
    def last(self) -> Node:
        """The longest prefix."""
        return self.nodes[-1]

    @property
    def predictions(self) -> list[PairPrediction]:
        """The predictions after every prefix but the last, one per token."""
        return [node.prediction for node in self.nodes[:-1] if node.prediction is not None]


def replay(root: Node, setting: Setting) -> Path:
    """Follow a setting from the end of a prompt as far as predictions are known."""
    nodes, tokens, node = [root], [], root
    while node.ending is None and node.prediction is not None:
        token = setting.token(node.prediction)
        node = node.child(token)
        nodes.append(node)
        tokens.append(token)
    return Path(tuple(nodes), tuple(tokens))
