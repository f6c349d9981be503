"""The verifier of a saved generation whose class is not one of cosd."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.verifiers.base import ConfidenceVerifier


@dataclass(frozen=True, slots=True)
class RecordedVerifier(ConfidenceVerifier):
    """Name and settings of a verifier of a user's own class, as its ``to_dict`` returned them.

    It explains a saved generation, and decides nothing.

    Attributes:
        described: The name and the settings.
    """

    described: Mapping[str, Any]

    @property
    def name(self) -> str:  # type: ignore[override]
        """The word by which the user's class is chosen."""
        return str(self.described["name"])

    def replaces(self, p: float, q: float) -> bool:  # noqa: ARG002
        """Refused.

        Raises:
            InvalidOptionError: Always.
        """
        raise InvalidOptionError(
            f"verifier={quoted(self.described)} comes from a saved generation and cannot decide: "
            "give a verifier of its class"
        )

    def to_dict(self) -> dict[str, Any]:
        """Name and settings."""
        return dict(self.described)
