"""A model's confidence over temperatures, in the few numbers that :class:`Observations` store."""

import torch

from cosd_core.verifiers.observations import TEMPERATURES

FAR_BELOW = -1e4
"""Stands for the logit of an impossible token, relative to the highest: infinity times zero is no number."""


def curves(relative: torch.Tensor) -> dict[str, torch.Tensor]:
    """``log Z`` and its slope at every temperature of the grid, as :class:`Observations` describe them.

    Args:
        relative: Logits minus the highest, at least :data:`FAR_BELOW`, ``[..., vocabulary]``.

    Returns:
        ``partitions`` and ``slopes``, ``[..., temperatures]``.
    """
    partitions, slopes = [], []
    for temperature in TEMPERATURES:
        weights = (relative / temperature).exp_()
        partition = weights.sum(-1)
        partitions.append(partition.log())
        slopes.append(weights.mul_(relative).sum(-1) / partition)
    return {"partitions": torch.stack(partitions, -1), "slopes": torch.stack(slopes, -1)}
