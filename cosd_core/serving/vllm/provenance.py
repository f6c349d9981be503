"""Who wrote each token of vLLM's answers: written by the scheduler, read from answers.

vLLM has one field for arrays with a row per token that reaches both the answers of ``LLM`` and those of its
HTTP server: ``routed_experts``, in the choice of an answer. There it is base64 of a ``.npy`` file.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from cosd_core.errors import TraceError, quoted
from cosd_core.outputs import Source

FIELD = "routed_experts"
"""The field of a choice."""

_SOURCES: tuple[Source, ...] = ("draft", "assistant")
_COLUMNS = 5


@dataclass(frozen=True, slots=True)
class DecidedToken:
    """One token of an answer, and the predictions that led to it.

    Attributes:
        source: The model that wrote the token.
        p: The draft's confidence in ``draft_id``.
        q: The assistant's confidence in ``assistant_id``.
        draft_id: The draft's prediction.
        assistant_id: The assistant's prediction.
    """

    source: Source
    p: float
    q: float
    draft_id: int
    assistant_id: int

    @property
    def id(self) -> int:
        """The token in the text."""
        return self.draft_id if self.source == "draft" else self.assistant_id


def to_array(tokens: Sequence[DecidedToken]) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """A row per token: the writer (0: the draft, 1: the assistant), p, q, the two predictions."""
    rows = [(_SOURCES.index(token.source), *astuple(token)[1:]) for token in tokens]
    return np.array(rows, dtype=np.float64).reshape(-1, _COLUMNS)


def read_provenance(choice: Any) -> tuple[DecidedToken, ...]:
    """Who wrote each token of a choice: an entry per token of the text, an end token included.

    Args:
        choice: A ``CompletionOutput`` of vLLM, or a choice of an OpenAI response of completions or chat
            completions, as an object of the ``openai`` package or as a dictionary.

    Raises:
        TraceError: The choice has no such record, as the parts of a stream have none, or it is damaged.
    """
    found = choice.get(FIELD) if isinstance(choice, Mapping) else getattr(choice, FIELD, None)
    if found is None:
        raise TraceError(
            f"{quoted(choice)} does not say who wrote its tokens: it is not a choice of a finished answer of "
            "vLLM with cosd"
        )
    rows = _decoded(found) if isinstance(found, str) else found
    if not (isinstance(rows, np.ndarray) and rows.dtype == np.float64 and rows.shape[1:] == (_COLUMNS,)):
        raise TraceError(f"{FIELD}={quoted(found)} should hold {_COLUMNS} numbers per token")
    if not (np.isfinite(rows).all() and np.isin(rows[:, 0], (0, 1)).all()):
        raise TraceError(f"{FIELD} should hold a writer, 0 or 1, and finite numbers per token")
    return tuple(
        DecidedToken(_SOURCES[int(writer)], p, q, int(x), int(y)) for writer, p, q, x, y in rows.tolist()
    )


def _decoded(text: str) -> Any:
    try:
        return np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False)
    except (binascii.Error, ValueError, EOFError) as error:
        raise TraceError(f"{FIELD}={quoted(text)} is no array: {quoted(error)}") from error
