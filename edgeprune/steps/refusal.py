"""The early no: the best possible, what limits it, and the smallest budget that could be met."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from edgeprune.errors import BuildError, MeasurementError, PlanError
from edgeprune.graph.names import block_of
from edgeprune.graph.operators import model_operators
from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.breakdown import break_down
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.feasibility import HEADROOM, LOOKS_FOR_A_NO
from edgeprune.planning.shape_problem import ShapeProblem
from edgeprune.records.breakdown import Breakdown
from edgeprune.records.rung import Limits, Plan, PlannedRung, kept_widths
from edgeprune.steps.tables import OperatorTables
from edgeprune.steps.workbench import Workbench
from edgeprune.units import format_mb, format_ms


def with_what_limits(bench: Workbench, plan: Plan) -> Plan:
    """A plan without a planned rung, where the operators of its fastest one are priced, if latency is in the way.

    Only that rung's operators at its own widths: a dozen or two shapes, so that the no stays quick. The no stands
    without them too, so a device that will not have them measured is told as a note.
    """
    best = plan.best
    if plan.planned or best.breakdown is not None or best.rung.masked or not _too_slow(best, plan.limits):
        return plan
    try:
        explained = replace(best, breakdown=_priced(bench, best))
    except (BuildError, MeasurementError) as error:
        return replace(plan, notes=(*plan.notes, f"what limits {best.rung.name} is not known: {error.message}"))
    return replace(plan, rungs=tuple(explained if rung is best else rung for rung in plan.rungs))


def no_plan_error(plan: Plan, report: Path | None = None) -> PlanError:
    """The quick and clear no: the best that was measured, by what, what stands in the way, and where a report lies."""
    best, where, tail = plan.best, plan.best.breakdown, _better_tail(plan)
    least = _least_feasible(plan)
    parts = [
        f"no plan fits the budget ({budget_text(plan.limits)})",
        f"the best possible is {_best_text(best)} by {best.rung.name}: {best.short_reason}",
        f"the lowest p99 of a long look is {format_ms(tail.p99_ms or 0.0)} by {tail.rung.name}" if tail else "",
        f"not asked for their narrowest widths, others promised more: {', '.join(plan.not_asked)}"
        if plan.not_asked
        else "",
        f"of its latency, {where.summary}" if where else "",
        _feasible_text(plan, least),
        f"every rung and why: {report}" if report else "",
    ]
    return PlanError(
        "; ".join(part for part in parts if part),
        best_p50_ms=best.p50_ms,
        best_p99_ms=best.p99_ms,
        best_rung=best.rung.name,
        lowest_p99_ms=tail.p99_ms if tail else best.p99_ms,
        lowest_p99_rung=tail.rung.name if tail else best.rung.name,
        not_asked=list(plan.not_asked),
        least_feasible_p50_ms=least.p50_ms,
        least_feasible_p99_ms=least.p99_ms,
        least_feasible_memory_bytes=least.memory_bytes,
        least_feasible_artifact_bytes=least.artifact_bytes,
        feasible_alone={name: value for name, value, _ in _within_others(plan)},
        limited_by=_limiting_facts(where) if where else None,
    )


def _least_feasible(plan: Plan) -> Limits:
    """The least that could be asked for, each quantity by itself; None for one that does not stand in the way.

    A p50 is given headroom, so that the fastest shape would be planned for. A p99 is a hint, from few runs. It stands
    in the way where even p50 is over its limit, or where long looks refused it.
    """
    missed: dict[str, float] = {}
    for name in _SHOWN:
        limit, least = getattr(plan.limits, name), min(_shows(r, plan.limits, name) for r in (*plan.rungs, plan.dense))
        if limit is not None and limit < least < math.inf:
            missed[name] = least
    return Limits(
        p50_ms=missed["p50_ms"] / HEADROOM if "p50_ms" in missed else None,
        p99_ms=max(missed["p99_ms"] / HEADROOM, plan.best.p99_ms or 0.0) if "p99_ms" in missed else None,
        memory_bytes=int(missed["memory_bytes"]) if "memory_bytes" in missed else None,
        artifact_bytes=int(missed["artifact_bytes"]) if "artifact_bytes" in missed else None,
        memory_of=plan.limits.memory_of,
    )


def _feasible_text(plan: Plan, least: Limits) -> str:
    rungs, parts = (*plan.rungs, plan.dense), []
    if least.p50_ms is not None:
        faster = f" ({plan.dense.p50_ms / least.p50_ms:.2f}x dense)" if plan.dense.p50_ms else ""
        parts.append(f"a p50 of {format_ms(least.p50_ms)}{faster}")
    if least.p99_ms is not None:
        parts.append(f"a p99 of about {format_ms(least.p99_ms)}")
    if least.memory_bytes is not None:
        by = next(r for r in rungs if r.memory_bytes(least.memory_of) == least.memory_bytes).rung.name
        parts.append(f"a peak memory of the {least.memory_of} of {format_mb(least.memory_bytes)} (by {by})")
    if least.artifact_bytes is not None:
        by = next(r for r in rungs if r.artifact_bytes == least.artifact_bytes).rung.name
        parts.append(f"a size of {format_mb(least.artifact_bytes)} (by {by})")
    if not parts:
        told = [f"{_SHOWN[name](value)} (by {rung.rung.name})" for name, value, rung in _within_others(plan)]
        instead = f"; all else as it is, {' or '.join(told)} could be met" if told else ""
        return f"no limit is out of reach by itself, but no rung meets all of them{instead}"
    return f"{' and '.join(parts)} could be met"


_SHOWN: Mapping[str, Callable[[float], str]] = {
    "p50_ms": lambda value: f"a p50 of {format_ms(value)}",
    "p99_ms": lambda value: f"a p99 of about {format_ms(value)}",
    "memory_bytes": lambda value: f"a peak memory of {format_mb(value)}",
    "artifact_bytes": lambda value: f"a size of {format_mb(value)}",
}


def _better_tail(plan: Plan) -> PlannedRung | None:
    """The rung with the lowest p99 that a long look showed, where p99 is limited and it is another than the fastest."""
    looked = [r for r in (*plan.rungs, plan.dense) if r.p99_ms is not None and r.long_looks]
    lowest = min(looked, key=lambda r: r.p99_ms or 0.0, default=None)
    other = lowest is not None and lowest.rung != plan.best.rung
    return lowest if other and plan.limits.p99_ms is not None else None


def _within_others(plan: Plan) -> list[tuple[str, float, PlannedRung]]:
    """By limit, the least of it that a rung showed which keeps to all others; those that were kept to are left out."""
    limits = {name: limit for name in _SHOWN if (limit := getattr(plan.limits, name)) is not None}
    found = []
    for name, limit in limits.items():
        others = [other for other in limits if other != name]
        fit = [r for r in (*plan.rungs, plan.dense) if all(_shows(r, plan.limits, o) <= limits[o] for o in others)]
        least = min(fit, key=lambda r: _shows(r, plan.limits, name), default=None)
        if least is not None and limit < _shows(least, plan.limits, name) < math.inf:
            found.append((name, _shows(least, plan.limits, name), least))
    return found


def _shows(rung: PlannedRung, limits: Limits, name: str) -> float:
    """What a rung showed of a limited quantity, infinite where it was not measured; of p99 what is known of it."""
    tail_ms = rung.p99_ms if rung.long_looks >= LOOKS_FOR_A_NO else rung.p50_ms
    values = {"p99_ms": tail_ms, "memory_bytes": rung.memory_bytes(limits.memory_of)}
    value = values[name] if name in values else getattr(rung, name)
    return float(value) if value else math.inf


def _best_text(best: PlannedRung) -> str:
    p99 = f" and p99 {format_ms(best.p99_ms)} (a hint: few runs)" if best.p99_ms is not None else ""
    return f"p50 {format_ms(best.p50_ms or 0.0)}{p99}"


def budget_text(limits: Limits) -> str:
    """In a line: p50 2.60 ms, size 0.40 MB."""
    wanted = [f"{n} {format_ms(v)}" for n, v in (("p50", limits.p50_ms), ("p99", limits.p99_ms)) if v]
    wanted += [
        f"{n} {format_mb(v)}" for n, v in (("memory", limits.memory_bytes), ("size", limits.artifact_bytes)) if v
    ]
    return ", ".join(wanted)


def _limiting_facts(where: Breakdown) -> dict[str, object]:
    largest = [{"layer": o.layer, "kind": o.kind, "latency_ms": o.latency_ms} for o in where.largest()]
    return {
        "operators": largest,
        "fixed_ms": where.fixed_ms,
        "rest_ms": where.rest_ms,
        "runtime_ms": where.runtime_ms,
        "predicted_ms": where.predicted_ms,
        "measured_ms": where.measured_ms,
    }


def _too_slow(best: PlannedRung, limits: Limits) -> bool:
    return any(
        _shows(best, limits, name) > limit
        for name, limit in (("p50_ms", limits.p50_ms), ("p99_ms", limits.p99_ms))
        if limit is not None and best.p50_ms is not None
    )


def _priced(bench: Workbench, best: PlannedRung) -> Breakdown:
    tables = OperatorTables(bench.device, bench.note)
    groups = bench.groups.groups
    found = model_operators(bench.fresh_model(), bench.example, groups)
    after = kept_widths(best.widths) if best.widths else {g.name: g.width for g in groups}
    uses = tuple(u.narrowed(after) for u in found if block_of(u.layer, best.removed_blocks) is None)
    tables.ensure((u.shape for u in uses if not u.unsupported), best.rung)
    # The only widths that are asked for count as the full ones: each operator is measured as it is, not put together.
    problem = ShapeProblem(
        uses=uses, full=after, choices={}, entry_ms=lambda shape: tables.latency_ms(shape, best.rung)
    )
    shape = Configuration(widths=after)
    measured_ms = best.p50_ms or 0.0
    cost = CostModel().updated(Observation(problem.terms(shape), measured_ms))
    return break_down(problem, cost, shape, measured_ms=measured_ms, runtime_ms=tables.least_ms(best.rung))
