"""How a transformers model is run, and a forward pass over the ids that a cache does not hold yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from transformers import PreTrainedModel

from cosd_core.errors import GenerationError, ModelOutputError, quoted
from cosd_core.models.cache import DecodingCache, RowCache
from cosd_core.models.prefix_cache import Prefix, PrefixCache
from cosd_core.models.state_cache import StateCache
from cosd_core.models.traits import ModelTraits
from cosd_core.utils import Lock


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

    def empty_cache(self, model: PreTrainedModel, traits: ModelTraits, rows: int = 1) -> DecodingCache:
        """An empty cache for so many rows; plans that are not batched allow one."""
        if self.strategy == "attention":
            return RowCache(rows, gaps=self.gaps)
        if self.strategy == "states":
            return StateCache(self.cache_argument, None if self.model_cache else model.config)
        takes_use_cache = "use_cache" in traits.forward_arguments
        return DecodingCache(use_cache=False) if takes_use_cache else DecodingCache()

    def restored_cache(self, prefix: Prefix) -> DecodingCache:
        """A cache for one row that holds this prefix, or as much of it as can be restored."""
        if self.strategy == "attention":
            return RowCache.restored([prefix], gaps=self.gaps)
        [piece] = prefix.pieces
        return cast(StateCache, piece.states).restored(prefix.length)

    def prefix_cache(self, max_bytes: int) -> PrefixCache | None:
        """An empty cache of prefixes; None if the model keeps nothing of a text."""
        if self.strategy == "uncached" or not max_bytes:
            return None
        return PrefixCache(max_bytes, divisible=self.strategy == "attention")

    def pass_arguments(
        self,
        model: PreTrainedModel,
        traits: ModelTraits,
        cache: DecodingCache,
        rows: Sequence[list[int]],
        fed: int,
    ) -> dict[str, Any]:
        """The keyword arguments of a pass over the last ``fed`` ids of every row; it prepares the cache.

        A row that lacks fewer ids in the cache is padded on the left.
        """
        device = input_device(model)
        missing = [ids[cached:] for ids, cached in zip(rows, cache.lengths, strict=True)]
        padded = [[0] * (fed - len(ids)) + ids for ids in missing]
        arguments: dict[str, Any] = {"input_ids": torch.tensor(padded, device=device)}
        if self.position_ids and "position_ids" in traits.forward_arguments:
            positions = [[max(at, 0) for at in range(len(ids) - fed, len(ids))] for ids in rows]
            arguments["position_ids"] = torch.tensor(positions, device=device)
        used = cache.begin_pass([len(ids) for ids in rows], fed)
        if not used.all():
            arguments["attention_mask"] = used.long().to(device)
        return arguments | cache.arguments()

    def __str__(self) -> str:
        """The strategy in words."""
        if self.strategy == "states":
            return "states, in blocks" if self.blockwise else "states, token by token"
        return self.strategy


@dataclass(frozen=True, slots=True)
class PassRunner:
    """Runs the forward passes of one model.

    Attributes:
        model: The transformers model, whose own annotations do not describe it.
        plan: Which cache it needs, and how it may be fed.
        traits: What its configuration says.
        lock: Held during a pass by all models that share the weights.
        name: Its name in error messages.
        vocabulary: How many logits to return per position; embedding matrices may be padded.
    """

    model: Any
    plan: Plan
    traits: ModelTraits
    lock: Lock
    name: str
    vocabulary: int

    def logits(self, cache: DecodingCache, rows: Sequence[list[int]], fed: int, last: int) -> torch.Tensor:
        """Run one pass over the last ``fed`` ids of every row, which the cache then holds.

        Returns:
            The logits after the last ``last`` slots, ``[rows, last, vocabulary]``, on the model's device.

        Raises:
            GenerationError: The forward pass failed.
            ModelOutputError: The logits are of an unexpected shape.
        """
        arguments = self.plan.pass_arguments(self.model, self.traits, cache, rows, fed)
        if "logits_to_keep" in self.traits.forward_arguments:
            arguments["logits_to_keep"] = last
        try:
            with self.lock:
                output = self.model(**arguments)
            cache.finish_pass(output)
            logits = output.logits
        except Exception as error:
            raise GenerationError(
                f"the forward pass of model {self.name!r} over {len(rows)} x {fed} tokens failed: "
                f"{type(error).__name__}: {quoted(error)}"
            ) from error
        return self._checked(logits, len(rows), last)

    def _checked(self, logits: Any, rows: int, last: int) -> torch.Tensor:
        """Cut a model's logits to the wanted positions and vocabulary."""
        if not isinstance(logits, torch.Tensor) or logits.ndim != 3:
            what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelOutputError(
                f"model {self.name!r} returned {what} for logits; three dimensions were expected"
            )
        wanted: torch.Tensor = logits[:, -last:, : self.vocabulary]
        if wanted.shape != (rows, last, self.vocabulary):
            raise ModelOutputError(
                f"model {self.name!r} returned logits of shape {tuple(wanted.shape)} where "
                f"{(rows, last, self.vocabulary)} was expected"
            )
        return wanted


def input_device(model: PreTrainedModel) -> torch.device:
    """The device to which token ids are sent."""
    embeddings = model.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)  # accelerate's: offloaded weights are on "meta"
    device = getattr(hook, "execution_device", None)
    return cast(torch.device, embeddings.weight.device) if device is None else torch.device(device)
