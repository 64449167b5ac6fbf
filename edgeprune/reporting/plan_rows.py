"""The rungs of a plan as rows: the same in the terminal and on a page."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.rung import Plan, PlannedRung, RungStatus
from edgeprune.reporting.quantities import NONE
from edgeprune.units import format_mb, format_ms


def cost_meaning(plan: Plan) -> str:
    """What the accuracy costs of a plan are, in a sentence."""
    if plan.costs_measured:
        return "accuracy cost is the increase of the mean validation loss before any recovery; the least is tried first"
    return "accuracy cost is a rank, the least is tried first: no model is trained yet to measure losses with"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One rung, or several that were refused unmeasured for one reason.

    Attributes:
        number: of the row.
        p50, p99: of the untrained shape on the device; after a tilde where it was only predicted. p99 is a hint from
            few runs.
        memory: peak of the process.
        reason: whole; `short_reason` is for tables.
    """

    number: int
    name: str
    status: str
    p50: str
    p99: str
    memory: str
    size: str
    cost: str
    reason: str
    short_reason: str


def plan_rows(plan: Plan) -> tuple[PlanRow, ...]:
    """Planned rungs in the order in which they are tried, then the refused ones."""
    alike: dict[tuple[str, ...], list[PlannedRung]] = {}
    for position, planned in enumerate(plan.rungs):
        unmeasured = planned.status is RungStatus.REFUSED and planned.p50_ms is None
        alike.setdefault((planned.reason,) if unmeasured else (planned.reason, str(position)), []).append(planned)
    return tuple(_row(number, *found) for number, found in enumerate(alike.values(), start=1))


def _row(number: int, planned: PlannedRung, *alike: PlannedRung) -> PlanRow:
    return PlanRow(
        number=number,
        name=f"{planned.rung.name} and {len(alike)} more" if alike else planned.rung.name,
        status=str(planned.status),
        p50=_p50(planned),
        p99=NONE if planned.p99_ms is None else format_ms(planned.p99_ms),
        memory=format_mb(planned.peak_bytes) if planned.peak_bytes else NONE,
        size=format_mb(planned.artifact_bytes) if planned.artifact_bytes else NONE,
        cost=_cost(planned),
        reason=planned.reason,
        short_reason=planned.short_reason,
    )


def _p50(planned: PlannedRung) -> str:
    if planned.p50_ms is not None:
        return format_ms(planned.p50_ms)
    return f"~{format_ms(planned.breakdown.predicted_ms)}" if planned.breakdown else NONE


def _cost(planned: PlannedRung) -> str:
    if planned.accuracy_cost is None:
        return NONE
    error = f"±{planned.cost_error:.3f}" if planned.cost_error else ""
    return f"{planned.accuracy_cost:.3f}{error}"
