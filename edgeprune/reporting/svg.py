"""What the report's drawings have in common: inline SVG that follows the page's colours and font.

matplotlib draws with stand-in colours that are replaced by CSS variables, so one drawing serves light and dark. Text
stays text. No pyplot: its figures are global state that is never freed.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, MUTED, LINE, SURFACE = "#010101", "#020202", "#030303", "#040404"
DENSE, SUBJECT, OTHER, LIMIT = "#050505", "#060606", "#070707", "#080808"
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    SURFACE: "var(--surface)",
    DENSE: "var(--dense)",
    SUBJECT: "var(--subject)",
    OTHER: "var(--other)",
    LIMIT: "var(--limit)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgeprune",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "figure.facecolor": "none",
}
WIDTH_INCHES = 6.4
_DECADE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A plot with the sentence that says what to see in it."""

    title: str
    svg: str
    caption: str


def vertical(axes: Axes, x: float, label: str, *, height: float = 0.02) -> None:
    """A limit across the axes, with its name at a height (over 1: on top)."""
    axes.axvline(x, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)))
    inside = height < 1
    axes.annotate(
        label, (x, height), xycoords=("data", "axes fraction"), xytext=(4 if inside else 0, 0),
        textcoords="offset points", ha="left" if inside else "center", va="bottom", color=LIMIT,
    )  # fmt: skip


def milliseconds(axes: Axes, label: str) -> None:
    """Plain numbers on a log axis, also where it spans less than a decade and has no power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_xlim()
    axis: Axis = axes.xaxis
    wide = low > 0 and high / low > _DECADE
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if wide else MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    axes.set_xlabel(label)


def colour_of(role: str) -> str:
    """Of `dense`, `subject`, or any other role."""
    return {"dense": DENSE, "subject": SUBJECT}.get(role, OTHER)


def style() -> AbstractContextManager[None]:
    """The settings that figures are made and saved under."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def one_figure(height_inches: float) -> tuple[Figure, Axes]:
    """A figure as wide as the page's column, with one plot."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        return figure, figure.subplots()


def grid_figure(
    rows: int, columns: int, height_inches: float, *, share_x: bool = False, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of the same width with a grid of plots, row by row."""
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False)
        return figure, list(grid.flat)


def as_svg(figure: Figure, name: str, description: str) -> str:
    """An `<svg>` element to stand inside HTML, with ids of its own and a label for screen readers."""
    from html import escape

    stream = io.StringIO()
    with style():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    # The drawing's own style sheet and metadata would apply to, and stand in, the whole page.
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    # Several drawings share one page: an id may stand there only once.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub("|".join(_VARIABLES), lambda found: _VARIABLES[found[0]], text)
    box = re.search(r'viewBox="([^"]*)"', text)
    view_box = box[1] if box else ""
    opening = f'<svg role="img" aria-label="{escape(description)}" viewBox="{view_box}">'
    # Without width and height: the page sets them.
    return opening + text[text.index(">") + 1 :].strip()
