"""One verifier per assistant, for assistants whose confidences deserve different thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from cosd_core.errors import InvalidOptionError, VerifierError, quoted
from cosd_core.prediction import Prediction
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers.base import ConfidenceVerifier, PairwiseVerifier, can_replace
from cosd_core.verifiers.baselines import AssistantVerifier
from cosd_core.verifiers.types import Position


@dataclass(frozen=True, slots=True)
class PanelVerifier(PairwiseVerifier):
    """Every assistant's token is judged by that assistant's own verifier.

    ::

        PanelVerifier((RuleVerifier(alpha=0.3), TreeVerifier.load("tree.json")))

    As with one verifier for all, the most confident assistant wins among those whose verifier replaces.

    Attributes:
        members: One verifier over two confidences per assistant, in the assistants' order.

    Raises:
        InvalidOptionError: The list is empty, or a member is no such verifier.
    """

    members: Sequence[ConfidenceVerifier]

    name: ClassVar[str] = "panel"

    def __post_init__(self) -> None:
        if not isinstance(self.members, (list, tuple)) or not self.members:
            raise InvalidOptionError(
                f"verifier={quoted(self.members)} should be a list of verifiers, one per assistant"
            )
        for member in self.members:
            if not isinstance(member, ConfidenceVerifier):
                raise InvalidOptionError(
                    f"a list of verifiers holds {quoted(getattr(member, 'name', member))}; each of a list "
                    "should judge one assistant by two confidences: rule, tree, draft, assistant, or one of "
                    "your own"
                )
        object.__setattr__(self, "members", tuple(self.members))

    @property
    def calibration(self) -> Sequence[float] | None:
        """Each member's temperature for its own assistant; the draft's is the same in all that have one."""
        calibrations = [member.calibration for member in self.members]
        known = [each for each in calibrations if each is not None]
        if not known:
            return None
        return [known[0][0], *(1.0 if each is None else each[1] for each in calibrations)]

    def check(self, assistants: int) -> None:
        """There is one member per assistant, and all were trained at one temperature of the draft."""
        drafts = {each[0] for member in self.members if (each := member.calibration)}
        if len(drafts) > 1:
            raise InvalidOptionError(
                f"the verifiers were learned at {len(drafts)} temperatures of the draft, {quoted(drafts)}, "
                "which has one: learn them together (cosd train-tree with an --out per assistant)"
            )
        if len(self.members) != assistants:
            raise InvalidOptionError(
                f"{len(self.members)} verifiers for {assistants} assistants: give each one, or one for all"
            )

    def prefers(self, draft: Prediction, opinion: Prediction, assistant: int) -> bool:
        """By that assistant's member."""
        with guarded(VerifierError, self.members[assistant]):
            return self.members[assistant].prefers(draft, opinion, assistant)

    def can_replace(self, p: float) -> bool:
        """Whether any member could."""
        return any(can_replace(member, p) for member in self.members)

    def fused_logits(self, position: Position) -> torch.Tensor:
        """As one verifier for all; with assistant verifiers only, an assistant's logits at every position."""
        if all(isinstance(member, AssistantVerifier) for member in self.members):
            return AssistantVerifier().fused_logits(position)
        return PairwiseVerifier.fused_logits(self, position)  # super() fails in a class with slots

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:
        """That assistant's member's reason."""
        return self.members[assistant].reason(p, q, replaced=replaced, assistant=assistant)

    def to_dict(self) -> dict[str, Any]:
        """Name and members."""
        return {"name": self.name, "members": [member.to_dict() for member in self.members]}
