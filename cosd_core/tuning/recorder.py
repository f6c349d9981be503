"""A verifier that decides as a setting does, and stores what it decides about."""

from collections.abc import Sequence
from typing import ClassVar

from cosd_core.cross_tokenizer.verification import BlockVerification, ReplacementCandidate
from cosd_core.generation.measured import MeasuredConfidence
from cosd_core.generation.requests import Request
from cosd_core.outputs import Generation
from cosd_core.tuning.decision_trie import Decision, Ending, Node, Rival, Setting
from cosd_core.verifiers import Position, Verifier
from cosd_core.verifiers.types import Replacement


class Recorder(Verifier):
    """Decides as a setting does, and stores in the trie what it decides about.

    Attributes:
        setting: The setting of a text.
        prompt: The number of its prompt.
    """

    name: ClassVar[str] = "recorder"

    def __init__(self, setting: Setting, prompt: int, root: Node) -> None:
        self.setting, self.prompt = setting, prompt
        self._node = root

    def judge(self, position: Position) -> Replacement | None:
        """The replacement of a token, of models with one vocabulary."""
        assert position.opinions is not None, "the fixed schedule runs the assistants everywhere"
        p = position.draft.confidence
        different = [each for each in enumerate(position.opinions) if each[1].id != position.draft.id]
        decision = self.decide([(at, p, opinion.confidence) for at, opinion in different])
        if not decision:
            return None
        at, opinion = different[decision[0]]
        return Replacement(opinion.id, at)

    def decide(self, rivals: Sequence[tuple[int, float, float]]) -> Decision:
        """Which of the rivals (assistant, p, q) at the next position replace the draft's text."""
        if not rivals:
            return ()
        if self._node.rivals is None:
            self._node.rivals = tuple(Rival(at, _values(p), _values(q)) for at, p, q in rivals)
        decision = self.setting.decide(self._node.rivals)
        self._node = self._node.children[decision]
        return decision

    def finish(self, generation: Generation, request: Request) -> None:
        """Store the ending."""
        tokens, reason = len(generation.tokens), generation.finish_reason
        depends = reason == "length" and tokens < request.options.max_new_tokens
        self._node.ending = Ending(generation.text, reason, tokens, depends)


class RecordedVerification(BlockVerification):
    """Asks a :class:`Recorder` about all assistants' texts at a position at once."""

    _verifier: Recorder

    def _preferred(self, rivals: Sequence[ReplacementCandidate]) -> Sequence[ReplacementCandidate]:
        decision = self._verifier.decide([(each.assistant, each.p, each.q) for each in rivals])
        return [rivals[number] for number in decision]


def _values(confidence: float) -> tuple[float, ...]:
    assert isinstance(confidence, MeasuredConfidence), "remembered models measure their confidences"
    return tuple(confidence.numbers.tolist())
