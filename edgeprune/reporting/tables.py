"""The tables of a report: the dense model beside the subject, and every rung with what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgeprune.records.accuracy import Accuracy
from edgeprune.records.result import BuildResult, Candidate, CandidateStatus
from edgeprune.records.rung import PlannedRung, RungStatus
from edgeprune.reporting.quantities import (
    NONE,
    Show,
    Shown,
    direction,
    show_latency,
    show_load,
    show_macs,
    show_memory,
    show_parameters,
    show_percentile,
    show_size,
    show_test,
    show_validation,
    signed,
    signed_points,
    times,
)
from edgeprune.reporting.summary import accuracy_floor_percent, subject_of
from edgeprune.units import format_mb, format_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One quantity of the dense model and of the subject."""

    quantity: str
    dense: str
    subject: str
    change: str
    limit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RungRow:
    """One rung, or one candidate of it: what became of it and why.

    Attributes:
        number: its label in the plot.
        folder: of the candidate; empty for a rung without one.
    """

    number: int
    folder: str
    name: str
    outcome: str
    reason: str
    shape_p50: str
    p50: str
    p99: str
    accuracy: str
    size: str


def comparison(result: BuildResult) -> tuple[ComparisonRow, ...]:
    """Every quantity, dense beside the subject."""
    limits, dense, subject = result.plan.limits, result.dense, subject_of(result)
    floor = accuracy_floor_percent(result)
    judged_by = dense.validation
    name = judged_by.metric if judged_by else "accuracy"
    change = _points if judged_by is None or judged_by.is_share else signed
    rows = [
        _row(f"{name}, validation", dense, subject, show_validation, change=change, limit=_bound(floor, judged_by)),
        _row(f"{name}, test", dense, subject, show_test, change=change),
        *(
            _row(f"latency p{p:g}", dense, subject, show_latency(p), change=_ratio("faster", "slower"), limit=limit)
            for p, limit in _percents(result)
        ),
        _row(
            "peak memory",
            dense,
            subject,
            show_memory,
            change=_ratio("smaller", "larger"),
            limit=_mb(limits.memory_bytes),
        ),
        _row(
            "artifact", dense, subject, show_size, change=_ratio("smaller", "larger"), limit=_mb(limits.artifact_bytes)
        ),
        _row("load time", dense, subject, show_load, change=_ratio("faster", "slower")),
        _row("parameters", dense, subject, show_parameters, change=_ratio("fewer", "more")),
        _row("multiply-accumulates", dense, subject, show_macs, change=_ratio("fewer", "more")),
    ]
    return tuple(rows)


def _row(
    quantity: str,
    dense: Candidate,
    subject: Candidate | None,
    show: Show,
    *,
    change: Callable[[float, float], str],
    limit: str = "",
) -> ComparisonRow:
    before, after = show(dense), show(subject) if subject is not None else None
    return ComparisonRow(
        quantity=quantity,
        dense=before[0] if before else NONE,
        subject=after[0] if after else NONE,
        change=change(before[1], after[1]) if before and after else "",
        limit=limit,
    )


def _percents(result: BuildResult) -> list[tuple[float, str]]:
    limits = result.plan.limits
    by_percent = {50.0: limits.p50_ms, 99.0: limits.p99_ms}
    shown = sorted({p.percent for p in result.dense.percentiles} | {50.0, 99.0})
    found = ((p, by_percent.get(p)) for p in shown)
    return [(p, "" if limit is None else f"≤ {format_ms(limit)}") for p, limit in found]


def _bound(floor: float | None, judged_by: Accuracy | None) -> str:
    if floor is None:
        return ""
    if judged_by is None or judged_by.is_share:
        return f"≥ {floor:.2f}%"
    return f"{'≥' if judged_by.higher_is_better else '≤'} {floor:.4g}"


def _mb(value: int | None) -> str:
    return "" if value is None else f"≤ {format_mb(value)}"


def _points(before: float, after: float) -> str:
    return f"{signed_points(before, after)} points"


def _ratio(better: str, worse: str) -> Callable[[float, float], str]:
    def change(before: float, after: float) -> str:
        if before <= 0 or after <= 0:
            return ""
        factor = times(before, after)
        return "the same" if factor == times(1.0, 1.0) else f"{factor} {direction(before, after, better, worse)}"

    return change


def rungs(result: BuildResult) -> tuple[RungRow, ...]:
    """Every rung of the plan in its order, with its candidates; then candidates that the plan did not foresee.

    Rungs refused unmeasured for one and the same reason share a row.
    """
    tried: dict[str, list[Candidate]] = {}
    # The baseline may be refused as a candidate, or tried as one: it has a row of its own, in front.
    for candidate in (result.dense, *result.candidates):
        tried.setdefault(candidate.rung.name, []).append(candidate)
    pairs: list[tuple[PlannedRung | None, Candidate | None]] = []
    for planned in result.plan.rungs:
        pairs += [(planned, c) for c in tried.pop(planned.rung.name, [])] or [(planned, None)]
    pairs += [(None, c) for rest in tried.values() for c in rest]
    rows = [_rung_row(planned, c) for planned, c in pairs]
    return _numbered([_as_baseline(r) if c is result.dense else r for r, (_, c) in zip(rows, pairs, strict=True)])


def _as_baseline(row: RungRow) -> RungRow:
    return replace(row, outcome="dense (baseline)", reason=f"{row.reason}; every ratio refers to it")


def _numbered(rows: Sequence[RungRow]) -> tuple[RungRow, ...]:
    return tuple(replace(row, number=k) for k, row in enumerate(_together(rows), start=1))


def _together(rows: Sequence[RungRow]) -> list[RungRow]:
    alike: dict[tuple[str, ...], list[RungRow]] = {}
    for position, row in enumerate(rows):
        unmeasured = row.outcome == "refused" and row.shape_p50 == NONE
        alike.setdefault((row.reason,) if unmeasured else (row.reason, str(position)), []).append(row)
    return [
        found[0] if len(found) == 1 else replace(found[0], name=f"{found[0].name} and {len(found) - 1} more")
        for found in alike.values()
    ]


def _rung_row(planned: PlannedRung | None, candidate: Candidate | None) -> RungRow:
    outcome, reason = _outcome(planned, candidate)
    rung = candidate.rung if candidate else planned.rung if planned else None
    shape_ms = planned.p50_ms if planned else None
    shown = {name: show(candidate) if candidate else None for name, show in _RUNG_COLUMNS}
    size = shown["size"] or ((format_mb(planned.artifact_bytes), 0.0) if planned and planned.artifact_bytes else None)
    return RungRow(
        number=0,
        folder=candidate.folder if candidate else "",
        name=rung.name if rung else NONE,
        outcome=outcome,
        reason=reason,
        shape_p50=NONE if shape_ms is None else format_ms(shape_ms),
        p50=_text(shown["p50"]),
        p99=_text(shown["p99"]),
        accuracy=_text(shown["accuracy"]),
        size=_text(size),
    )


_RUNG_COLUMNS: tuple[tuple[str, Show], ...] = (
    ("p50", show_percentile(50.0)),
    ("p99", show_percentile(99.0)),
    ("accuracy", show_validation),
    ("size", show_size),
)


def _text(shown: Shown) -> str:
    return shown[0] if shown else NONE


def _outcome(planned: PlannedRung | None, candidate: Candidate | None) -> tuple[str, str]:
    if candidate is not None:
        outcome = "chosen" if candidate.status is CandidateStatus.CHOSEN else str(candidate.status)
        return outcome, candidate.reason
    if planned is not None and planned.status is RungStatus.REFUSED:
        return "refused", planned.reason
    return "not tried", f"an earlier rung ended the search; {planned.reason}" if planned else ""
