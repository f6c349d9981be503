"""The decision regions of a tree in the (p, q) plane: rectangles, in words and as drawings."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cosd_core.utils import require_matplotlib
from cosd_core.verifiers.nodes import Leaf, Node

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS, _LINES = 50, 20


@dataclass(frozen=True, slots=True)
class Region:
    """Every (p, q) with ``low < value <= high`` in both coordinates, and whether y replaces x there."""

    p: tuple[float, float] = (-1.0, 1.0)
    q: tuple[float, float] = (-1.0, 1.0)
    replace: bool = False

    def within(self, feature: str, low: float, high: float) -> Self:
        """The same with other bounds for one feature, ``"p"`` or ``"q"``."""
        p, q = ((low, high), self.q) if feature == "p" else (self.p, (low, high))
        return type(self)(p, q, self.replace)

    def __str__(self) -> str:
        """The conditions in words, without bounds that every probability meets."""
        conditions = []
        for name, (low, high) in (("p", self.p), ("q", self.q)):
            if low >= 0 and high < 1:
                conditions.append(f"{low:.4g} < {name} <= {high:.4g}")
            elif low >= 0:
                conditions.append(f"{name} > {low:.4g}")
            elif high < 1:
                conditions.append(f"{name} <= {high:.4g}")
        return " and ".join(conditions) or "always"


def regions_of(nodes: Sequence[Node]) -> tuple[Region, ...]:
    """The reachable leaves of a tree as rectangles, from left to right."""
    found: list[Region] = []
    waiting = [(0, Region())]
    while waiting:
        index, region = waiting.pop()
        node = nodes[index]
        if isinstance(node, Leaf):
            found.append(Region(region.p, region.q, node.replace))
            continue
        low, high = getattr(region, node.feature)
        if node.threshold < high:
            waiting.append((node.right, region.within(node.feature, max(low, node.threshold), high)))
        if low < node.threshold:
            waiting.append((node.left, region.within(node.feature, low, min(high, node.threshold))))
    return tuple(found)


def rules(regions: Iterable[Region]) -> str:
    """The conditions under which y replaces x, one line per region."""
    conditions = [str(region) for region in regions if region.replace]
    lines = [f"  {'or if' if index else 'if'} {each}" for index, each in enumerate(conditions)]
    return "\n".join(["y replaces a different x", *(lines or ["  never"])])


def draw(replaces: Callable[[float, float], bool]) -> str:
    """The plane in characters: p to the right, q upwards, # where y replaces x."""
    lines = ["q"]
    for line in reversed(range(_LINES)):
        q = (line + 0.5) / _LINES
        marks = ("#" if replaces((column + 0.5) / _COLUMNS, q) else "." for column in range(_COLUMNS))
        lines.append(f"{'1' if line == _LINES - 1 else '0' if line == 0 else ' '} {''.join(marks)}")
    return "\n".join([*lines, f"  0{'p':^{_COLUMNS - 2}}1"])


def plot(regions: Iterable[Region], axes: "Axes | None" = None) -> "Axes":
    """Draw the plane with matplotlib, in a new figure if ``axes`` is None; as :meth:`TreeVerifier.plot`."""
    require_matplotlib()
    from matplotlib import pyplot
    from matplotlib.patches import Patch, Rectangle

    axes = axes or pyplot.subplots(figsize=(4.5, 4.5))[1]
    for region in regions:
        (left, right), (bottom, top) = region.p, region.q
        colour = "tab:orange" if region.replace else "tab:blue"
        axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, color=colour, alpha=0.4, lw=0))
    meanings = {"tab:orange": "y replaces x", "tab:blue": "x stays"}
    axes.legend(handles=[Patch(color=colour, alpha=0.4, label=meanings[colour]) for colour in meanings])
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="p, confidence of the draft", ylabel="q, of the assistant")
    return axes
