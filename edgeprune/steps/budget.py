"""What a candidate is held to: from what the profile and the target say to limits and floors."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.records.accuracy import Accuracy, PartScore, Score, ScoreFloor
from edgeprune.records.rung import Limits
from edgeprune.records.shares import Share, ShareFloor
from edgeprune.records.verdict import Floors, Speedups
from edgeprune.schema.floors import AccuracyFloors, PartFloor, RobustnessSet
from edgeprune.schema.profile import Budget
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
    metric = None if dense.score is None else _score_floor(wanted, dense.score)
    if dense.score is not None and not dense.class_names:
        return Floors(
            metric=metric,
            slice_scores=tuple(
                _part_score_floor(name, floor, dense.slice_scores, dense.score)
                for name, floor in sorted(wanted.slices.items())
            ),
            robustness_scores=_robustness_score_floors(wanted.robustness, dense, dense.score),
        )
    return Floors(
        accuracy=None if dense.score else max(relative, wanted.min_accuracy or 0.0),
        metric=metric,
        worst_class_recall=wanted.min_class_recall,
        classes=_class_floors(wanted.max_class_drop_points, dense),
        slices=tuple(_part_floor(name, floor, dense.slices) for name, floor in sorted(wanted.slices.items())),
        robustness=_robustness_floors(wanted.robustness, dense),
    )


def _class_floors(max_drop_points: float | None, dense: Accuracy) -> tuple[ShareFloor, ...]:
    """Each class under its own recall: held against the worst one alone, all others could fall to that."""
    if max_drop_points is None:
        return ()
    floor = PartFloor(max_drop_points=max_drop_points)
    return tuple(_part_floor(share.name, floor, dense.classes) for share in dense.classes if share.total)


def _robustness_floors(wanted: RobustnessSet, dense: Accuracy) -> tuple[ShareFloor, ...]:
    if not wanted.is_set:
        return ()
    names = [share.name for share in dense.robustness] or ["robustness set"]
    return tuple(_part_floor(name, wanted, dense.robustness) for name in names)


def _part_floor(name: str, wanted: PartFloor, dense: Sequence[Share]) -> ShareFloor:
    least = wanted.min_accuracy or 0.0
    if wanted.max_drop_points is None:
        return ShareFloor(name=name, floor=least)
    before = next((share for share in dense if share.name == name), None)
    if before is None:
        return ShareFloor(name=name, floor=None)
    return ShareFloor(name=name, floor=max(least, before.value - wanted.max_drop_points / 100), before=before)


def _robustness_score_floors(wanted: RobustnessSet, dense: Accuracy, whole: Score) -> tuple[ScoreFloor, ...]:
    if not wanted.is_set:
        return ()
    names = [part.name for part in dense.robustness_scores] or ["robustness set"]
    return tuple(_part_score_floor(name, wanted, dense.robustness_scores, whole) for name in names)


def _part_score_floor(name: str, wanted: PartFloor, dense: Sequence[PartScore], whole: Score) -> ScoreFloor:
    """By what `whole` tells of the metric: the dense model's score of the split."""
    if _allowed_loss(wanted, whole) is None:
        return ScoreFloor(name=name, floor=wanted.worst_value, is_share=whole.is_share)
    before = next((part.score for part in dense if part.name == name), None)
    floor = None if before is None else _score_floor(wanted, before)
    return ScoreFloor(name=name, floor=floor, is_share=whole.is_share, before=before)


def floors_of_schema_1(wanted: AccuracyFloors, dense: Accuracy) -> Floors:
    """As evidence of schema 1 has them: only the worst class was held against the dense model, by its worst."""
    relative = dense.overall - wanted.max_drop_points / 100
    worst = [wanted.min_class_recall] if wanted.min_class_recall is not None else []
    if wanted.max_class_drop_points is not None:
        worst.append(dense.worst_class[1] - wanted.max_class_drop_points / 100)
    return Floors(
        accuracy=max(relative, wanted.min_accuracy or 0.0),
        worst_class_recall=max(worst) if worst else None,
    )


def _allowed_loss(wanted: AccuracyFloors | PartFloor, dense: Score) -> float | None:
    """A share may lose points; any other metric what the target says in the metric's own unit."""
    if not dense.is_share:
        return wanted.max_worsening
    return None if wanted.max_drop_points is None else wanted.max_drop_points / 100


def _score_floor(wanted: AccuracyFloors | PartFloor, dense: Score) -> float | None:
    """The stricter of what may be lost and the worst value; None where neither is asked for."""
    allowed = _allowed_loss(wanted, dense)
    sign = 1.0 if dense.higher_is_better else -1.0
    floors = [] if allowed is None else [dense.value - sign * allowed]
    if wanted.worst_value is not None:
        floors.append(wanted.worst_value)
    return sign * max(sign * floor for floor in floors) if floors else None
