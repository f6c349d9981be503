"""Claim: after any changes to the rows, a session returns the logits of uncached passes."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import CoSDDecoder, LanguageModel
from cosd_core.models.base import PendingPredictions, Positions, Rows, Session
from cosd_core.models.cache import RowCache
from cosd_core.prediction import Prediction
from tests.grids import every
from tests.models import VOCABULARY, counted_passes
from tests.test_architectures import pair

tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)
prompt = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30)


@pytest.mark.parametrize(
    "name", every(3, ["llama", "mistral", "gpt2", "falcon alibi", "gpt_neo", "gemma3 text"])
)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_sequence_of_changes(name: str, data: st.DataObject) -> None:
    assert_agrees_throughout(name, data)


@pytest.mark.parametrize("name", every(2, ["mamba", "falcon_h1", "lfm2", "rwkv", "roberta", "openai-gpt"]))
@settings(deadline=None, max_examples=15)
@given(data=st.data())
@torch.inference_mode()  # some of these models modify their states in place
def test_any_sequence_of_changes_in_sequential_sessions(name: str, data: st.DataObject) -> None:
    assert_agrees_throughout(name, data)


def assert_agrees_throughout(name: str, data: st.DataObject) -> None:
    model, _ = pair(name)
    session = model.open_session(vocabulary=VOCABULARY)
    rows: list[list[int]] = data.draw(st.lists(prompt, min_size=1, max_size=3))
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans(), label="runs"):  # with a lazy schedule an assistant skips rounds
            last = data.draw(st.integers(1, 5))
            assert_agrees(session.logits(rows, last=last), model, rows)
        keep = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)), label="keep")
        if not all(keep):
            session.select([at for at, kept in enumerate(keep) if kept])
            rows = [ids for ids, kept in zip(rows, keep, strict=True) if kept]
        rows = [ids[: data.draw(st.integers(1, len(ids)))] + data.draw(tokens) for ids in rows]
        if session.num_rows in (0, len(rows)) and rows and data.draw(st.booleans(), label="read"):
            read_in_chunks(session, rows, most=data.draw(st.integers(1, 20)))
        if session.num_rows == len(rows) and data.draw(st.booleans(), label="join"):
            other, others = model.open_session(vocabulary=VOCABULARY), data.draw(st.lists(prompt, max_size=2))
            if others:
                assert_agrees(other.logits(others, last=1), model, others)
            session.join(other)
            rows += others
        rows += data.draw(st.lists(prompt, min_size=not rows, max_size=2), label="add")
    assert_agrees(session.logits(rows, last=1), model, rows)


def read_in_chunks(session: Session, rows: list[list[int]], *, most: int) -> None:
    for _ in range(100):
        if session.read(rows, most):
            return
    raise AssertionError("the rows hold fewer ids")


def assert_agrees(logits: torch.Tensor, model: LanguageModel, rows: list[list[int]]) -> None:
    for ids, found in zip(rows, logits, strict=True):
        with torch.inference_mode():
            expected = model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        positions = min(len(ids), len(found))
        torch.testing.assert_close(found[-positions:], expected[-positions:], rtol=1e-4, atol=1e-4)


def test_a_new_row_prefills_its_prompt_separately_and_the_others_feed_their_new_ids_only() -> None:
    model, _ = pair("llama")
    session = model.open_session(vocabulary=VOCABULARY)
    fed: list[tuple[int, ...]] = []
    handle = model.model.register_forward_pre_hook(
        lambda _module, _arguments, named: fed.append(tuple(named["input_ids"].shape)), with_kwargs=True
    )
    try:
        session.logits([[1, 2, 3], [4, 5]], last=1)
        session.logits([[1, 2, 3, 4], [4, 5, 6], list(range(20))], last=1)
        session.logits([[1, 2, 3, 4, 5], [4, 5, 6, 7], list(range(21)), [8]], last=1)
    finally:
        handle.remove()
    assert fed == [(2, 3), (1, 19), (3, 1), (4, 1)]


def test_rows_may_be_selected_before_the_first_pass() -> None:
    model, _ = pair("llama")
    session = model.open_session(vocabulary=VOCABULARY)
    session.select([0])
    with counted_passes(model) as passes:
        logits = session.logits([[1, 2], [3]], last=2)
    assert len(passes) == 1
    assert_agrees(logits, model, [[1, 2], [3]])


@pytest.mark.parametrize(("name", "copies"), [("llama", 3), ("mistral", 40), ("falcon alibi", 40)])
def test_uneven_rollbacks_leave_gaps_instead_of_copies_where_attention_uses_positions_only(
    name: str, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = pair(name)
    session = model.open_session(vocabulary=VOCABULARY)
    copied: list[int] = []
    close = RowCache._close_gaps
    monkeypatch.setattr(RowCache, "_close_gaps", lambda cache: (copied.append(cache.width), close(cache)))
    rows = [[1, 2, 3], [4, 5]]
    for round_ in range(40):
        drafted = [[*ids, 7, 8, 9, 10] for ids in rows]
        session.logits(drafted, last=4)
        kept = (1, 4) if round_ % 2 else (4, 1)  # of the drafted tokens
        rows = [ids[: len(ids) - 4 + count] for ids, count in zip(drafted, kept, strict=True)]
        rows = [[*ids, 11] for ids in rows]
    assert_agrees(session.logits(rows, last=1), model, rows)
    assert len(copied) <= copies
    assert copies < 40 or len(copied) >= 30


class _ServedModel(LanguageModel):
    """A model whose sessions run passes in another thread and return predictions only, as a server would."""

    def open_session(self, **options: Any) -> Any:
        return _ServedSession(super().open_session(**options))


class _ServedSession(Session):
    def __init__(self, session: Session) -> None:
        self._session = session

    def submit(self, rows: Rows, positions: Positions, *, keep_logits: bool = False) -> PendingPredictions:
        assert not keep_logits
        with ThreadPoolExecutor(1) as server:
            return _ServedPredictions(server.submit(self._session.predict, rows, positions))

    def select(self, rows: Sequence[int]) -> None:
        self._session.select(rows)


@dataclass
class _ServedPredictions(PendingPredictions):
    future: Future[list[list[Prediction]]]

    def result(self) -> list[list[Prediction]]:
        return self.future.result()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding_needs_no_logits_of_a_backend(temperature: float) -> None:
    models = pair("llama")
    served = [_ServedModel(model.model, model.tokenizer, name=model.name) for model in models]
    prompts, options = ["a", "Hello, world"], {"max_new_tokens": 12, "temperature": temperature, "seed": 3}
    texts = [CoSDDecoder(*each).generate(prompts, **options) for each in (models, served)]
    assert [each.token_ids for each in texts[0]] == [each.token_ids for each in texts[1]]
