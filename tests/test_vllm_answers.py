"""What of the vLLM plugin needs no vLLM: settings, and reading who wrote the tokens of an answer."""

import base64
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cosd_core import CoSDError, InvalidOptionError, Leaf, RuleVerifier, TraceError, TreeVerifier
from cosd_core.serving.vllm import DecidedToken, read_provenance
from cosd_core.serving.vllm.provenance import to_array
from cosd_core.serving.vllm.settings import ServerSettings

TOKENS = (DecidedToken("draft", 0.25, 0.5, 7, 7), DecidedToken("assistant", 0.125, 1.0, 3, 250_000))


def as_text(array: Any) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return base64.b64encode(buffer.getvalue()).decode()


def test_writers_are_read_from_objects_dictionaries_and_text() -> None:
    array = to_array(TOKENS)
    for choice in (
        SimpleNamespace(routed_experts=array),
        SimpleNamespace(routed_experts=as_text(array)),
        {"routed_experts": as_text(array), "text": "..."},
    ):
        assert read_provenance(choice) == TOKENS
    assert [token.id for token in TOKENS] == [7, 250_000]
    assert read_provenance({"routed_experts": to_array([])}) == ()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "does not say who wrote its tokens"),
        ("!", "is no array"),
        (base64.b64encode(b"text").decode(), "is no array"),
        (as_text(np.zeros((2, 4))), "should hold 5 numbers per token"),
        (as_text(np.zeros(5)), "should hold 5 numbers per token"),
        (as_text(np.full((1, 5), 2.0)), "a writer, 0 or 1"),
        (as_text(np.full((1, 5), np.nan)), "finite numbers"),
        (as_text(np.array([["a"] * 5])), "should hold 5 numbers per token"),
        (7, "should hold 5 numbers per token"),
    ],
)
def test_damaged_records_raise_errors(found: Any, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        read_provenance({"routed_experts": found})


def test_requests_change_the_verifier_of_the_server(tmp_path: Path) -> None:
    tree = TreeVerifier((Leaf(True),), {"calibration": [1.5, 2.0]})
    tree.save(tmp_path / "tree.json")
    settings = ServerSettings(alpha=0.7, tree_path=str(tmp_path / "tree.json"))
    assert settings.verifier_for(None) == RuleVerifier(0.7, 0.5)
    assert settings.verifier_for({"beta": 0}) == RuleVerifier(0.7, 0)
    assert settings.verifier_for({"verifier": "tree"}) == tree
    assert settings.calibration_for(tree) == (1.5, 2.0)
    assert settings.calibration_for(RuleVerifier()) == (1.0, 1.0)
    assert ServerSettings(calibration=[2, 3]).calibration_for(tree) == (2.0, 3.0)


def test_only_the_entry_cosd_counts() -> None:
    assert ServerSettings.of({}) is None
    assert ServerSettings.of({"other": 1}) is None
    assert ServerSettings.of({"cosd": {"alpha": 0.25}}) == ServerSettings(alpha=0.25)


@pytest.mark.parametrize(
    "settings", [{"alpa": 1}, {"alpha": -1}, {"verifier": "panel"}, {"verifier": "tree"}, {1: 2}]
)
def test_wrong_settings_are_refused(settings: Any) -> None:
    with pytest.raises(CoSDError):
        ServerSettings.of({"cosd": settings})
    with pytest.raises(InvalidOptionError):
        ServerSettings().verifier_for({"verifier": "panel"})
