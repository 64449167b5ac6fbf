"""What a candidate is held to: from what the profile and the target say to limits and floors."""

from __future__ import annotations

from edgeprune.records.accuracy import Accuracy, Score
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Floors, Speedups
from edgeprune.schema.profile import Budget
from edgeprune.schema.target import AccuracyFloors
from edgeprune.units import bytes_from_mb


def resolve_limits(budget: Budget, dense_p50_ms: float, dense_p99_ms: float) -> Limits:
    """The budget in absolute terms; relative limits refer to the dense model's latency."""

    def limit(absolute: float | None, speedup: float | None, dense_ms: float) -> float | None:
        return absolute if speedup is None else dense_ms / speedup

    return Limits(
        p50_ms=limit(budget.p50_ms, budget.p50_speedup, dense_p50_ms),
        p99_ms=limit(budget.p99_ms, budget.p99_speedup, dense_p99_ms),
        memory_bytes=None if budget.memory_mb is None else bytes_from_mb(budget.memory_mb),
        memory_of=budget.memory_of,
        artifact_bytes=None if budget.artifact_mb is None else bytes_from_mb(budget.artifact_mb),
    )


def limits_to_judge(budget: Budget) -> tuple[Limits, Speedups]:
    """The absolute limits, and the ones that the judge takes from the baseline's raw samples."""
    absolute = budget.model_copy(update={"p50_speedup": None, "p99_speedup": None})
    return resolve_limits(absolute, 0.0, 0.0), Speedups(p50=budget.p50_speedup, p99=budget.p99_speedup)


def floors_from(wanted: AccuracyFloors, dense: Accuracy) -> Floors:
    """Absolute floors: the stricter of what the target says outright and what it says relative to dense."""
    relative = dense.overall - wanted.max_drop_points / 100
    worst = [wanted.min_class_recall] if wanted.min_class_recall is not None else []
    if wanted.max_class_drop_points is not None:
        worst.append(dense.worst_class[1] - wanted.max_class_drop_points / 100)
    return Floors(
        accuracy=None if dense.score else max(relative, wanted.min_accuracy or 0.0),
        metric=_metric_floor(wanted, dense.score),
        worst_class_recall=max(worst) if worst else None,
    )


def _metric_floor(wanted: AccuracyFloors, dense: Score | None) -> float | None:
    """A share may lose points; any other metric what the target says in the metric's own unit."""
    if dense is None:
        return None
    allowed = wanted.max_drop_points / 100 if dense.is_share else wanted.max_worsening
    sign = 1.0 if dense.higher_is_better else -1.0
    floors = [] if allowed is None else [dense.value - sign * allowed]
    if wanted.worst_value is not None:
        floors.append(wanted.worst_value)
    return sign * max(sign * floor for floor in floors) if floors else None
