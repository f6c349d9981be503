"""Verifiers decide which token is kept: the paper's rule and tree, and the baselines of the comparison."""

from cosd_core.verifiers.base import ConfidenceVerifier, PairwiseVerifier, Verifier, verify_block
from cosd_core.verifiers.baselines import (
    AssistantVerifier,
    AverageVerifier,
    DraftVerifier,
    SpeculativeVerifier,
)
from cosd_core.verifiers.factory import calibration_of, make_verifier, read_verifier
from cosd_core.verifiers.nodes import Leaf, Split
from cosd_core.verifiers.panel import PanelVerifier
from cosd_core.verifiers.recorded import RecordedVerifier
from cosd_core.verifiers.rule import RuleVerifier
from cosd_core.verifiers.tree import TreeVerifier
from cosd_core.verifiers.types import Position, TokenSampler

__all__ = [
    "AssistantVerifier",
    "AverageVerifier",
    "ConfidenceVerifier",
    "DraftVerifier",
    "Leaf",
    "PairwiseVerifier",
    "PanelVerifier",
    "Position",
    "RecordedVerifier",
    "RuleVerifier",
    "SpeculativeVerifier",
    "Split",
    "TokenSampler",
    "TreeVerifier",
    "Verifier",
    "calibration_of",
    "make_verifier",
    "read_verifier",
    "verify_block",
]
