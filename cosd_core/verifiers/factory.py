"""Verifiers from names and dictionaries, and the calibration that goes with one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cosd_core.errors import InvalidOptionError, VerifierError, quoted
from cosd_core.options import check_calibration, named
from cosd_core.utils.guarded import guarded
from cosd_core.verifiers.base import Verifier
from cosd_core.verifiers.baselines import (
    AssistantVerifier,
    AverageVerifier,
    DraftVerifier,
    SpeculativeVerifier,
)
from cosd_core.verifiers.panel import PanelVerifier
from cosd_core.verifiers.recorded import RecordedVerifier
from cosd_core.verifiers.rule import RuleVerifier
from cosd_core.verifiers.tree import TreeVerifier

_BY_NAME: dict[str, type[Verifier]] = {
    kind.name: kind
    for kind in (RuleVerifier, DraftVerifier, AssistantVerifier, SpeculativeVerifier, AverageVerifier)
}


def make_verifier(verifier: str | Mapping[str, Any] | Verifier | Sequence[Any]) -> Verifier:
    """Make a verifier from its name, with default settings, or from its ``to_dict``; verifiers pass through.

    A list of these makes a :class:`PanelVerifier`: one verifier per assistant.

    Raises:
        InvalidOptionError: The name or a setting is unknown, or a member of a list does not judge one
            assistant by two confidences.
        VerifierFileError: A node of a tree is of no known form.
    """
    if isinstance(verifier, Verifier):
        if not isinstance(getattr(verifier, "name", None), str):
            raise InvalidOptionError(
                f"{type(verifier).__qualname__}.name should be the verifier's name, a text"
            )
        return verifier
    if isinstance(verifier, Mapping):
        kinds: dict[str, Callable[..., Verifier]] = {
            **_BY_NAME,
            TreeVerifier.name: TreeVerifier.from_dict,
            PanelVerifier.name: _make_panel,
        }
        return named("verifier", verifier, kinds)
    if isinstance(verifier, (list, tuple)):
        return _make_panel(verifier)
    if verifier == TreeVerifier.name:
        raise InvalidOptionError(
            'verifier="tree" needs a tree: TreeVerifier.load("tree.json"), or tree_path (--tree-path)'
        )
    if not isinstance(verifier, str) or verifier not in _BY_NAME:
        raise InvalidOptionError(
            f"verifier={quoted(verifier)} should be a Verifier or one of {', '.join(_BY_NAME)}, or tree "
            "with the tree's file: tree_path, on the command line --tree-path"
        )
    return _BY_NAME[verifier]()


def read_verifier(described: Any) -> Verifier:
    """The verifier whose ``to_dict`` this is; of a user's own class a :class:`RecordedVerifier`.

    Raises:
        InvalidOptionError: It has no name, or a setting of a verifier of cosd is wrong.
        VerifierFileError: A node of a tree is of no known form.
    """
    name = described.get("name") if isinstance(described, Mapping) else None
    if not isinstance(name, str):
        raise InvalidOptionError(f"verifier={quoted(described)} should be a dictionary with a name")
    if name == PanelVerifier.name and isinstance(members := described.get("members"), (list, tuple)):
        return _make_panel([read_verifier(member) for member in members])
    if name in (*_BY_NAME, TreeVerifier.name, PanelVerifier.name):
        return make_verifier(described)
    return RecordedVerifier(dict(described))


def calibration_of(verifier: Verifier, calibration: object, models: int) -> tuple[float, ...]:
    """The temperatures of the models' confidences: the given ones, else the verifier's own, else all 1.

    Raises:
        InvalidOptionError: They are not as many as the models, or one is no number from 0.01 to 100.
    """
    if calibration is None:
        with guarded(VerifierError, verifier):
            calibration = verifier.calibration
    return check_calibration(calibration, models)


def _make_panel(members: Any) -> PanelVerifier:
    if isinstance(members, (list, tuple)):
        members = tuple(map(make_verifier, members))
    return PanelVerifier(members)  # refuses anything else with a message
