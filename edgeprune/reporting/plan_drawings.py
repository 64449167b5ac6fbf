"""What a plan rests on, drawn for one of its rungs: the waterfall, the staircases and the sensitivity curves."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.records.rung import Plan, PlannedRung, PruningKind, Rung
from edgeprune.records.sensitivity import ZeroSpread
from edgeprune.reporting import plan_plots
from edgeprune.reporting.plan_plots import Column, GroupPanel
from edgeprune.reporting.svg import Drawing

_MOST_PANELS = 24


def planned_as(plan: Plan, rung: Rung) -> PlannedRung | None:
    """What the plan says of a rung that was tried."""
    return next((r for r in plan.rungs if r.rung == rung), None)


def rung_to_draw(plan: Plan) -> PlannedRung | None:
    """The first rung of a plan that widths were searched for; else the one whose milliseconds were told apart.

    Where there is neither, the first whose zeros are spread by sensitivity.
    """
    priced = [r for r in plan.rungs if r.breakdown is not None]
    searched = [r for r in priced if r.rung.pruning is PruningKind.STRUCTURED]
    zeroed = [r for r in plan.rungs if r.zeros is not None]
    return next(iter((*searched, *priced, *zeroed)), None)


def plan_drawings(plan: Plan, planned: PlannedRung | None) -> tuple[Drawing, ...]:
    """The drawings of a rung: what operators take, where they were priced; what groups lose, where that is known."""
    panels = _panels(plan, planned)
    priced = planned is not None and planned.breakdown is not None
    made = (
        _waterfall(plan, planned) if planned else None,
        _staircases(panels) if priced else None,
        _curves(panels),
        _zeros(planned.zeros) if planned and planned.zeros else None,
    )
    return tuple(drawing for drawing in made if drawing is not None)


def _waterfall(plan: Plan, planned: PlannedRung) -> Drawing | None:
    where, survey = planned.breakdown, plan.survey(planned.rung)
    if where is None:
        return None
    columns = [Column(title="full widths", role="dense", breakdown=survey.full)] if survey else []
    cut = planned.rung.pruning is PruningKind.STRUCTURED
    columns.append(Column(title=planned.rung.name if cut else "full widths", role="subject", breakdown=where))
    caption = (
        f"On {planned.rung.place}: what each operator adds, from tables of single operators, corrected by "
        f"{where.observations} whole shape(s) measured there, which also tell what calls without a table take. "
        "The rest is the runtime's own time, and what widths do not change"
    )
    if where.unpriced:
        caption += f", and {', '.join(where.unpriced)}"
    if where.runtime_ms is not None:
        caption += f"; the smallest model that was measured there took {where.runtime_ms:.3g} ms"
    limits = [limit for limit in (plan.limits.p50_ms, plan.limits.p99_ms) if limit is not None]
    svg = plan_plots.plot_waterfall(columns, min(limits, default=None))
    return Drawing(title="Where the milliseconds go", svg=svg, caption=f"{caption}. The dashed line is the budget.")


def _panels(plan: Plan, planned: PlannedRung | None) -> tuple[GroupPanel, ...]:
    curves = {c.group: c for c in plan.sensitivity.curves} if plan.sensitivity else {}
    if planned is None or not planned.widths:
        return tuple(GroupPanel(group=name, full=c.width, chosen=None, curve=c) for name, c in curves.items())
    survey = plan.survey(planned.rung)
    stairs = survey.staircases if survey else {}
    return tuple(
        GroupPanel(
            group=w.group, full=w.before, chosen=w.after, staircase=stairs.get(w.group), curve=curves.get(w.group)
        )
        for w in planned.widths
    )


def _staircases(panels: Sequence[GroupPanel]) -> Drawing | None:
    shown, left_out = _most_cut([p for p in panels if p.staircase is not None])
    if not shown:
        return None
    caption = (
        "All operators that change with a group, against its channels. Filled: knees, where no larger width is as "
        f"fast, the only ones to choose from. Ringed: the width of this rung.{left_out}"
    )
    return Drawing(title="Staircases of the groups", svg=plan_plots.plot_staircases(shown), caption=caption)


def _curves(panels: Sequence[GroupPanel]) -> Drawing | None:
    shown, left_out = _most_cut([p for p in panels if p.curve is not None and p.curve.points])
    if not shown:
        return None
    caption = (
        "Increase of the validation loss where one group alone is cut, before any recovery. Dots were measured, the "
        "line is what the plan reckons with."
    )
    if any(panel.chosen is not None for panel in shown):
        caption += " Ringed: the width of this rung."
    caption += left_out
    return Drawing(title="What each group loses", svg=plan_plots.plot_curves(shown), caption=caption)


def _zeros(spread: ZeroSpread) -> Drawing:
    panels = [
        GroupPanel(group=c.group, full=c.width, chosen=round((1 - share) * c.width), curve=c)
        for c, share in zip(spread.curves, spread.shares, strict=True)
    ]
    shown, left_out = _most_cut(panels, of="layers")
    caption = (
        "Increase of the validation loss where one layer alone gets zeros, before any recovery, against the weights "
        "that are left in it. Dots were measured; each layer gets zeros until it loses the same. Ringed: what this "
        f"rung leaves.{left_out}"
    )
    svg = plan_plots.plot_curves(shown, name="zeros", what="Loss against weights that are left", of="layers")
    return Drawing(title="What each layer loses by zeros", svg=svg, caption=caption)


def _most_cut(panels: Sequence[GroupPanel], of: str = "groups") -> tuple[list[GroupPanel], str]:
    """At most so many as can be looked at, in the model's order, and a word about the others."""
    by_cut = sorted(panels, key=lambda p: (p.chosen if p.chosen is not None else p.full) / p.full)
    kept = {p.group for p in by_cut[:_MOST_PANELS]}
    others = len(panels) - len(kept)
    left_out = f" {others} {of} that are cut less, or as little, are left out." if others else ""
    return [p for p in panels if p.group in kept], left_out
