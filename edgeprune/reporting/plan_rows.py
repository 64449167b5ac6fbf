"""The rungs of a plan as rows: the same in the terminal and on a page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

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
        p50, p99, memory, size: of the untrained shape on the device; after a tilde where it was only predicted. p99 is
            a hint from few runs; memory is the peak that the budget counts: the process's, or the model's alone.
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
    of = plan.limits.memory_of
    return tuple(_row(number, of, *found) for number, found in enumerate(alike.values(), start=1))


def memory_title(plan: Plan) -> str:
    """Of the column: whose peak is counted."""
    return "memory" if plan.limits.memory_of == "process" else "memory (model)"


def _row(number: int, of: Literal["process", "model"], planned: PlannedRung, *alike: PlannedRung) -> PlanRow:
    predicted = planned.predicted
    priced_ms = planned.breakdown.predicted_ms if planned.breakdown else None
    return PlanRow(
        number=number,
        name=f"{planned.rung.name} and {len(alike)} more" if alike else planned.rung.name,
        status=str(planned.status),
        p50=_shown(planned.p50_ms, predicted.p50_ms if predicted else priced_ms, format_ms),
        p99=_shown(planned.p99_ms, predicted.p99_ms if predicted else None, format_ms),
        memory=_shown(planned.memory_bytes(of), predicted.memory_bytes if predicted else None, format_mb),
        size=_shown(planned.artifact_bytes, predicted.artifact_bytes if predicted else None, format_mb),
        cost=_cost(planned),
        reason=planned.reason,
        short_reason=planned.short_reason,
    )


def _shown(measured: float | None, predicted: float | None, show: Callable[[float], str]) -> str:
    if measured is not None:
        return show(measured)
    return NONE if predicted is None else f"~{show(predicted)}"


def _cost(planned: PlannedRung) -> str:
    if planned.accuracy_cost is None:
        return NONE
    error = f"±{planned.cost_error:.3f}" if planned.cost_error else ""
    return f"{planned.accuracy_cost:.3f}{error}"
