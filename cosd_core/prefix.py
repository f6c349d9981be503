"""The one piece of arithmetic behind every rollback: how far two texts agree."""

from collections.abc import Sequence


def agreed_prefix(ids: Sequence[int], others: Sequence[int]) -> int:
    """The length of the longest common prefix, by bisection over slices that C compares; types alike."""
    low, high = 0, min(len(ids), len(others))
    if ids[:high] == others[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if ids[low:middle] == others[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
