"""Compares a choice of vLLM with the method written plainly."""

from collections.abc import Sequence
from typing import Any

import pytest

from cosd_core import LanguageModel
from cosd_core.serving.vllm import read_provenance
from tests.models import EOS
from tests.reference import Written, write


def assert_as_written(
    choice: Any, pair: Sequence[LanguageModel], verifier: Any, prompt: Sequence[int], **options: Any
) -> Written:
    """The ids, the writers, the predictions and the confidences are the reference's, which is returned."""
    draft, assistant = pair
    written = write(draft, [assistant], verifier, prompt, **options)
    ids, decided = list(choice.token_ids), list(read_provenance(choice))
    assert [token.id for token in decided] == ids
    if "pattern" in options and written.finish_reason == "stop" and len(ids) > len(written.ids):
        # The reference ends where the grammar admits no more; vLLM writes the end token, which it admits.
        assert ids.pop() == EOS
        end = decided.pop()
        assert (end.source, end.p, end.q) == ("draft", 1.0, 1.0)
    assert ids == list(written.ids)
    for token, place in zip(decided, written.places, strict=True):
        (y, q) = place.answers[0]
        assert token.source == ("draft" if place.writer is None else "assistant")
        assert (token.draft_id, token.assistant_id) == (place.x, y)
        assert token.p == pytest.approx(place.p, abs=1e-4)
        assert token.q == pytest.approx(q, abs=1e-4)
    return written
