"""A page about a plan of which nothing was trained: that of `edgeprune plan`, or one without a rung that fits."""

from __future__ import annotations

from edgeprune.records.rung import Limits, Plan, PlannedRung
from edgeprune.reporting.html import template
from edgeprune.reporting.plan_drawings import plan_drawings, rung_to_draw
from edgeprune.reporting.plan_rows import cost_meaning, memory_title, plan_rows
from edgeprune.reporting.quantities import NONE
from edgeprune.units import format_mb, format_ms


def render_plan_html(plan: Plan, target: str, profile: str, device: str) -> str:
    """The best possible beside the budget, every rung with its reason, and what widths were chosen by.

    Self-contained like a build's report.
    """
    drawn = rung_to_draw(plan)
    return template("plan.html.j2").render(
        target=target,
        profile=profile,
        device=device,
        planned=plan.planned,
        best=plan.best,
        budget=_budget(plan.limits, plan.best),
        rungs=plan_rows(plan),
        cost_meaning=cost_meaning(plan),
        memory_title=memory_title(plan),
        drawn=drawn,
        drawings=plan_drawings(plan, drawn),
        notes=plan.notes,
    )


def _budget(limits: Limits, best: PlannedRung) -> list[tuple[str, str, str]]:
    """(quantity, limit, what the fastest rung showed)."""
    rows = (
        ("latency p50", limits.p50_ms, best.p50_ms, format_ms),
        ("latency p99 (a hint: few runs)", limits.p99_ms, best.p99_ms, format_ms),
        (f"peak memory of the {limits.memory_of}", limits.memory_bytes, best.memory_bytes(limits.memory_of), format_mb),
        ("artifact", limits.artifact_bytes, best.artifact_bytes, format_mb),
    )
    return [
        (name, f"\u2264 {shown(limit)}" if limit else NONE, shown(value) if value else NONE)
        for name, limit, value, shown in rows
    ]
