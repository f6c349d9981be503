"""A forward pass over what a memory lacks: its arguments, whatever the memory is."""

from collections.abc import Collection, Sequence
from typing import Any

import torch

from cosd_core.models.cache import DecodingCache


def pass_arguments(
    memory: DecodingCache,
    rows: Sequence[list[int]],
    fed: int,
    *,
    device: torch.device,
    takes: Collection[str],
) -> dict[str, Any]:
    """The keyword arguments of a pass over the last ``fed`` ids of every row, which the memory then holds.

    Args:
        memory: What the model has of the rows' first ids.
        rows: All ids of every row. A row that lacks fewer than ``fed`` is padded on the left.
        fed: How many slots are fed.
        device: Where the model takes its ids.
        takes: The optional arguments that its forward has.
    """
    missing = [ids[kept:] for ids, kept in zip(rows, memory.lengths, strict=True)]
    padded = [[0] * (fed - len(ids)) + ids for ids in missing]
    arguments: dict[str, Any] = {"input_ids": torch.tensor(padded, device=device)}
    if "position_ids" in takes:
        positions = [[max(at, 0) for at in range(len(ids) - fed, len(ids))] for ids in rows]
        arguments["position_ids"] = torch.tensor(positions, device=device)
    taken = memory.extend([len(ids) for ids in rows], fed)
    if not taken.all():
        arguments["attention_mask"] = taken.long().to(device)
    return arguments | memory.arguments()


class NoCache:
    """The memory of a model that keeps nothing: every pass reads the whole row again.

    Attributes:
        lengths: One zero, for the one row.
    """

    def __init__(self, takes: Collection[str]) -> None:
        """Begin with nothing, as ever.

        Args:
            takes: The optional arguments that the model's forward has.
        """
        self.lengths = [0]
        self._arguments = {"use_cache": False} if "use_cache" in takes else {}

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that keep a forward pass from making a cache of its own."""
        return dict(self._arguments)

    def extend(self, lengths: Sequence[int], fed: int) -> torch.Tensor:
        """Expect a pass over all ids of the row; there is no padding."""
        assert lengths == [fed], "nothing is remembered"
        return torch.ones(1, fed, dtype=torch.bool)

    def rewind(self, lengths: Sequence[int]) -> None:
        """Nothing is remembered, so nothing is forgotten."""

    def passed(self, output: Any) -> None:
        """The pass is over, and forgotten."""
