"""What verifiers decide about in a text, as a trie of their decisions, and the replay of a setting in it."""

from collections import defaultdict
from dataclasses import dataclass, field

from cosd_core.prediction import Prediction
from cosd_core.verifiers.base import PairwiseVerifier

Temperatures = tuple[tuple[float, ...], ...]
"""Per model the temperatures at which its confidences are stored; the first is 1."""

Decision = tuple[int, ...]
"""Which rivals may replace the draft's text, the most confident first."""


@dataclass(frozen=True, slots=True)
class Rival:
    """An assistant's text that differs from the draft's at the same position.

    Attributes:
        assistant: The assistant's number.
        p: The draft's confidence at each of the stored temperatures.
        q: The assistant's.
    """

    assistant: int
    p: tuple[float, ...]
    q: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """A finished text after its prompt.

    Attributes:
        text: The text.
        finish_reason: Why it ended: ``"stop"`` or ``"length"``.
        tokens: How many tokens of the draft it has.
        depends: Whether the place where it ends depends on the verifier: the text fills the context window of
            an assistant, whose predictions only some verifiers need.
    """

    text: str
    finish_reason: str
    tokens: int
    depends: bool = False


@dataclass(eq=False, repr=False, slots=True)
class Node:
    """A text up to the next decision or to its end, whichever of both is known, and what follows."""

    rivals: tuple[Rival, ...] | None = None
    ending: Ending | None = None
    children: "defaultdict[Decision, Node]" = field(default_factory=lambda: defaultdict(Node))


@dataclass(frozen=True, slots=True)
class Setting:
    """A verifier, the roles and the calibration: all that the text after a prompt depends on.

    Attributes:
        verifier: The verifier.
        draft: The number of the model that drafts; the others assist in their order.
        temperature_index: The index of the calibration among the stored temperatures; 0: uncalibrated.
    """

    verifier: PairwiseVerifier
    draft: int = 0
    temperature_index: int = 0

    def decide(self, rivals: tuple[Rival, ...]) -> Decision:
        """Which of the rivals at one position may replace the draft's text."""
        at = self.temperature_index
        preferred = [
            number
            for number, rival in enumerate(rivals)
            if self.verifier.prefers(Prediction(0, rival.p[at]), Prediction(1, rival.q[at]), rival.assistant)
        ]
        return tuple(sorted(preferred, key=lambda number: -rivals[number].q[at]))  # ties go to the first


@dataclass(frozen=True, slots=True)
class Path:
    """The known part of a setting's text: the decisions, and the node behind them."""

    decisions: tuple[Decision, ...]
    last: Node


def replay(root: Node, setting: Setting) -> Path:
    """Follow a setting from the end of a prompt as far as the decisions' grounds are known."""
    decisions: list[Decision] = []
    node = root
    while node.ending is None and node.rivals is not None:
        decisions.append(setting.decide(node.rivals))
        node = node.children[decisions[-1]]
    return Path(tuple(decisions), node)


def order_of(draft: int, models: int) -> tuple[int, ...]:
    """The models' numbers where one of them drafts: it comes first, the others keep their order."""
    return draft, *(at for at in range(models) if at != draft)
