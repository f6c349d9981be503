"""What two models think after every prefix of a text, as a trie, and the walk of a setting through it."""

from dataclasses import dataclass

from cosd_core.verifiers import ConfidenceVerifier, WideTreeVerifier
from cosd_core.verifiers.features import Further

Temperatures = tuple[tuple[float, ...], tuple[float, ...]]
"""Per model the temperatures at which its confidences are kept; the first is 1."""

UNCALIBRATED: Temperatures = ((1.0,), (1.0,))


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """What the two models would write after a prefix.

    Attributes:
        picks: Every model's token.
        sure: Every model's confidence in it, at each of its temperatures.
        further: What wide trees see beside that, the first model drafting; None where nobody wants it.
    """

    picks: tuple[int, int]
    sure: tuple[tuple[float, ...], tuple[float, ...]]
    further: Further | None = None


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
    """A prefix: how it ends, or else what is thought after it, or nothing yet."""

    __slots__ = ("children", "ending", "thought")

    def __init__(self) -> None:
        self.thought: PairPrediction | None = None
        self.ending: Ending | None = None
        self.children: dict[int, Node] = {}

    def child(self, token: int) -> "Node":
        """The prefix that is longer by a token."""
        found = self.children.get(token)
        if found is None:
            found = self.children[token] = Node()
        return found


@dataclass(frozen=True, slots=True)
class Setting:
    """A way to write that sees nothing but what a :class:`PairPrediction` holds.

    Attributes:
        verifier: Who judges.
        swapped: Whether the second model drafts.
        column: Where, among those kept, the temperatures stand that the models are seen at; 0: at 1.
    """

    verifier: ConfidenceVerifier | WideTreeVerifier
    swapped: bool = False
    column: int = 0

    def token(self, thought: PairPrediction) -> int:
        """Whose token stands: x, or the y that replaces it."""
        draft, assistant = (1, 0) if self.swapped else (0, 1)
        x, y = thought.picks[draft], thought.picks[assistant]
        return y if x != y and self._replaces(thought, draft, assistant) else x

    def _replaces(self, thought: PairPrediction, draft: int, assistant: int) -> bool:
        p, q = thought.sure[draft][self.column], thought.sure[assistant][self.column]
        if isinstance(self.verifier, ConfidenceVerifier):
            return self.verifier.replaces(p, q)
        assert thought.further is not None, "a memo for wide trees keeps it"
        return self.verifier.replaces(p, q, thought.further.swapped() if self.swapped else thought.further)


@dataclass(frozen=True, slots=True)
class Path:
    """How far a setting came by what is known.

    Attributes:
        nodes: The prefixes, the empty one first.
        tokens: The tokens between them.
    """

    nodes: tuple[Node, ...]
    tokens: tuple[int, ...]

    @property
    def last(self) -> Node:
        """Where it stands."""
        return self.nodes[-1]


def replay(root: Node, setting: Setting) -> Path:
    """Walk from a prompt as far as everything is known."""
    nodes, tokens, node = [root], [], root
    while node.ending is None and node.thought is not None:
        token = setting.token(node.thought)
        node = node.child(token)
        nodes.append(node)
        tokens.append(token)
    return Path(tuple(nodes), tuple(tokens))
