"""Where in the (p, q) plane y replaces x: rectangles, in words and as drawings."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from cosd_core.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS, _LINES = 50, 20


@dataclass(frozen=True, slots=True)
class Region:
    """Every (p, q) with ``low < value <= high`` in both coordinates, and the answer there.

    Attributes:
        p: Low and high.
        q: Low and high.
        replace: Whether y replaces x.
    """

    p: tuple[float, float] = (-1.0, 1.0)
    q: tuple[float, float] = (-1.0, 1.0)
    replace: bool = False

    def within(self, feature: str, low: float, high: float) -> Self:
        """The same with other bounds for one feature, ``"p"`` or ``"q"``."""
        p, q = ((low, high), self.q) if feature == "p" else (self.p, (low, high))
        return type(self)(p, q, self.replace)

    def __str__(self) -> str:
        """The conditions in words; bounds that every probability keeps are left out."""
        said = []
        for name, (low, high) in (("p", self.p), ("q", self.q)):
            if low >= 0 and high < 1:
                said.append(f"{low:.4g} < {name} <= {high:.4g}")
            elif low >= 0:
                said.append(f"{name} > {low:.4g}")
            elif high < 1:
                said.append(f"{name} <= {high:.4g}")
        return " and ".join(said) or "always"


def rules(regions: Iterable[Region]) -> str:
    """Where y replaces x, one line per region."""
    firing = [str(region) for region in regions if region.replace]
    lines = [f"  {'if' if not at else 'or if'} {each}" for at, each in enumerate(firing)]
    return "\n".join(["y replaces a different x", *(lines or ["  never"])])


def draw(replaces: Callable[[float, float], bool]) -> str:
    """The plane in characters: p to the right, q upwards, # where y replaces x."""
    lines = ["q"]
    for line in reversed(range(_LINES)):
        q = (line + 0.5) / _LINES
        marks = ("#" if replaces((at + 0.5) / _COLUMNS, q) else "." for at in range(_COLUMNS))
        lines.append(f"{'1' if line == _LINES - 1 else '0' if line == 0 else ' '} {''.join(marks)}")
    return "\n".join([*lines, f"  0{'p':^{_COLUMNS - 2}}1"])


def plot(regions: Iterable[Region], axes: "Axes | None" = None) -> "Axes":
    """Draw the plane with matplotlib.

    Args:
        regions: What to draw.
        axes: Where to; None: a new figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.patches import Patch, Rectangle
    except ImportError as error:
        raise MissingExtraError('plots need matplotlib: pip install "cosd[plots]"') from error

    colours = {True: "tab:orange", False: "tab:blue"}
    axes = axes or pyplot.subplots(figsize=(4.5, 4.5))[1]
    for region in regions:
        (left, right), (bottom, top) = region.p, region.q
        colour = colours[region.replace]
        axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, color=colour, alpha=0.4, lw=0))
    names = {True: "y replaces x", False: "x stays"}
    axes.legend(handles=[Patch(color=colours[each], alpha=0.4, label=names[each]) for each in (True, False)])
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="p, confidence of the draft", ylabel="q, of the assistant")
    return axes
