"""A verifier per assistant: whom to believe how far may differ from model to model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.verifiers.base import ConfidenceVerifier


@dataclass(frozen=True, slots=True)
class PanelVerifier(ConfidenceVerifier):
    """Every assistant's token is judged by that assistant's own verifier.

    ::

        PanelVerifier((RuleVerifier(alpha=0.3), TreeVerifier.load("tree.json")))

    As with one verifier for all, the most confident assistant wins among those whose judgement fires.

    Attributes:
        members: The first judges the first assistant, and so on. Each sees only the two confidences.

    Raises:
        InvalidOptionError: There are none, or one of them is no such verifier.
    """

    members: Sequence[ConfidenceVerifier]

    name: ClassVar[str] = "panel"

    def __post_init__(self) -> None:
        if not isinstance(self.members, (list, tuple)) or not self.members:
            raise InvalidOptionError(
                f"verifier={quoted(self.members)} should be a list of verifiers, one per assistant"
            )
        for member in self.members:
            if not isinstance(member, ConfidenceVerifier) or isinstance(member, PanelVerifier):
                raise InvalidOptionError(
                    f"a list of verifiers holds {quoted(getattr(member, 'name', member))}; each of a list "
                    "should judge one assistant by two confidences: rule, tree, draft, assistant, or one of "
                    "your own"
                )
        object.__setattr__(self, "members", tuple(self.members))

    def for_assistant(self, index: int) -> ConfidenceVerifier:
        """The member that judges that assistant."""
        return self.members[index]

    @property
    def calibration(self) -> Sequence[float] | None:
        """Every member's for its own assistant; the draft's must be the same for all that have one."""
        own = [member.calibration for member in self.members]
        known = [each for each in own if each is not None]
        return [known[0][0], *(1.0 if each is None else each[1] for each in own)] if known else None

    def check(self, assistants: int) -> None:
        """There is one member per assistant, and all see the draft's confidence alike."""
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

    def replaces(self, p: float, q: float) -> bool:
        """Whether any member says so: whose confidence ``q`` is would have to be known to say more."""
        return any(member.replaces(p, q) for member in self.members)

    def can_replace(self, p: float) -> bool:
        """Whether any member could."""
        return any(member.can_replace(p) for member in self.members)

    def to_dict(self) -> dict[str, Any]:
        """Name and members."""
        return {"name": self.name, "members": [member.to_dict() for member in self.members]}
