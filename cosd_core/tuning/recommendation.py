"""The recommendation and the warnings of a tuning, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosd_core.evaluation.intervals import accuracy, difference
from cosd_core.evaluation.report import percent
from cosd_core.tuning.report import CalibrationSummary, ReplacementRate
from cosd_core.tuning.selection import Choice, Table, choose, choose_nested

_LARGE_ERROR = 0.2
"""A calibration error where models differ; well-calibrated pairs stay well below (the bundled one: 0.12)."""

_RARELY = 0.02
"""The share of differing positions below which a rule's replacements have hardly any effect."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Whether to fuse, the index of the recommended candidate in the table, and both in words."""

    fuse: bool
    recommended: int
    sentences: tuple[str, ...]


def recommend(table: Table, choice: Choice) -> Advice:
    """Recommend fusing if the whole interval of its gain over the better single model is above 0.

    The better model is chosen by the same answers, which favours it, so the condition for fusing is strict.
    """
    single = table.better_single
    name = table.candidates[single].name
    alone = _compare_singles(table)
    gain = difference(choice.right, table.right[single])
    result = (
        f"What was chosen on other questions than it was judged on had {percent(accuracy(choice.right))} "
        f"percent right, {percent(gain, signed=True)} points against {name}."
    )
    if gain.low > 0:
        fused = [index for index, each in enumerate(table.candidates) if not each.single]
        chosen = fused[choose([table.candidates[index] for index in fused], table.right[fused])]
        sentences = (f"Fuse: {table.candidates[chosen].name}.", result, *_compare_with_best(table, chosen))
        return Advice(True, chosen, sentences)
    if gain.high < 0:
        reason = "fusing as one would have chosen to is worse"
        return Advice(False, single, (f"Use {name}: {reason}.", alone, result))
    sentences = (f"Use {name}: fusing does not clearly help.", alone, result)
    if gain.value > 0:
        sentences = (*sentences, "There may be a gain that so few questions cannot show: try more.")
    return Advice(False, single, sentences)


def recommend_per_group(
    table: Table, groups: Sequence[str], overall: Advice
) -> dict[str, tuple[Table, Choice, Advice]]:
    """The same for every group of questions, chosen and judged on its own questions alone.

    What is recommended for all questions is so for a group, too, unless another candidate is better there by
    a whole interval: a group has fewer questions, and the better of several candidates is often so by chance.

    Args:
        table: All questions.
        groups: The group of every question.
        overall: The advice for all questions.

    Returns:
        By group; empty if there is one group. Left out are groups with fewer than two questions per fold.
    """
    found = {}
    for group in dict.fromkeys(groups) if len(set(groups)) > 1 else ():
        questions = np.flatnonzero(np.equal(groups, group))
        if len(questions) >= 2 * table.folds:
            part = table.of(questions)
            choice = choose_nested(part)
            found[group] = part, choice, _unless_shown(recommend(part, choice), part, choice, overall)
    return found


def _unless_shown(own: Advice, part: Table, choice: Choice, overall: Advice) -> Advice:
    """The advice for all questions, unless that of a group is better on the group's questions."""
    if own.recommended == overall.recommended:
        return own
    right = choice.right if own.fuse else part.right[own.recommended]
    lead = difference(right, part.right[overall.recommended])
    if lead.low > 0:
        return own
    names = [part.candidates[each.recommended].name for each in (overall, own)]
    advice = f"Use {names[0]}, as for all questions."
    reason = f"{names[1]} had {percent(lead, signed=True)} points against it, which may be chance."
    return Advice(overall.fuse, overall.recommended, (advice, reason))


def _compare_singles(table: Table) -> str:
    """How sure it is which of the models alone is better."""
    better = table.better_single
    others = [at for at, each in enumerate(table.candidates) if each.single and at != better]
    next_best = max(others, key=lambda at: int(table.right[at].sum()))
    lead = difference(table.right[better], table.right[next_best])
    names = table.candidates[better].name, table.candidates[next_best].name
    sentence = (
        f"{names[0]} had {percent(accuracy(table.right[better]))} percent right, "
        f"{percent(lead, signed=True)} points against {names[1]}."
    )
    return sentence if lead.low > 0 else f"{sentence} The questions do not show which of them is better."


def _compare_with_best(table: Table, chosen: int) -> Iterator[str]:
    """A sentence on the best candidate, if a simpler one within noise was chosen."""
    best = int(table.right.sum(1).argmax())
    if table.right[best].sum() > table.right[chosen].sum():
        more = difference(table.right[best], table.right[chosen])
        yield (
            f"{table.candidates[best].name} had {percent(more, signed=True)} points more, which is within "
            "noise: the simpler one is preferred."
        )


def warn(
    table: Table, rates: Sequence[ReplacementRate], calibrations: Sequence[CalibrationSummary]
) -> tuple[str, ...]:
    """Warnings about the models' confidences, with a remedy."""
    warnings = [*_overconfident(calibrations), *_rarely_replaces(rates)]
    return (*warnings, _remedy(table)) if warnings else ()


def _overconfident(calibrations: Sequence[CalibrationSummary]) -> Iterator[str]:
    for each in calibrations:
        if each.error >= _LARGE_ERROR and each.confidence > each.right:
            yield (
                f"{each.model} is overconfident: where the models differ its mean confidence is "
                f"{each.confidence:.2f}, and it is right at {each.right:.2f} of the positions (calibration "
                f"error {each.error:.2f}; {each.calibrated_error:.2f} at temperature {each.temperature:.2f})."
            )


def _rarely_replaces(rates: Sequence[ReplacementRate]) -> Iterator[str]:
    for each in rates:
        if each.differing and each.replaced <= _RARELY * each.differing:
            yield (
                f"The default rule hardly ever replaces where {each.drafting} drafts: it replaced "
                f"{each.replaced:,} of the {each.differing:,} tokens at which the models differ, so it is as "
                "good as that model alone."
            )


def _remedy(table: Table) -> str:
    """Whether calibration or other thresholds help, or what is needed to find out."""
    candidates, right = table.candidates, table.right
    if not any(each.calibrated for each in candidates):
        return "Give the questions completions, the true texts: then calibration and trees are tried, too."
    default = next(index for index, each in enumerate(candidates) if each.complexity[0] == 1)

    def best_rule(*, calibrated: bool) -> int:
        rules = [at for at, each in enumerate(candidates) if each.rule and each.calibrated == calibrated]
        return max(rules, key=lambda index: int(right[index].sum()))

    def gain(index: int) -> str:
        interval = percent(difference(right[index], right[default]), signed=True)
        return f"{candidates[index].name}: {interval} points against {candidates[default].name}"

    plain, calibrated = best_rule(calibrated=False), best_rule(calibrated=True)
    best = max(plain, calibrated, key=lambda index: int(right[index].sum()))
    if difference(right[best], right[default]).low <= 0:
        return (
            f"Neither calibration nor other thresholds help (at best {gain(best)}): these confidences do "
            "not separate right from wrong. Models are uncertain only about errors of a kind that they were "
            "trained on."
        )
    beyond = difference(right[calibrated], right[plain])
    if beyond.low > 0:
        return f"Calibration helps ({gain(calibrated)}), more than other thresholds do ({gain(plain)})."
    return (
        f"Other thresholds or roles help ({gain(plain)}); calibration adds "
        f"{percent(beyond, signed=True)} points to that."
    )
