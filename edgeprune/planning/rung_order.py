"""The order in which planned rungs are tried, and which of them need not be: a better one stands before them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from edgeprune.planning.feasibility import tightness
from edgeprune.planning.ladder import accuracy_cost
from edgeprune.records.rung import Limits, PlannedRung, PruningKind, Rung, RungStatus
from edgeprune.units import format_mb, format_ms


def noise(one: PlannedRung, other: PlannedRung) -> float:
    """Standard error of the difference of two costs; their errors are taken as independent."""
    return math.hypot(one.cost_error, other.cost_error)


def ordered(rungs: Iterable[PlannedRung], limits: Limits) -> list[PlannedRung]:
    """Planned rungs by ascending accuracy cost, then the refused ones.

    Costs within one standard error of the lowest that is left are taken as equal. Of such, those that need no training
    come first, in the order of habit (float32, weights of 16 bits, bf16, fp16, INT8) and then the faster; pruned ones
    by their cost. Faster is by p50, and between rungs that differ in placement alone by `tightness`: those were
    measured for it.
    """
    found = tuple(rungs)
    best: dict[Rung, PlannedRung] = {}
    for rung in found:
        alike = rung.rung.unplaced
        best[alike] = min(best.get(alike, rung), rung, key=lambda r: tightness(r, limits))

    def latency(rung: PlannedRung) -> tuple[float, str, float]:
        first = best[rung.rung.unplaced]
        p50_ms = math.inf if first.p50_ms is None else first.p50_ms
        return p50_ms, first.rung.name, tightness(rung, limits)

    def by_cost(rung: PlannedRung) -> tuple[bool, float, float, str, float]:
        return rung.accuracy_cost is None, rung.accuracy_cost or 0.0, *latency(rung)

    rest = sorted((r for r in found if r.status is RungStatus.PLANNED), key=by_cost)
    order: list[PlannedRung] = []
    while rest:
        first = rest[0]
        equal = [r for r in rest if _cost(r) - _cost(first) <= noise(first, r)]
        order += sorted(equal, key=lambda r: (*_among_equals(r), *latency(r)))
        rest = [r for r in rest if r not in equal]
    return [*order, *sorted((r for r in found if r.status is RungStatus.REFUSED), key=by_cost)]


def _among_equals(rung: PlannedRung) -> tuple[bool, float]:
    unpruned = rung.rung.pruning is PruningKind.NONE
    return not unpruned, accuracy_cost(rung.rung) if unpruned else _cost(rung)


def _cost(rung: PlannedRung) -> float:
    return math.inf if rung.accuracy_cost is None else rung.accuracy_cost


def drop_dominated(rungs: Sequence[PlannedRung], limits: Limits) -> list[PlannedRung]:
    """The same rungs, with those refused that another planned one equals or beats in everything.

    Everything is the accuracy cost, p50, and what the budget limits of p99, memory and size. So a rung that is faster
    than the one before it stays, should that fail by its latency; and so does a rung that was not measured. A rung of a
    coarser kind (INT8 against float32, pruned against unpruned) drops another only where it costs less by more than the
    noise: else the accuracy gate may reject the first and take the second.

    Args:
        rungs: planned and refused, in the order in which they are tried.
        limits: the budget.
    """
    planned = [r for r in rungs if r.status is RungStatus.PLANNED]
    beaten_by = {
        rung.rung: [other for place, other in enumerate(planned) if _beats(other, rung, limits, earlier=place < own)]
        for own, rung in enumerate(planned)
    }
    # Noise makes the relation no order: only one that stays itself drops another.
    kept = {rung for rung, better in beaten_by.items() if not better}
    result = []
    for rung in rungs:
        better = next((b for b in beaten_by.get(rung.rung, ()) if b.rung in kept), None)
        if better is None:
            result.append(rung)
        else:
            result.append(replace(rung, status=RungStatus.REFUSED, reason=_why(better, rung, limits)))
    return result


def costs_no_more(one: PlannedRung, other: PlannedRung) -> bool:
    """Whether the cost of one is at most the other's, beyond noise where one is of a coarser kind."""
    if one.accuracy_cost is None or other.accuracy_cost is None:
        return False
    if _coarseness(one) <= _coarseness(other):
        return one.accuracy_cost <= other.accuracy_cost
    return one.accuracy_cost + noise(one, other) < other.accuracy_cost


def _coarseness(rung: PlannedRung) -> float:
    """The order of habit: unpruned before pruned, and precisions; how much is pruned does not count."""
    return accuracy_cost(replace(rung.rung, pruning_ratio=0.0))


def _beats(one: PlannedRung, other: PlannedRung, limits: Limits, *, earlier: bool) -> bool:
    ours, theirs = _figures(one, limits), _figures(other, limits)
    if one is other or ours is None or theirs is None or not costs_no_more(one, other):
        return False
    equal = ours == theirs and one.accuracy_cost == other.accuracy_cost
    return all(a <= b for a, b in zip(ours, theirs, strict=True)) and (earlier or not equal)


def _figures(rung: PlannedRung, limits: Limits) -> tuple[float, ...] | None:
    """What a rung is compared by, lower is better; None where it was not measured."""
    memory_bytes = rung.memory_bytes(limits.memory_of)
    if rung.p50_ms is None or rung.p99_ms is None or rung.artifact_bytes is None or memory_bytes is None:
        return None
    found = [rung.p50_ms]
    if limits.p99_ms is not None:
        found.append(rung.p99_ms)
    if limits.artifact_bytes is not None:
        found.append(rung.artifact_bytes)
    if limits.memory_bytes is not None:
        found.append(memory_bytes)
    return tuple(found)


def _why(better: PlannedRung, rung: PlannedRung, limits: Limits) -> str:
    def both(name: str, show: Callable[[float], str], ours: float | None, theirs: float | None) -> list[str]:
        return [] if ours is None or theirs is None else [f"{name} {show(ours)} against {show(theirs)}"]

    parts = both("p50", format_ms, better.p50_ms, rung.p50_ms)
    if limits.p99_ms is not None:
        parts += both("p99", format_ms, better.p99_ms, rung.p99_ms)
    if limits.memory_bytes is not None:
        of = limits.memory_of
        parts += both("memory", format_mb, better.memory_bytes(of), rung.memory_bytes(of))
    if limits.artifact_bytes is not None:
        parts += both("size", format_mb, better.artifact_bytes, rung.artifact_bytes)
    cost = both("accuracy cost", lambda c: f"{c:.4g}", better.accuracy_cost, rung.accuracy_cost)
    return f"{better.rung.name} is nowhere worse: {', '.join([*cost, *parts])}"
