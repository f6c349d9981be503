"""The predictions of two models after every prefix, as a trie, and the replay of a setting in it."""

from collections import defaultdict
from dataclasses import dataclass, field

from cosd_core.verifiers import ConfidenceVerifier

Temperatures = tuple[tuple[float, ...], tuple[float, ...]]
"""Per model the temperatures at which its confidences are stored; the first is 1."""

UNCALIBRATED: Temperatures = ((1.0,), (1.0,))


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """Both models' tokens after a prefix, and their confidences in them at each of their temperatures."""

    tokens: tuple[int, int]
    confidences: tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class Ending:
    """A finished text after its prompt, and why it ended: ``"stop"`` or ``"length"``."""

    text: str
    finish_reason: str


@dataclass(eq=False, repr=False, slots=True)
class Node:
    """A prefix, its ending or the predictions after it, if either is known, and its continuations."""

    prediction: PairPrediction | None = None
    ending: Ending | None = None
    children: "defaultdict[int, Node]" = field(default_factory=lambda: defaultdict(Node))


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
    """The known part of a setting's text: its tokens, the prediction before each, and the longest prefix."""

    tokens: tuple[int, ...]
    predictions: tuple[PairPrediction, ...]
    last: Node


def replay(root: Node, setting: Setting) -> Path:
    """Follow a setting from the end of a prompt as far as predictions are known."""
    tokens, predictions, node = [], [], root
    while node.ending is None and node.prediction is not None:
        predictions.append(node.prediction)
        tokens.append(setting.token(node.prediction))
        node = node.children[tokens[-1]]
    return Path(tuple(tokens), tuple(predictions), node)
