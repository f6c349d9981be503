"""Who decides which token stands: the paper's rule and tree, and the baselines they are compared with."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import check_calibration, named
from cosd_core.verifiers.base import ConfidenceVerifier, PairwiseVerifier, Verifier, verify_block
from cosd_core.verifiers.baselines import (
    AssistantVerifier,
    AverageVerifier,
    DraftVerifier,
    SpeculativeVerifier,
)
from cosd_core.verifiers.nodes import Leaf, Split
from cosd_core.verifiers.panel import PanelVerifier
from cosd_core.verifiers.rule import RuleVerifier
from cosd_core.verifiers.tree import TreeVerifier
from cosd_core.verifiers.tree_base import LearnedTree, read_tree
from cosd_core.verifiers.types import Position, TokenSampler
from cosd_core.verifiers.wide import WideTreeVerifier

_BY_NAME: dict[str, type[Verifier]] = {
    kind.name: kind
    for kind in (RuleVerifier, DraftVerifier, AssistantVerifier, SpeculativeVerifier, AverageVerifier)
}
_TREES: tuple[type[LearnedTree], ...] = (TreeVerifier, WideTreeVerifier)


def make_verifier(verifier: str | Mapping[str, Any] | Verifier | Sequence[Any]) -> Verifier:
    """A verifier from its name, with default settings, or from what ``to_dict`` says; verifiers pass through.

    Of a list of these, the first judges the first assistant, and so on.

    Raises:
        InvalidOptionError: There is no verifier of that name, it has no such settings, or those of a list
            cannot judge an assistant each.
        VerifierFileError: A tree's nodes are none.
    """
    if isinstance(verifier, Verifier):
        return verifier
    if isinstance(verifier, Mapping):
        kinds: dict[str, Callable[..., Verifier]] = {
            **_BY_NAME,
            **{kind.name: kind.of for kind in _TREES},
            PanelVerifier.name: _panel,
        }
        return named("verifier", verifier, kinds)
    if isinstance(verifier, (list, tuple)):
        return _panel(verifier)
    for kind in _TREES:
        if verifier == kind.name:
            raise InvalidOptionError(
                f'verifier="{kind.name}" needs a tree: pass {kind.__name__}.load("tree.json")'
            )
    if not isinstance(verifier, str) or verifier not in _BY_NAME:
        raise InvalidOptionError(
            f"verifier={quoted(verifier)} should be a Verifier or one of {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[verifier]()


def load_tree(path: str | Path) -> LearnedTree:
    """Read a tree that either kind's ``save`` wrote.

    Raises:
        VerifierFileError: The file is missing, too large, no JSON, or no tree of this format.
    """
    return read_tree(path, _TREES)


def calibration_of(verifier: Verifier, calibration: object, models: int) -> tuple[float, ...]:
    """The temperatures of the models' confidences: those given, or else the verifier's own, or else all 1.

    Args:
        verifier: Who judges.
        calibration: What the user gave: one number per model, the draft's first, or None.
        models: How many models there are.

    Raises:
        InvalidOptionError: They are not as many as the models, or one is no number from 0.01 to 100.
    """
    return check_calibration(verifier.calibration if calibration is None else calibration, models)


def _panel(members: Any) -> PanelVerifier:
    if isinstance(members, (list, tuple)):
        members = tuple(map(make_verifier, members))
    return PanelVerifier(members)  # which says what is wrong with anything else


__all__ = [
    "AssistantVerifier",
    "AverageVerifier",
    "ConfidenceVerifier",
    "DraftVerifier",
    "Leaf",
    "LearnedTree",
    "PairwiseVerifier",
    "PanelVerifier",
    "Position",
    "RuleVerifier",
    "SpeculativeVerifier",
    "Split",
    "TokenSampler",
    "TreeVerifier",
    "Verifier",
    "WideTreeVerifier",
    "calibration_of",
    "load_tree",
    "make_verifier",
    "verify_block",
]
