"""The drawings of what a plan rests on: where the milliseconds go, the staircases, and what each group loses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeprune.records.breakdown import Breakdown
from edgeprune.records.sensitivity import GroupCurve
from edgeprune.records.staircase import Staircase
from edgeprune.reporting.svg import (
    DENSE,
    INK,
    LIMIT,
    LINE,
    MUTED,
    OTHER,
    SUBJECT,
    as_svg,
    grid_figure,
    style,
)
from edgeprune.units import format_ms

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 28
"""Operators of a waterfall that have a row of their own; the smaller ones share one."""

_ROW_INCHES = 0.19
_COLUMNS = 3
_PANEL_INCHES = 1.35
_LONGEST_LABEL = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One waterfall: a model at some widths."""

    title: str
    role: str
    breakdown: Breakdown


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPanel:
    """One group in a grid of small drawings.

    Attributes:
        chosen: its width in the plan; None where none was chosen, 0 where its block is taken out.
    """

    group: str
    full: int
    chosen: int | None
    staircase: Staircase | None = None
    curve: GroupCurve | None = None


def plot_waterfall(columns: Sequence[Column], limit_ms: float | None) -> str:
    """Predicted milliseconds, operator by operator from the top, each bar beginning where the one before ends.

    Args:
        columns: side by side with one scale; all of one model.
        limit_ms: the latency budget, or None.
    """
    rows = waterfall_rows([c.breakdown for c in columns])
    figure, axes_of = grid_figure(1, len(columns), 0.8 + _ROW_INCHES * (len(rows) + 1), share_x=True, share_y=True)
    widest_ms = max([*(c.breakdown.predicted_ms for c in columns), limit_ms or 0.0, 1e-9])
    with style():
        for position, (axes, column) in enumerate(zip(axes_of, columns, strict=True)):
            latencies_ms = [latency[position] for _, latency in rows]
            colour = SUBJECT if column.role == "subject" else DENSE
            _draw_waterfall(axes, latencies_ms, colour, widest_ms)
            axes.set_title(f"{column.title}\n{_totals(column.breakdown)}", loc="left", fontsize=8, color=MUTED)
            if limit_ms is not None:
                axes.axvline(limit_ms, color=LIMIT, linewidth=1.0, linestyle=(0, (4, 3)))
        labels = [_shortened(label) for label, _ in rows]
        axes_of[0].set_yticks(range(len(rows) + 1), [*labels, "together"], fontsize=7)
        axes_of[0].invert_yaxis()
        axes_of[0].set_xlim(0, 1.02 * widest_ms)
    said = "; ".join(f"{c.title}: {_totals(c.breakdown)}" for c in columns)
    return as_svg(figure, "waterfall", f"Where the milliseconds go. {said}")


def plot_staircases(panels: Sequence[GroupPanel]) -> str:
    """Latency of the operators that change with a group against its width: knees filled, the chosen width ringed."""

    def draw(axes: Axes, panel: GroupPanel) -> None:
        points = panel.staircase.points if panel.staircase else ()
        knees = set(panel.staircase.admissible) if panel.staircase else set()
        axes.plot([w for w, _ in points], [ms for _, ms in points], color=LINE, linewidth=1.2)
        for kept, filled in ((True, INK), (False, "none")):
            of_kind = [(w, ms) for w, ms in points if (w in knees) is kept]
            axes.plot(
                [w for w, _ in of_kind], [ms for _, ms in of_kind], "o", color=INK if kept else MUTED,
                markerfacecolor=filled, markersize=3.2 if kept else 2.8, markeredgewidth=0.7,
            )  # fmt: skip
        _ring(axes, panel.chosen, dict(points))
        axes.set_ylim(0, 1.15 * max((ms for _, ms in points), default=1.0) or 1.0)

    return _grid(panels, draw, name="staircases", what="Latency against width", y_label="ms")


def plot_curves(
    panels: Sequence[GroupPanel], *, name: str = "curves", what: str = "Loss against width", of: str = "groups"
) -> str:
    """What validation loss each group's cut adds: as measured, and as the plan reads it; one scale for all.

    Args:
        panels: one for each group.
        name: of the drawing among those of a page.
        what: it shows, for those who hear it.
        of: what the groups are.
    """

    def draw(axes: Axes, panel: GroupPanel) -> None:
        curve = panel.curve
        if curve is None:
            return
        measured = [(p.width, p.loss_increase) for p in curve.points]
        widths = [*(w for w, _ in measured), curve.width]
        axes.plot(widths, [curve.loss_at(w) for w in widths], color=OTHER, linewidth=1.4)
        axes.plot([w for w, _ in measured], [x for _, x in measured], "o", color=MUTED, markersize=3)
        if panel.chosen:
            _ring(axes, panel.chosen, {panel.chosen: curve.loss_at(panel.chosen)})

    return _grid(panels, draw, name=name, what=what, y_label="loss", of=of, share_y=True)


def waterfall_rows(breakdowns: Sequence[Breakdown], most: int = MOST_ROWS) -> list[tuple[str, tuple[float, ...]]]:
    """The largest operators in the model's order, the others together, and the rest: (name, ms in each breakdown).

    An operator that is not in one of them takes no time there.
    """
    tables = [_by_use(b) for b in breakdowns]
    names = dict.fromkeys(use for table in tables for use in table)
    latencies_ms = {use: tuple(table.get(use, 0.0) for table in tables) for use in names}
    largest = set(sorted(names, key=lambda use: max(latencies_ms[use]), reverse=True)[:most])
    rows = [(title, latencies_ms[title, count]) for title, count in names if (title, count) in largest]
    smaller = [latencies_ms[use] for use in names if use not in largest]
    if smaller:
        rows.append((f"{len(smaller)} smaller ones", tuple(map(sum, zip(*smaller, strict=True)))))
    return [*rows, ("the rest", tuple(b.rest_ms for b in breakdowns))]


def _by_use(breakdown: Breakdown) -> Mapping[tuple[str, int], float]:
    """By name and how often it was there before: a layer that runs twice is there twice."""
    found: dict[tuple[str, int], float] = {}
    seen: dict[str, int] = {}
    for operator in breakdown.operators:
        count = seen[operator.title] = seen.get(operator.title, 0) + 1
        found[operator.title, count] = operator.latency_ms
    return found


def _draw_waterfall(axes: Axes, latencies_ms: Sequence[float], colour: str, widest_ms: float) -> None:
    ends = [sum(latencies_ms[: k + 1]) for k in range(len(latencies_ms))]
    starts = [0.0, *ends[:-1]]
    rows = range(len(latencies_ms))
    # The rest is no operator, and is shown paler.
    colours = [*([colour] * (len(latencies_ms) - 1)), OTHER]
    axes.barh(rows, latencies_ms, left=starts, height=0.72, color=colours)
    axes.barh([len(latencies_ms)], [ends[-1]], height=0.72, color=LINE)
    for row, (start, end, latency_ms) in enumerate(zip(starts, ends, latencies_ms, strict=True)):
        right = end < 0.7 * widest_ms
        axes.annotate(
            format_ms(latency_ms).removesuffix(" ms"), (end if right else start, row), xytext=(3 if right else -3, 0),
            textcoords="offset points", ha="left" if right else "right", va="center", color=MUTED, fontsize=6.5,
        )  # fmt: skip
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel("ms", fontsize=8)


def _totals(breakdown: Breakdown) -> str:
    """What was predicted, with what was measured beside it."""
    measured = "not measured" if breakdown.measured_ms is None else f"measured {format_ms(breakdown.measured_ms)}"
    return f"predicted {format_ms(breakdown.predicted_ms)}, {measured}"


def _grid(
    panels: Sequence[GroupPanel],
    draw: Callable[[Axes, GroupPanel], None],
    *,
    name: str,
    what: str,
    y_label: str,
    of: str = "groups",
    share_y: bool = False,
) -> str:
    rows = -(-len(panels) // _COLUMNS)
    figure, axes_of = grid_figure(rows, _COLUMNS, 0.2 + _PANEL_INCHES * rows, share_y=share_y)
    with style():
        for position, axes in enumerate(axes_of):
            if position >= len(panels):
                axes.set_visible(False)
                continue
            panel = panels[position]
            draw(axes, panel)
            axes.set_title(_shortened(panel.group), loc="left", fontsize=8, color=INK)
            axes.set_xlim(0, 1.08 * panel.full)
            axes.tick_params(labelsize=7)
            if position % _COLUMNS == 0:
                axes.set_ylabel(y_label, fontsize=8)
    cuts = ", ".join(f"{p.group} {p.full}" + (f" to {p.chosen}" if p.chosen is not None else "") for p in panels)
    return as_svg(figure, name, f"{what} of {len(panels)} {of}: {cuts}")


def _ring(axes: Axes, width: int | None, value_at: Mapping[int, float]) -> None:
    if width is not None and width in value_at:
        axes.plot(
            [width], [value_at[width]], "o", color=SUBJECT, markerfacecolor="none", markersize=8, markeredgewidth=1.8
        )


def _shortened(label: str) -> str:
    """The end of a long name tells more than its beginning."""
    return label if len(label) <= _LONGEST_LABEL else f"\u2026{label[1 - _LONGEST_LABEL :]}"
