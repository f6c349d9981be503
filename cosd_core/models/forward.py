"""A forward pass over the ids that a cache does not hold yet."""

from collections.abc import Collection, Sequence
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from cosd_core.errors import GenerationError, ModelOutputError, quoted
from cosd_core.models.cache import DecodingCache
from cosd_core.models.plan import Plan
from cosd_core.models.traits import ModelTraits
from cosd_core.models.weight_sharing import lock_of


class PassRunner:
    """Runs the forward passes of one model under its plan.

    Attributes:
        model: The transformers model.
        plan: Which cache it needs, and how it may be fed.
        traits: What its configuration says.
    """

    def __init__(
        self, model: PreTrainedModel, plan: Plan, traits: ModelTraits, *, name: str, vocabulary: int
    ) -> None:
        """Create a runner.

        Args:
            model: The transformers model.
            plan: Which cache it needs, and how it may be fed.
            traits: What its configuration says.
            name: Its name in error messages.
            vocabulary: How many logits to return per position; embedding matrices may be padded.
        """
        self.model: Any = model  # transformers' own annotations do not describe its models
        self.plan = plan
        self.traits = traits
        self._name = name
        self._vocabulary = vocabulary
        self._arguments = plan.forward_arguments(traits)
        self._lock = lock_of(model)

    def logits(self, cache: DecodingCache, rows: Sequence[list[int]], fed: int, last: int) -> torch.Tensor:
        """Run one pass over the last ``fed`` ids of every row, which the cache then holds.

        Returns:
            The logits after the last ``last`` slots, ``[rows, last, vocabulary]``, on the model's device.

        Raises:
            GenerationError: The forward pass failed.
            ModelOutputError: The logits are of an unexpected shape.
        """
        device = input_device(self.model)
        arguments = pass_arguments(cache, rows, fed, device=device, accepted=self._arguments)
        if "logits_to_keep" in self._arguments:
            arguments["logits_to_keep"] = last
        try:
            with self._lock:
                output = self.model(**arguments)
            cache.finish_pass(output)
            logits = output.logits
        except Exception as error:
            raise GenerationError(
                f"the forward pass of model {self._name!r} over {len(rows)} x {fed} tokens failed: "
                f"{type(error).__name__}: {quoted(error)}"
            ) from error
        return self._checked(logits, len(rows), last)

    def _checked(self, logits: Any, rows: int, last: int) -> torch.Tensor:
        """Cut a model's logits to the wanted positions and vocabulary."""
        if not isinstance(logits, torch.Tensor) or logits.ndim != 3:
            what = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelOutputError(
                f"model {self._name!r} returned {what} for logits; three dimensions were expected"
            )
        wanted: torch.Tensor = logits[:, -last:, : self._vocabulary]
        if wanted.shape != (rows, last, self._vocabulary):
            raise ModelOutputError(
                f"model {self._name!r} returned logits of shape {tuple(wanted.shape)} where "
                f"{(rows, last, self._vocabulary)} was expected"
            )
        return wanted


def pass_arguments(
    cache: DecodingCache,
    rows: Sequence[list[int]],
    fed: int,
    *,
    device: torch.device,
    accepted: Collection[str],
) -> dict[str, Any]:
    """The keyword arguments of a pass over the last ``fed`` ids of every row; the cache is prepared for it.

    Args:
        cache: The state after the first ids of the rows.
        rows: All ids of every row. A row that lacks fewer than ``fed`` is padded on the left.
        fed: How many slots are fed.
        device: Where the model expects its ids.
        accepted: The optional arguments of ``forward`` to use.
    """
    missing = [ids[cached:] for ids, cached in zip(rows, cache.lengths, strict=True)]
    padded = [[0] * (fed - len(ids)) + ids for ids in missing]
    arguments: dict[str, Any] = {"input_ids": torch.tensor(padded, device=device)}
    if "position_ids" in accepted:
        positions = [[max(at, 0) for at in range(len(ids) - fed, len(ids))] for ids in rows]
        arguments["position_ids"] = torch.tensor(positions, device=device)
    used = cache.begin_pass([len(ids) for ids in rows], fed)
    if not used.all():
        arguments["attention_mask"] = used.long().to(device)
    return arguments | cache.arguments()


def input_device(model: PreTrainedModel) -> torch.device:
    """The device to which token ids are sent."""
    embeddings = model.get_input_embeddings()
    hook = getattr(embeddings, "_hf_hook", None)  # accelerate's: offloaded weights are on "meta"
    device = getattr(hook, "execution_device", None)
    return cast(torch.device, embeddings.weight.device) if device is None else torch.device(device)
