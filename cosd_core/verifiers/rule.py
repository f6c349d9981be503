"""The paper's rule (section 3.2): two thresholds on the two confidences."""

from dataclasses import dataclass
from typing import Any, ClassVar

from cosd_core.options import check_number
from cosd_core.verifiers.base import ConfidenceVerifier


@dataclass(frozen=True, slots=True)
class RuleVerifier(ConfidenceVerifier):
    """y replaces x if and only if x != y and p < alpha and q > beta * p.

    Attributes:
        alpha: A draft token can be replaced only below this confidence. 0 never replaces; above 1 every
            token can be replaced.
        beta: The assistant's least confidence, relative to the draft's.

    Raises:
        InvalidOptionError: A threshold is no finite number of at least 0.
    """

    alpha: float = 0.5
    beta: float = 0.5

    name: ClassVar[str] = "rule"

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_number("beta", self.beta)

    def replaces(self, p: float, q: float) -> bool:
        """All comparisons are strict."""
        return p < self.alpha and q > self.beta * p

    def can_replace(self, p: float) -> bool:
        """A token of confidence alpha or more is kept, whatever the assistants predict."""
        return p < self.alpha

    def reason(self, p: float, q: float, *, replaced: bool, assistant: int = 0) -> str:  # noqa: ARG002
        """Which comparison decided."""
        if p >= self.alpha:
            return f"the draft was sure: p = {p:.2f} is not below alpha = {self.alpha:g}"
        bound = self.beta * p
        unsure = f"the draft was unsure (p = {p:.2f} < alpha = {self.alpha:g})"
        if replaced:
            return f"{unsure} and the assistant sure enough (q = {q:.2f} > beta x p = {bound:.2f})"
        return f"{unsure}, but the assistant was not sure enough (q = {q:.2f} <= beta x p = {bound:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Name and thresholds."""
        return {"name": self.name, "alpha": self.alpha, "beta": self.beta}
