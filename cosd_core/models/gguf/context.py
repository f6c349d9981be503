"""A llama.cpp context: the cached positions of some rows, and the passes over them."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import finalize

import numpy as np
import torch

from cosd_core.errors import GenerationError, OutOfMemoryError, quoted
from cosd_core.models.gguf.library import llama_cpp, logged_problems, reason
from cosd_core.models.gguf.weights import LoraAdapter, Weights

MAX_ROWS = 256
"""The most sequences of one context (``LLAMA_MAX_SEQ``)."""

_PASS_TOKENS = 512
"""The most tokens of one pass."""

_PASS_OUTPUTS = 64
"""The most positions of one pass whose logits are kept; llama.cpp reserves memory for as many."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Ids to process.

    Attributes:
        row: The sequence that they belong to.
        start: The position of the first one.
        ids: The ids; the positions before ``start`` are cached.
        outputs: Of how many of the last ones the logits are wanted.
    """

    row: int
    start: int
    ids: Sequence[int]
    outputs: int


class Context:
    """The cache of several rows of a model. One thread at a time may use it.

    All rows share one pool of positions (``kv_unified``): a row takes as many of them as its text has tokens.

    Attributes:
        weights: The model.
        adapter: The adapter over it, or None.
        positions: How many positions all rows may hold together.
        rows: How many rows there can be.
    """

    def __init__(
        self, weights: Weights, adapter: LoraAdapter | None, *, positions: int, rows: int, threads: int
    ) -> None:
        """Allocate a cache.

        Raises:
            OutOfMemoryError: There is no memory for it.
            GenerationError: llama.cpp takes the adapter or the model not.
        """
        llama = llama_cpp()
        self.weights, self.adapter = weights, adapter
        self.rows, self._threads = rows, threads
        parameters = llama.llama_context_default_params()
        parameters.n_ctx = positions
        parameters.n_batch = parameters.n_ubatch = min(_PASS_TOKENS, positions)
        parameters.n_outputs_max = self._outputs = max(rows, min(_PASS_OUTPUTS, positions))
        parameters.n_seq_max = rows
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True
        parameters.swa_full = True  # otherwise a window has forgotten what a rollback needs
        parameters.no_perf = True
        with logged_problems() as problems:
            self._pointer: Any = llama.llama_init_from_model(weights.pointer, parameters)
        if not self._pointer:
            raise OutOfMemoryError(
                f"model {quoted(weights.path)}: llama.cpp cannot make a context of {positions} tokens, for "
                f"which there may be no memory: {reason(problems)}"
            )
        self.close = finalize(self, llama.llama_free, self._pointer)
        self.positions = int(llama.llama_n_ctx(self._pointer))
        self._memory: Any = llama.llama_get_memory(self._pointer)
        self._tokens = int(llama.llama_n_batch(self._pointer))
        self._batch = _Batch(self._tokens)
        if not self._memory:
            raise GenerationError(f"model {quoted(weights.path)} has no cache: it is no causal model")
        if adapter is not None:
            adapters = (llama.llama_adapter_lora_p_ctypes * 1)(adapter.pointer)
            if llama.llama_set_adapters_lora(self._pointer, adapters, 1, (ctypes.c_float * 1)(1.0)):
                raise GenerationError(f"llama.cpp does not take adapter {quoted(adapter.path)}")

    def rewind(self, row: int, length: int) -> bool:
        """Forget the positions of a row from ``length`` on; false if the model cannot forget some only."""
        return bool(llama_cpp().llama_memory_seq_rm(self._memory, row, length, -1))

    def clear(self) -> None:
        """Forget all rows."""
        llama_cpp().llama_memory_clear(self._memory, False)

    def larger(self, *, positions: int, rows: int) -> "Context":
        """A larger context with the same cached positions.

        Raises:
            OutOfMemoryError: There is no memory for it.
        """
        other = Context(self.weights, self.adapter, positions=positions, rows=rows, threads=self._threads)
        for row in range(self.rows):
            cached = llama_cpp().llama_memory_seq_pos_max(self._memory, row) >= 0
            if cached and not other.restore(row, self.saved(row)):
                raise GenerationError(f"llama.cpp cannot copy the cache of model {quoted(self.weights.path)}")
        return other

    def saved(self, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """A copy of what is cached of a row."""
        llama = llama_cpp()
        state = np.empty(llama.llama_state_seq_get_size(self._pointer, row), np.uint8)
        llama.llama_state_seq_get_data(self._pointer, _address(state), state.size, row)
        return state

    def restore(self, row: int, state: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
        """Cache what :meth:`saved` returned, as this row; false if llama.cpp does not."""
        llama = llama_cpp()
        return bool(llama.llama_state_seq_set_data(self._pointer, _address(state), state.size, row))

    def run(self, feeds: Sequence[Feed], *, vocabulary: int) -> torch.Tensor:
        """Process ids, in as few passes as llama.cpp admits.

        Returns:
            The logits of all outputs in the order of the feeds, ``[outputs, vocabulary]``, float32.

        Raises:
            OutOfMemoryError: There is no memory for a pass.
            GenerationError: A pass failed.
        """
        logits = torch.empty(sum(feed.outputs for feed in feeds), vocabulary)
        ids = np.fromiter((each for feed in feeds for each in feed.ids), np.int32)
        positions = np.concatenate([np.arange(feed.start, feed.start + len(feed.ids)) for feed in feeds])
        rows = np.repeat([feed.row for feed in feeds], [len(feed.ids) for feed in feeds])
        wanted = np.concatenate([np.arange(len(feed.ids), 0, -1) <= feed.outputs for feed in feeds])
        counts = np.cumsum(wanted)
        start = done = 0
        while start < len(ids):
            # As many tokens as have at most the admitted number of outputs.
            end = int(np.searchsorted(counts, done + self._outputs, side="right"))
            end = min(end, start + self._tokens)
            part = slice(start, end)
            self._batch.fill(ids[part], positions[part], rows[part], wanted[part])
            self._decode(end - start)
            found = int(counts[end - 1]) - done
            self._copy_logits(logits[done : done + found])
            start, done = end, done + found
        return logits

    def _decode(self, count: int) -> None:
        with logged_problems() as problems:
            status = llama_cpp().llama_decode(self._pointer, self._batch.first(count))
        if status == 0:
            return
        what = f"a pass of model {quoted(self.weights.path)} over {count} tokens failed"
        if status in (1, -2):  # no free positions; an allocation failed
            raise OutOfMemoryError(f"{what} for lack of memory: {reason(problems)}")
        raise GenerationError(f"{what} (status {status}): {reason(problems)}")

    def _copy_logits(self, target: torch.Tensor) -> None:
        """Copy the logits of the last pass, which llama.cpp overwrites in the next."""
        if not len(target):
            return
        size = self.weights.vocabulary_size
        address = ctypes.cast(llama_cpp().llama_get_logits(self._pointer), ctypes.c_void_p).value
        if address is None:
            raise GenerationError(f"model {quoted(self.weights.path)} returned no logits")
        block = (ctypes.c_float * (len(target) * size)).from_address(address)
        found = torch.frombuffer(block, dtype=torch.float32).view(len(target), size)
        target.copy_(found[:, : target.shape[1]])


def _address(state: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


class _Batch:
    """The arrays of a ``llama_batch``, allocated once."""

    def __init__(self, size: int) -> None:
        self._ids = np.empty(size, np.int32)
        self._positions = np.empty(size, np.int32)
        self._rows = np.empty(size, np.int32)
        self._wanted = np.empty(size, np.int8)
        self._row_counts = np.ones(size, np.int32)
        # llama.cpp takes a list of rows per token: here the address of its one row.
        self._row_lists = self._rows.ctypes.data + np.arange(size, dtype=np.uint64) * self._rows.itemsize
        llama = llama_cpp()
        batch = llama.llama_batch()
        for name, array in (
            ("token", self._ids), ("pos", self._positions), ("n_seq_id", self._row_counts),
            ("seq_id", self._row_lists), ("logits", self._wanted),
        ):  # fmt: skip
            kind = dict(llama.llama_batch._fields_)[name]
            setattr(batch, name, ctypes.cast(array.ctypes.data, kind))
        self._batch = batch

    def fill(self, ids: Any, positions: Any, rows: Any, wanted: Any) -> None:
        """Write tokens, from the first place on."""
        count = len(ids)
        self._ids[:count], self._positions[:count] = ids, positions
        self._rows[:count], self._wanted[:count] = rows, wanted

    def first(self, count: int) -> Any:
        """The batch of the first ``count`` tokens."""
        self._batch.n_tokens = count
        return self._batch
