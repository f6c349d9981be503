"""Confidence intervals of a share, and of the difference of two shares over the same items.

Both intervals are closed formulas of Wilson's kind. Unlike a bootstrap they depend on no random numbers, and
they keep a width where all items are right or none is, where a bootstrap gives none.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from cosd_core.errors import InvalidOptionError, quoted
from cosd_core.options import check_number


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its two limits, all in one unit.

    Attributes:
        value: The estimate.
        low: The lower limit.
        high: The upper limit.
    """

    value: float
    low: float
    high: float


def share(right: int, items: int, confidence: float = 0.95) -> Interval:
    """The share of right items with its interval (Wilson, JASA 22, 1927), between 0 and 1.

    Raises:
        InvalidOptionError: There are no items, more right ones than items, or a confidence outside of (0, 1).
    """
    if not 0 <= right <= items or not items:
        raise InvalidOptionError(f"right={right} should lie between 0 and items={items}, which is at least 1")
    z = _quantile(confidence)
    p = right / items
    middle = p + z * z / (2 * items)
    reach = z * math.sqrt(p * (1 - p) / items + z * z / (4 * items * items))
    scale = 1 + z * z / items
    # Rounding may put a limit on the wrong side of the share.
    low, high = min(p, max(0.0, (middle - reach) / scale)), max(p, min(1.0, (middle + reach) / scale))
    return Interval(p, low, high)


def paired_difference(
    both: int, first_only: int, second_only: int, neither: int, confidence: float = 0.95
) -> Interval:
    """The share of the first minus that of the second over the same items, between -1 and 1.

    Newcombe's interval for paired shares (Statistics in Medicine 17, 1998, 2635-2650, method 10): the Wilson
    limits of both shares, joined by their correlation. The arguments count the items that both have right,
    only the first, only the second, and neither.

    Raises:
        InvalidOptionError: There are no items, a count is negative, or the confidence is not in (0, 1).
    """
    counts = (both, first_only, second_only, neither)
    items = sum(counts)
    if min(counts) < 0 or not items:
        raise InvalidOptionError(f"counts={quoted(counts)} should be at least 0, and one of them more")
    first = share(both + first_only, items, confidence)
    second = share(both + second_only, items, confidence)
    phi = _correlation(both, first_only, second_only, neither)

    def reach(up: float, down: float) -> float:
        return math.sqrt(max(up * up - 2 * phi * up * down + down * down, 0.0))

    value = (first_only - second_only) / items
    low = value - reach(first.value - first.low, second.high - second.value)
    high = value + reach(second.value - second.low, first.high - first.value)
    return Interval(value, max(-1.0, low), min(1.0, high))


def accuracy(right: Any) -> Interval:
    """The share of right items with Wilson's interval of 95 percent, from flags ``[items]``."""
    return share(int(np.sum(right)), len(right))


def difference(first: Any, second: Any, confidence: float = 0.95) -> Interval:
    """The share of the first minus that of the second, with Newcombe's paired interval.

    Both are flags of the same items, ``[items]``.
    """
    one, other = np.asarray(first, np.bool_), np.asarray(second, np.bool_)
    both, right, other_right = (int(each.sum()) for each in (one & other, one, other))
    neither = len(one) - right - other_right + both
    return paired_difference(both, right - both, other_right - both, neither, confidence)


def _correlation(both: int, first_only: int, second_only: int, neither: int) -> float:
    """The phi coefficient of the two, with Newcombe's correction towards 0 where it is positive."""
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if not margins:
        return 0.0
    excess: float = both * neither - first_only * second_only
    if excess > 0:
        excess = max(excess - sum((both, first_only, second_only, neither)) / 2, 0.0)
    return excess / math.sqrt(margins)


def _quantile(confidence: float) -> float:
    check_number("confidence", confidence, most=1.0)
    if not 0 < confidence < 1:
        raise InvalidOptionError(f"confidence={confidence} should lie between 0 and 1")
    return NormalDist().inv_cdf((1 + confidence) / 2)
