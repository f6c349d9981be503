"""What of the vLLM plugin needs no vLLM: settings, and reading who wrote the tokens of an answer."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from cosd_core import CoSDError, InvalidOptionError, Leaf, RuleVerifier, TraceError, TreeVerifier
from cosd_core.serving.vllm import DecidedToken, read_provenance
from cosd_core.serving.vllm.batch import Batch
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


class Rows:
    """A batch of the worker without vLLM: models are tables of logits."""

    def __init__(self, prompts: list[list[int]], **settings: Any) -> None:
        self.requests = {
            str(at): SimpleNamespace(prompt_token_ids=prompt, output_token_ids=[], sampling_params=PARAMS)
            for at, prompt in enumerate(prompts)
        }
        self.batch = Batch(ServerSettings(**settings), 4, None, lambda _: None)

    def step(self, scheduled: list[list[int]], answers: list[list[int]], proposed: list[list[int]]) -> Any:
        """The assistant answers behind the text and each scheduled token; then the draft proposes."""
        self.batch.begin_step(self.requests, [*self.requests], [True] * len(scheduled))
        starts = [sum(len(each) + 1 for each in scheduled[:at]) for at in range(len(scheduled))]
        decided = self.batch.decide(sure([token for row in answers for token in row]), starts, scheduled)
        for request, tokens in zip(self.requests.values(), decided, strict=True):
            request.output_token_ids += [token.id for token in tokens]
        for column in zip(*proposed, strict=True):
            assert self.batch.draft(sure(column)).tolist() == [*column]
        return [[(token.id, token.source) for token in row] for row in decided]


PARAMS = SimpleNamespace(
    extra_args=None, min_tokens=0, temperature=0.0, top_p=1.0, top_k=0, repetition_penalty=1.0, seed=None,
    all_stop_token_ids=set(),
)  # fmt: skip


def sure(ids: Sequence[int]) -> torch.Tensor:
    """Logits of two padding tokens more than there are tokens, the highest at these ids."""
    return 3.0 * torch.nn.functional.one_hot(torch.tensor([*ids]), 6)


def test_a_row_without_proposals_gets_no_token_and_a_block_ends_at_its_first_replacement() -> None:
    rows = Rows([[0], [0, 1]], alpha=2)
    assert rows.step([[], []], [[1], [1]], [[1, 2, 3], [0, 0, 0]]) == [[], []]
    decided = rows.step([[1, 2, 3], [0, 0, 0]], [[1, 2, 3, 0], [0, 2, 0, 0]], [[0], [1]])
    assert decided == [
        [(1, "draft"), (2, "draft"), (3, "draft")],
        [(0, "draft"), (2, "assistant")],
    ]


def test_only_tokens_that_were_run_are_judged_and_the_one_behind_them() -> None:
    rows = Rows([[0], [0], [0]], alpha=0)
    rows.step([[], [], []], [[1], [1], [1]], [[1, 2, 3]] * 3)
    decided = rows.step([[1], [-1, -1, -1], []], [[0, 0], [0, 0, 0, 0], [0]], [[0]] * 3)
    assert [[token for token, _ in row] for row in decided] == [[1, 2], [1], [1]]


def test_a_text_of_another_request_with_the_same_id_is_not_continued() -> None:
    rows = Rows([[0]], alpha=0)
    rows.step([[]], [[1]], [[1, 2]])
    rows.requests["0"] = SimpleNamespace(prompt_token_ids=[3], output_token_ids=[], sampling_params=PARAMS)
    assert rows.step([[]], [[1]], [[2, 2]]) == [[]]
