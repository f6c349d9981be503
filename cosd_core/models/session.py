"""One transformers model over a batch of rows: it is given ids, feeds what is missing, returns logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.functional import pad

from cosd_core.errors import GenerationError, ModelOutputError, quoted
from cosd_core.models.cache import DecodingCache, RowCache
from cosd_core.models.forward import pass_arguments
from cosd_core.models.language_model import LanguageModel
from cosd_core.utils import agreed_prefix

_REPLAYED = 16
"""Fewer ids than this are rather fed again with every block than once in a pass of their own."""

_WHOLE = 64
"""If so many places are wanted, a whole text is read in one pass even where later ids go one by one."""


class Session:
    """A model at work on some rows.

    Nobody tells it to commit or to roll back. It is given the ids that every row has now, keeps its cache
    up to the longest prefix that agrees with them, and feeds the rest. Rows beyond those it has seen are new.

    All rows of a pass feed equally many of their last ids: a row that misses fewer feeds some of its
    cached ones again. So there is padding only on the far left, never between cached and new positions,
    which every attention mask gets right. What a new row has more than the others feed, it feeds before
    them, or all would have to feed the whole of its prompt.

    Rows whose model does not let them share passes are read one after another, each with a memory of its own.
    """

    def __init__(self, model: LanguageModel, *, vocabulary: int) -> None:
        self.model = model
        self._vocabulary = vocabulary
        self._plan = model.plan
        self._takes = self._plan.takes(model)
        # Who counts positions itself leaves out padding tokens, but forgets from pass to pass how many.
        padding = getattr(model.model.config.get_text_config(), "pad_token_id", None)
        self._uncounted: int | None = None if self._plan.positions else padding
        self._cache = RowCache(0, gaps=self._plan.gaps)
        self._cached: list[list[int]] = []
        self._alone: list[_Row] = []

    def logits(self, rows: Sequence[list[int]], *, last: int) -> torch.Tensor:
        """The logits that follow each of the last ``last`` ids of every row.

        Args:
            rows: All ids of every row, prompt included; none is empty. New rows come after the others.
            last: How many positions to return. Positions before a row's first id hold garbage.

        Returns:
            ``[rows, last, vocabulary]`` on the model's output device.

        Raises:
            GenerationError: The forward pass failed.
            ModelOutputError: The logits are of an unexpected shape.
        """
        if not self._plan.together:
            self._alone += [_Row(self._plan.memory(self.model)) for _ in rows[len(self._alone) :]]
            return torch.cat([self._logits(*each, last) for each in zip(self._alone, rows, strict=True)])
        if not self._cached:
            self._cache, self._cached = RowCache(len(rows), gaps=self._plan.gaps), [[] for _ in rows]
        known = len(self._cached)
        missing = [
            len(ids) - agreed_prefix(ids, old) for ids, old in zip(rows[:known], self._cached, strict=True)
        ]
        fed = max(*missing, last)
        lengths = [max(len(ids) - fed, 0) for ids in rows]
        self._cache.rewind(lengths[:known])
        if known < len(rows):
            self._cache.join(self._read(rows[known:], lengths[known:]))
        logits = self._feed(self._cache, rows, fed, last)
        self._cached = [list(ids) for ids in rows]
        return logits

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, given in their order."""
        self._alone = [self._alone[row] for row in rows if row < len(self._alone)]
        known = [row for row in rows if row < len(self._cached)]
        self._cached = [self._cached[row] for row in known]
        if known:
            self._cache.select(known)
        else:
            self._cache = RowCache(0, gaps=self._plan.gaps)

    def _read(self, rows: Sequence[list[int]], lengths: Sequence[int]) -> RowCache:
        """A cache of the first ``lengths[row]`` ids of every row."""
        cache = RowCache(len(rows), gaps=self._plan.gaps)
        if any(lengths):
            # One id at least: not every kind of attention takes a row that is nothing but padding.
            heads = [ids[: max(length, 1)] for ids, length in zip(rows, lengths, strict=True)]
            self._feed(cache, heads, fed=max(lengths), last=1)
            cache.rewind(lengths)
        return cache

    def _logits(self, row: "_Row", ids: list[int], last: int) -> torch.Tensor:
        """What :meth:`logits` returns of a row that shares no passes, ``[1, last, vocabulary]``."""
        memory, switch = row.memory, self.model.rope_switch
        done = max(len(ids) - last, 0)  # whose logits are not wanted, or found
        memory.rewind([min(agreed_prefix(ids, row.ids), done)])
        if self._uncounted in ids:
            memory.rewind([0])
        found = []
        for end in self._ends(memory.lengths[0], len(ids), done + 1):
            beyond = switch is not None and end > switch
            if beyond != row.beyond:  # what is remembered was encoded in another way
                memory.rewind([0])
            row.beyond = beyond
            logits = self._feed(memory, [ids[:end]], end - memory.lengths[0], max(end - done, 1))
            if end > done:
                found.append(logits)
                done = end
        row.ids = list(ids)
        logits = torch.cat(found, dim=1)
        return pad(logits, (0, 0, last - logits.shape[1], 0))

    def _ends(self, known: int, length: int, first: int) -> Iterator[int]:
        """Where the passes end that read a row of this length.

        Args:
            known: How many ids are remembered.
            length: How many there are.
            first: Behind so many, logits are wanted for the first time. What follows are mostly drafted
                tokens, so a state that has read no more is worth a pass.
        """
        if not self._plan.blocks and (known or length - first < _WHOLE):
            yield from range(known + 1 if known else first, length)
        elif self._plan.strategy == "states" and first - known >= _REPLAYED and first < length:
            yield first
        elif (switch := self.model.rope_switch) is not None and first <= switch < length:
            yield switch
        yield length

    def _feed(self, cache: DecodingCache, rows: Sequence[list[int]], fed: int, last: int) -> torch.Tensor:
        """One pass over the last ``fed`` ids of every row, after those that are cached."""
        arguments = pass_arguments(cache, rows, fed, device=self.model.device, takes=self._takes)
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = last
        try:
            with self.model.lock:
                output = self.model.model(**arguments)
            cache.passed(output)
            logits: torch.Tensor = output.logits
        except Exception as error:
            raise GenerationError(
                f"the forward pass of model {self.model.name!r} over {len(rows)} x {fed} tokens failed: "
                f"{type(error).__name__}: {quoted(error)}"
            ) from error
        if not isinstance(logits, torch.Tensor) or logits.ndim != 3:
            what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelOutputError(
                f"model {self.model.name!r} returned {what} for logits; three dimensions were expected"
            )
        logits = logits[:, -last:, : self._vocabulary]
        if logits.shape != (len(rows), last, self._vocabulary):
            raise ModelOutputError(
                f"model {self.model.name!r} returned logits of shape {tuple(logits.shape)} where "
                f"{(len(rows), last, self._vocabulary)} was expected"
            )
        return logits


@dataclass
class _Row:
    """A row that shares no passes.

    Attributes:
        memory: What the model has of its ids.
        ids: Those it was last given.
        beyond: Whether they were read as a text that is longer than the model's switch.
    """

    memory: DecodingCache
    ids: list[int] = field(default_factory=list)
    beyond: bool = False
