"""The report of a build that ended before it trained anything: no rung fits the budget."""

from __future__ import annotations

from edgeprune.records.rung import Limits, Plan, PlannedRung
from edgeprune.reporting.html import template
from edgeprune.reporting.quantities import NONE
from edgeprune.reporting.tables import planned_rungs
from edgeprune.units import format_mb, format_ms


def render_plan_html(plan: Plan, target: str, profile: str, device: str) -> str:
    """The best possible beside the budget, and every rung with its reason; self-contained like a build's report."""
    return template("plan.html.j2").render(
        target=target,
        profile=profile,
        device=device,
        best=plan.best,
        budget=_budget(plan.limits, plan.best),
        rungs=planned_rungs(plan),
        notes=plan.notes,
    )


def _budget(limits: Limits, best: PlannedRung) -> list[tuple[str, str, str]]:
    """(quantity, limit, what the fastest rung showed)."""
    rows = (
        ("latency p50", limits.p50_ms, best.p50_ms, format_ms),
        ("latency p99 (a hint: few runs)", limits.p99_ms, best.p99_ms, format_ms),
        ("peak memory", limits.memory_bytes, best.peak_bytes, format_mb),
        ("artifact", limits.artifact_bytes, best.artifact_bytes, format_mb),
    )
    return [
        (name, f"\u2264 {shown(limit)}" if limit else NONE, shown(value) if value else NONE)
        for name, limit, value, shown in rows
    ]
