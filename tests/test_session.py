"""Claim: whatever rows come, go and change their ends, a session's logits are those of an uncached pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosd_core import LanguageModel
from cosd_core.models.cache import RowCache
from tests.models import VOCABULARY, counted_passes
from tests.test_architectures import pair

tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=12)
prompt = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30)


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2", "falcon alibi", "gpt_neo", "gemma3 text"])
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_sequence_of_changes(name: str, data: st.DataObject) -> None:
    assert_agrees_throughout(name, data)


@pytest.mark.parametrize("name", ["mamba", "falcon_h1", "lfm2", "rwkv", "roberta", "openai-gpt"])
@settings(deadline=None, max_examples=15)
@given(data=st.data())
@torch.inference_mode()  # some of these write into their states
def test_any_sequence_of_changes_to_rows_that_share_no_passes(name: str, data: st.DataObject) -> None:
    assert_agrees_throughout(name, data)


def assert_agrees_throughout(name: str, data: st.DataObject) -> None:
    model, _ = pair(name)
    session = model.open_session(vocabulary=VOCABULARY)
    rows: list[list[int]] = data.draw(st.lists(prompt, min_size=1, max_size=3))
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans(), label="is asked"):  # a lazy assistant is not, for many rounds
            last = data.draw(st.integers(1, 5))
            assert_agrees(session.logits(rows, last=last), model, rows)
        stay = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)), label="stay")
        if not all(stay):
            session.select([at for at, stays in enumerate(stay) if stays])
            rows = [ids for ids, stays in zip(rows, stay, strict=True) if stays]
        rows = [ids[: data.draw(st.integers(1, len(ids)))] + data.draw(tokens) for ids in rows]
        rows += data.draw(st.lists(prompt, min_size=not rows, max_size=2), label="come")
    assert_agrees(session.logits(rows, last=1), model, rows)


def assert_agrees(logits: torch.Tensor, model: LanguageModel, rows: list[list[int]]) -> None:
    for ids, ours in zip(rows, logits, strict=True):
        with torch.inference_mode():
            theirs = model.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        places = min(len(ids), len(ours))
        torch.testing.assert_close(ours[-places:], theirs[-places:], rtol=1e-4, atol=1e-4)


def test_a_new_row_feeds_its_prompt_alone_and_the_others_only_what_they_miss() -> None:
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


def test_rows_that_come_before_the_first_pass_are_no_special_case() -> None:
    model, _ = pair("llama")
    session = model.open_session(vocabulary=VOCABULARY)
    session.select([0])
    with counted_passes(model) as passes:
        logits = session.logits([[1, 2], [3]], last=2)
    assert len(passes) == 1
    assert_agrees(logits, model, [[1, 2], [3]])


@pytest.mark.parametrize(("name", "copies"), [("llama", 3), ("mistral", 40), ("falcon alibi", 40)])
def test_uneven_ends_leave_gaps_where_attention_goes_by_positions_and_few_copies(
    name: str, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = pair(name)
    session = model.open_session(vocabulary=VOCABULARY)
    moved: list[int] = []
    close = RowCache._close_gaps
    monkeypatch.setattr(RowCache, "_close_gaps", lambda cache: (moved.append(cache.width), close(cache)))
    rows = [[1, 2, 3], [4, 5]]
    for round_ in range(40):
        drafted = [[*ids, 7, 8, 9, 10] for ids in rows]
        session.logits(drafted, last=4)
        kept = (1, 4) if round_ % 2 else (4, 1)  # of the drafted tokens
        rows = [ids[: len(ids) - 4 + count] for ids, count in zip(drafted, kept, strict=True)]
        rows = [[*ids, 11] for ids in rows]
    assert_agrees(session.logits(rows, last=1), model, rows)
    assert len(moved) <= copies
    assert copies < 40 or len(moved) >= 30
