"""Checks a plan that is likely right: one comparison of a few tokens, where the probe compares many."""

from cosd_core.models.comparison import SURE, Comparison, ProbedModel
from cosd_core.models.forward import Plan

_SHORT, _LONG = 6, 20
"""Ids of the text. The other text is its beginning, so that one pass without a cache serves both."""

_BATCHED = (((4, 3), 1), ((_LONG, _LONG - 1), 0))
"""The steps of two texts in a batch: padding, a rollback, and a gap behind it."""

_ALTERNATING = ((0, 2, 0), (0, 3, 2), (1, 4, 0), (0, _LONG - 1, 0), (0, _LONG, 0))
"""The steps of two texts in turn: a rollback, a pass of the other, a block and a single id on a cache."""

_ONE_BY_ONE = ((0, 1, 0), (0, 1, 1), (1, 4, 0), (0, 2, 0), (1, 5, 0))
"""The same for a model that takes several ids only without a cached state."""


def check_plan(probed: ProbedModel, plan: Plan, *, short: bool) -> tuple[bool, int]:
    """Compare a plan with passes without a cache: three passes for a batched plan, six for others.

    Six ids suffice where the plan is known to be right for the model's class. Twenty also show windows of a
    few ids, as the probe's texts do. Errors of the passes are left to the probe, which describes them.

    Returns:
        Whether the plan is right, and how many passes were made. The difference must be so small that the
        probe would not compare the plan with others. False says only that this is not known.
    """
    length = _SHORT if short else _LONG
    if probed.longest_text(beside=2) < length:
        return False, 0
    ids = probed.common_ids(length + 2)
    text, suffix = ids[:length], ids[length:]
    try:
        comparison = Comparison(probed, (text, text[:-1]), suffix)
        found = _difference(comparison, plan)
    except Exception:  # of any type: the model's own code runs
        return False, 0
    limit = probed.accepted_difference(comparison.reference[0]) / SURE
    limit = limit if probed.tolerance is None else min(limit, probed.tolerance)
    return found <= limit, comparison.passes


def _difference(comparison: Comparison, plan: Plan) -> float:
    if plan.batched:
        return comparison.batched(plan, _BATCHED)
    return comparison.alternating(plan, _ALTERNATING if plan.blockwise else _ONE_BY_ONE)
