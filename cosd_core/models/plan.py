"""How a transformers model is run: which cache it needs, and how it may be fed."""

from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedModel

from cosd_core.models.cache import DecodingCache, NoCache, RowCache
from cosd_core.models.state_cache import StateCache
from cosd_core.models.traits import ModelTraits


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is run.

    Attributes:
        strategy: The kind of cache. ``"attention"``: keys and values per position, of which any suffix can be
            removed. ``"states"``: recurrent states, of which snapshots are kept. ``"uncached"``: none, every
            pass processes the whole row.
        batched: Whether rows of different lengths share a pass.
        gaps: Whether masked gaps between cached positions change nothing.
        blockwise: Whether several ids can be fed at once after a cached state.
        position_ids: Whether passes are given position ids, if ``forward`` takes them.
        cache_argument: The name under which ``forward`` takes its cache.
        model_cache: Whether the model creates its cache itself, of a class of its own.
    """

    strategy: Literal["attention", "states", "uncached"]
    batched: bool = False
    gaps: bool = False
    blockwise: bool = True
    position_ids: bool = True
    cache_argument: str = "past_key_values"
    model_cache: bool = False

    def forward_arguments(self, traits: ModelTraits) -> frozenset[str]:
        """The optional arguments that the model's passes are given."""
        return traits.forward_arguments - (set() if self.position_ids else {"position_ids"})

    def empty_cache(self, model: PreTrainedModel, traits: ModelTraits, rows: int = 1) -> DecodingCache:
        """An empty cache for so many rows; plans that are not batched allow one."""
        if self.strategy == "attention":
            return RowCache(rows, gaps=self.gaps)
        if self.strategy == "states":
            return StateCache(self.cache_argument, None if self.model_cache else model.config)
        return NoCache(use_cache_argument="use_cache" in traits.forward_arguments)

    def __str__(self) -> str:
        """The strategy in words."""
        if self.strategy == "states":
            return "states, in blocks" if self.blockwise else "states, token by token"
        return self.strategy
