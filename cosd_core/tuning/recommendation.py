"""What the figures come to, in words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cosd_core.evaluation.report import percent
from cosd_core.tuning.report import CalibrationSummary, ReplacementRate
from cosd_core.tuning.selection import Choice, Table, accuracy, choose, difference

_LARGE_ERROR = 0.2
"""A calibration error where models differ that an honest pair stays well below (the bundled one: 0.12)."""

_HARDLY_EVER = 0.02
"""The share of differing positions below which a rule that replaces does as good as nothing."""


@dataclass(frozen=True, slots=True)
class Advice:
    """A recommendation.

    Attributes:
        fuse: Whether to fuse.
        recommended: Which candidate of the table.
        said: The same in words.
    """

    fuse: bool
    recommended: int
    said: tuple[str, ...]


def recommend(table: Table, choice: Choice) -> Advice:
    """Fuse if choosing gains over the better single model in the whole interval, else use that model.

    The better model is known only with the answers in view, which favours it; so fusing is held to more than
    it would have to be.
    """
    single = table.better_single
    name = table.candidates[single].name
    gain = difference(choice.right, table.right[single])
    found = (
        f"What was chosen on other questions than it was judged on had {percent(accuracy(choice.right))} "
        f"percent right, {percent(gain, signed=True)} points against {name}."
    )
    if gain.low > 0:
        fused = [at for at, each in enumerate(table.candidates) if not each.single]
        chosen = fused[choose([table.candidates[at] for at in fused], table.right[fused])]
        said = (f"Fuse: {table.candidates[chosen].name}.", found, *_preferred(table, chosen))
        return Advice(True, chosen, said)
    if gain.high < 0:
        return Advice(False, single, (f"Use {name}: fusing as one would have chosen to is worse.", found))
    said = (f"Use {name}: fusing does not clearly help.", found)
    if gain.value > 0:
        said = (*said, "There may be a gain that so few questions cannot show: try more.")
    return Advice(False, single, said)


def _preferred(table: Table, chosen: int) -> Iterator[str]:
    """What was better in figures, but not clearly, and less simple."""
    best = int(table.right.sum(1).argmax())
    if table.right[best].sum() > table.right[chosen].sum():
        more = difference(table.right[best], table.right[chosen])
        yield (
            f"{table.candidates[best].name} had {percent(more, signed=True)} points more, which is within "
            "noise: the simpler one is preferred."
        )


def warn(
    table: Table, firings: Sequence[ReplacementRate], honesty: Sequence[CalibrationSummary]
) -> tuple[str, ...]:
    """What is wrong with the models' confidences, and what to try."""
    found = [*_too_sure(honesty), *_never_fires(firings)]
    return (*found, _what_to_try(table)) if found else ()


def _too_sure(honesty: Sequence[CalibrationSummary]) -> Iterator[str]:
    for each in honesty:
        if each.error >= _LARGE_ERROR and each.sure > each.right:
            yield (
                f"{each.model} is too sure of itself: where the models differ its mean confidence is "
                f"{each.sure:.2f}, and it is right at {each.right:.2f} of the positions (calibration error "
                f"{each.error:.2f}; {each.calibrated_error:.2f} at temperature {each.temperature:.2f})."
            )


def _never_fires(firings: Sequence[ReplacementRate]) -> Iterator[str]:
    for each in firings:
        if each.differing and each.replaced <= _HARDLY_EVER * each.differing:
            yield (
                f"The default rule hardly ever fires where {each.drafting} drafts: it replaced "
                f"{each.replaced:,} of the {each.differing:,} tokens at which the models differ, so it is as "
                "good as that model alone."
            )


def _what_to_try(table: Table) -> str:
    """Whether calibrating was any good, or what it would take to find out."""
    if not any(each.calibrated for each in table.candidates):
        return "Give the questions completions, the true texts: then calibration and trees are tried, too."
    default = next(at for at, each in enumerate(table.candidates) if each.complexity[0] == 1)
    plain, calibrated = (
        max(
            (at for at, each in enumerate(table.candidates) if each.rule and each.calibrated == wanted),
            key=lambda at: int(table.right[at].sum()),
        )
        for wanted in (False, True)
    )
    best = max(plain, calibrated, key=lambda at: int(table.right[at].sum()))
    against = f"points against {table.candidates[default].name}"

    def said(at: int) -> str:
        gain = difference(table.right[at], table.right[default])
        return f"{table.candidates[at].name}: {percent(gain, signed=True)} {against}"

    if difference(table.right[best], table.right[default]).low <= 0:
        return (
            f"Neither calibration nor other thresholds cure it (at best {said(best)}): these confidences do "
            "not tell right from wrong. Only a model that has seen what it does not know would doubt."
        )
    beyond = difference(table.right[calibrated], table.right[plain])
    if beyond.low > 0:
        return f"Calibration helps ({said(calibrated)}), more than other thresholds do ({said(plain)})."
    return (
        f"Other thresholds or roles cure it ({said(plain)}); calibration adds "
        f"{percent(beyond, signed=True)} points to that."
    )
