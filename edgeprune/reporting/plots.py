"""The drawings of a build's report: what was measured of the dense model and of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.reporting.svg import (
    INK,
    LIMIT,
    LINE,
    MUTED,
    SUBJECT,
    SURFACE,
    as_svg,
    colour_of,
    grid_figure,
    milliseconds,
    one_figure,
    style,
    vertical,
)
from edgeprune.units import format_ms, ms_from_ns

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from edgeprune.records.rung import GroupWidth

_MOST_POINTS = 300
_TAIL_POINTS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate in the plane of latency and accuracy.

    Attributes:
        label: a name, or the number of its row in the table of rungs.
        role: `dense`, `subject` (the chosen one, or the nearest miss) or `other`.
        accuracy_percent: in percent; of a metric that is no share, in its own unit.
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
    points: Sequence[Point],
    *,
    latency_name: str,
    limit_ms: float | None,
    floor_percent: float | None,
    metric: str = "accuracy",
    unit: str = "%",
    higher_is_better: bool = True,
) -> str:
    """Validation accuracy, or another metric, against latency, with the budget and the floor as lines; better is up."""
    figure, axes = one_figure(3.5)
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
        vertical(axes, limit_ms, f"budget {format_ms(limit_ms)}")
    if floor_percent is not None:
        axes.axhline(floor_percent, color=LIMIT, linewidth=1.2, linestyle=(0, (4, 3)))
        axes.annotate(
            f"floor {floor_percent:.4g} {unit}".rstrip(), (1, floor_percent), xycoords=("axes fraction", "data"),
            xytext=(0, -3), textcoords="offset points", ha="right", va="top", color=LIMIT,
        )  # fmt: skip
    milliseconds(axes, f"{latency_name}, ms (log scale)")
    if unit == "%":
        # The margin above the best model must not suggest an accuracy over 100 %.
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    if not higher_is_better:
        axes.invert_yaxis()
    axes.set_ylabel(f"validation {metric}{', ' if unit else ''}{unit}")
    return as_svg(figure, "frontier", f"{metric.capitalize()} against {latency_name} of {len(points)} measured models")


def plot_distribution(
    series: Sequence[Series], limits_ms: Sequence[tuple[str, float]], quantiles_ms: Sequence[tuple[str, float, float]]
) -> str:
    """The share of runs that took at most x milliseconds.

    Args:
        series: raw samples.
        limits_ms: (name, limit) of each latency limit.
        quantiles_ms: (role, percent, value) of the points to mark on the curves.
    """
    figure, axes = one_figure(3.5)
    axes.grid(visible=True)
    for one in series:
        x, y = _steps(one.samples_ns)
        axes.step(x, y, where="post", color=colour_of(one.role), linewidth=1.8)
        axes.annotate(
            one.label, (x[len(x) // 4], 25.0), xytext=(-6, 0), textcoords="offset points", ha="right", va="center",
            color=colour_of(one.role), fontweight="bold",
        )  # fmt: skip
    for role, percent, value_ms in quantiles_ms:
        axes.plot([value_ms], [percent], "o", color=colour_of(role), markeredgecolor=SURFACE, markersize=7)
        axes.annotate(
            f"p{percent:g} {value_ms:.3g} ms", (value_ms, percent), xytext=(7, -11), textcoords="offset points",
            color=colour_of(role),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.22)
    axes.set_ylim(0, 104)
    for position, (name, limit_ms) in enumerate(limits_ms):
        vertical(axes, limit_ms, f"{name} budget {format_ms(limit_ms)}", height=0.02 + 0.09 * position)
    milliseconds(axes, "latency of one run, ms (log scale)")
    axes.set_ylabel("runs that took at most this, %")
    return as_svg(figure, "distribution", "Cumulative distribution of latency: " + ", ".join(s.label for s in series))


def plot_widths(widths: Sequence[GroupWidth]) -> str:
    """Channels of each group before and after, in the model's order."""
    figure, axes = one_figure(0.7 + 0.27 * len(widths))
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
    return as_svg(figure, "widths", f"Channels of {len(widths)} groups before and after; {removed} removed in all")


def plot_footprint(panels: Sequence[tuple[str, Sequence[Bar], float | None]]) -> str:
    """Horizontal bars in panels of their own scale, such as artifact size and peak memory.

    Args:
        panels: (title with unit, bars, limit in the same unit or None).
    """
    figure, grid = grid_figure(len(panels), 1, 1.35 * len(panels))
    with style():
        for axes, (title, bars, limit) in zip(grid, panels, strict=True):
            _draw_bars(axes, bars, limit)
            axes.set_title(title, loc="left", fontsize=10, color=MUTED)
    names = "; ".join(f"{title}: " + ", ".join(f"{b.label} {b.text}" for b in bars) for title, bars, _ in panels)
    return as_svg(figure, "footprint", names)


def _draw_bars(axes: Axes, bars: Sequence[Bar], limit: float | None) -> None:
    rows = range(len(bars))
    axes.barh(rows, [b.value for b in bars], height=0.62, color=[colour_of(b.role) for b in bars])
    for row, bar in enumerate(bars):
        axes.annotate(bar.text, (bar.value, row), xytext=(5, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(list(rows), [b.label for b in bars])
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", length=0, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.22 * max([*(b.value for b in bars), limit or 0.0, 1e-9]))
    if limit is not None:
        vertical(axes, limit, f"limit {limit:.3g}", height=1.02)


def _draw_point(axes: Axes, point: Point, *, below: bool) -> None:
    colour = colour_of(point.role)
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


def _steps(samples_ns: Sequence[int]) -> tuple[list[float], list[float]]:
    """Points of the cumulative distribution in ms and percent: thinned in the body, every sample in the tail."""
    import numpy as np

    ordered = np.sort(np.asarray(samples_ns, dtype=np.float64))
    count = len(ordered)
    body = np.linspace(0, count - 1, min(count, _MOST_POINTS)).astype(np.int64)
    kept = np.unique(np.concatenate([body, np.arange(max(0, count - _TAIL_POINTS), count)]))
    return [ms_from_ns(x) for x in ordered[kept]], [100.0 * (k + 1) / count for k in kept.tolist()]
