"""Gives the memory of models that nothing refers to any more back to the device."""

import gc

import torch


def release_memory() -> None:
    """Collect models that are part of reference cycles, and empty torch's caches of device memory."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
