"""The report's plots, as inline SVG that follows the page's colours and font.

matplotlib draws with stand-in colours that are replaced by CSS variables, so one drawing serves light and dark. Text
stays text. No pyplot: its figures are global state that is never freed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeprune.units import format_ms, ms_from_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from edgeprune.records.rung import GroupWidth

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
_WIDTH_INCHES = 6.4
_MOST_POINTS = 300
_TAIL_POINTS = 60
_DECADE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate in the plane of latency and accuracy.

    Attributes:
        label: a name, or the number of its row in the table of rungs.
        role: `dense`, `subject` (the chosen one, or the nearest miss) or `other`.
        lower_ms, upper_ms: confidence bound of the latency; None where there is none.
    """

    label: str
    role: str
    latency_ms: float
    accuracy_percent: float
    lower_ms: float | None = None
    upper_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Raw samples of one model."""

    label: str
    role: str
    samples_ns: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One labelled length; `text` is written at its end."""

    label: str
    role: str
    value: float
    text: str


def plot_frontier(
    points: Sequence[Point], *, latency_name: str, limit_ms: float | None, floor_percent: float | None
) -> str:
    """Validation accuracy against latency, with the budget and the accuracy floor as lines."""
    figure, axes = _figure(3.5)
    axes.grid(visible=True)
    named = 0
    for point in points:
        # Names are wide, numbers are not: where several models have one, every other stands below its point.
        is_name = not point.label.isdigit()
        _draw_point(axes, point, below=is_name and named % 2 == 1)
        named += is_name
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.15)
    if limit_ms is not None:
        _vertical(axes, limit_ms, f"budget {format_ms(limit_ms)}")
    if floor_percent is not None:
        axes.axhline(floor_percent, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"floor {floor_percent:.4g} %", (1, floor_percent), xycoords=("axes fraction", "data"),
            xytext=(0, -3), textcoords="offset points", ha="right", va="top", color=LIMIT,
        )  # fmt: skip
    _milliseconds(axes, f"{latency_name}, ms (log scale)")
    # The margin above the best model must not suggest an accuracy over 100 %.
    axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    axes.set_ylabel("validation accuracy, %")
    return _svg(figure, "frontier", f"Accuracy against {latency_name} of {len(points)} measured models")


def plot_distribution(
    series: Sequence[Series], limits_ms: Sequence[tuple[str, float]], quantiles_ms: Sequence[tuple[str, float, float]]
) -> str:
    """The share of runs that took at most x milliseconds.

    Args:
        series: raw samples.
        limits_ms: (name, limit) of each latency limit.
        quantiles_ms: (role, percent, value) of the points to mark on the curves.
    """
    figure, axes = _figure(3.5)
    axes.grid(visible=True)
    for one in series:
        x, y = _steps(one.samples_ns)
        axes.step(x, y, where="post", color=_colour(one.role), linewidth=1.8)
        axes.annotate(
            one.label, (x[len(x) // 4], 25.0), xytext=(-6, 0), textcoords="offset points", ha="right", va="center",
            color=_colour(one.role), fontweight="bold",
        )  # fmt: skip
    for role, percent, value_ms in quantiles_ms:
        axes.plot([value_ms], [percent], "o", color=_colour(role), markeredgecolor=SURFACE, markersize=7)
        axes.annotate(
            f"p{percent:g} {value_ms:.3g} ms", (value_ms, percent), xytext=(7, -11), textcoords="offset points",
            color=_colour(role),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.22)
    axes.set_ylim(0, 104)
    for position, (name, limit_ms) in enumerate(limits_ms):
        _vertical(axes, limit_ms, f"{name} budget {format_ms(limit_ms)}", height=0.02 + 0.09 * position)
    _milliseconds(axes, "latency of one run, ms (log scale)")
    axes.set_ylabel("runs that took at most this, %")
    return _svg(figure, "distribution", "Cumulative distribution of latency: " + ", ".join(s.label for s in series))


def plot_widths(widths: Sequence[GroupWidth]) -> str:
    """Channels of each group before and after, in the model's order."""
    figure, axes = _figure(0.7 + 0.27 * len(widths))
    rows = range(len(widths))
    axes.barh(rows, [w.before for w in widths], height=0.68, color=LINE)
    axes.barh(rows, [w.after for w in widths], height=0.68, color=SUBJECT)
    for row, width in enumerate(widths):
        text = f"{width.before} to {width.after}" if width.after != width.before else f"{width.after}"
        axes.annotate(
            text, (width.before, row), xytext=(5, 0), textcoords="offset points", va="center", color=INK, fontsize=9
        )
    axes.set_yticks(list(rows), [w.group for w in widths])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.16 * max(w.before for w in widths))
    axes.set_xlabel("output channels: grey before, coloured after")
    removed = sum(w.before - w.after for w in widths)
    return _svg(figure, "widths", f"Channels of {len(widths)} groups before and after; {removed} removed in all")


def plot_footprint(panels: Sequence[tuple[str, Sequence[Bar], float | None]]) -> str:
    """Horizontal bars in panels of their own scale, such as artifact size and peak memory.

    Args:
        panels: (title with unit, bars, limit in the same unit or None).
    """
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(_WIDTH_INCHES, 1.35 * len(panels)), layout="constrained")
        for axes, (title, bars, limit) in zip(
            figure.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True
        ):
            _draw_bars(axes, bars, limit)
            axes.set_title(title, loc="left", fontsize=10, color=MUTED)
    names = "; ".join(f"{title}: " + ", ".join(f"{b.label} {b.text}" for b in bars) for title, bars, _ in panels)
    return _svg(figure, "footprint", names)


def _draw_bars(axes: Axes, bars: Sequence[Bar], limit: float | None) -> None:
    rows = range(len(bars))
    axes.barh(rows, [b.value for b in bars], height=0.62, color=[_colour(b.role) for b in bars])
    for row, bar in enumerate(bars):
        axes.annotate(bar.text, (bar.value, row), xytext=(5, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(list(rows), [b.label for b in bars])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.22 * max([*(b.value for b in bars), limit or 0.0, 1e-9]))
    if limit is not None:
        _vertical(axes, limit, f"limit {limit:.3g}", height=1.02)


def _draw_point(axes: Axes, point: Point, *, below: bool) -> None:
    colour = _colour(point.role)
    if point.lower_ms and point.upper_ms is not None:
        axes.hlines(point.accuracy_percent, point.lower_ms, point.upper_ms, color=colour, linewidth=1.5)
    marker = {"dense": "s", "subject": "o"}.get(point.role, "o")
    filled = "none" if point.role == "other" else colour
    size = 6.5 if point.role == "other" else 9
    axes.plot(
        [point.latency_ms], [point.accuracy_percent], marker, color=colour, markerfacecolor=filled, markersize=size
    )
    axes.annotate(
        point.label, (point.latency_ms, point.accuracy_percent), xytext=(0, -9 if below else 9),
        textcoords="offset points", ha="center", va="top" if below else "baseline", color=colour,
        fontweight="normal" if point.role == "other" else "bold",
    )  # fmt: skip


def _vertical(axes: Axes, x: float, label: str, *, height: float = 0.02) -> None:
    axes.axvline(x, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)))
    inside = height < 1
    axes.annotate(
        label, (x, height), xycoords=("data", "axes fraction"), xytext=(4 if inside else 0, 0),
        textcoords="offset points", ha="left" if inside else "center", va="bottom", color=LIMIT,
    )  # fmt: skip


def _milliseconds(axes: Axes, label: str) -> None:
    """Plain numbers on a log axis, also where it spans less than a decade and has no power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    low, high = axes.get_xlim()
    axis: Axis = axes.xaxis
    wide = low > 0 and high / low > _DECADE
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if wide else MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.3g}"))
    axes.set_xlabel(label)


def _steps(samples_ns: Sequence[int]) -> tuple[list[float], list[float]]:
    """Points of the cumulative distribution in ms and percent: thinned in the body, every sample in the tail."""
    import numpy as np

    ordered = np.sort(np.asarray(samples_ns, dtype=np.float64))
    count = len(ordered)
    body = np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(np.int64)
    kept = np.unique(np.concatenate([body, np.arange(max(0, count - _TAIL_POINTS), count)]))
    return [ms_from_ns(x) for x in ordered[kept]], [100.0 * (k + 1) / count for k in kept.tolist()]


def _colour(role: str) -> str:
    return {"dense": DENSE, "subject": SUBJECT}.get(role, OTHER)


def _style() -> AbstractContextManager[None]:
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def _figure(height_inches: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        return figure, figure.subplots()


def _svg(figure: Figure, name: str, description: str) -> str:
    """An `<svg>` element to stand inside HTML, with ids of its own and a label for screen readers."""
    from html import escape

    stream = io.StringIO()
    with _style():
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
