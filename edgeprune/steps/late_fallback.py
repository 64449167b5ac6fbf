"""Narrower widths where all that was planned failed its latency gates, and nothing but those.

The plan's own looks are short. What a gate measured over many processes is the better evidence of how long the tail at
a place is: by so much as it was missed by the narrowest widths that were tried there, the next ones are to be faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeprune.errors import BuildError, MeasurementError
from edgeprune.gating.judge import ACCURACY_GATES
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.records.result import Candidate
from edgeprune.records.rung import Limits, Plan, PlannedRung, PruningKind, Rung, RungStatus
from edgeprune.records.verdict import GateResult, Verdict
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.narrowing import Narrower
from edgeprune.units import format_ms

_LATENCY_GATES = frozenset({"p50", "p99"})

_SURE = 1.1
"""A p99 that is predicted to be further over than this spares a training; the tail may be shorter at other widths."""


@dataclass(frozen=True)
class LateFallback:
    """Extends a plan that was climbed to its end without a pass."""

    narrower: Narrower
    costs: AccuracyCosts

    def extended(self, plan: Plan, tried: Sequence[Candidate]) -> Plan:
        """The plan with narrower rungs at the fastest place where the narrowest was only late, or as it was.

        Args:
            plan: whose planned rungs were all tried.
            tried: its candidates.

        Raises:
            MeasurementError: the device is busy or went away.
        """
        failed = _failed_by_latency(plan, tried)
        bench = self.narrower.shapes.bench
        if failed is None or not (bench.groups.groups or bench.blocks.removable):
            return plan
        planned, gates = failed
        why = ", ".join(gate.gate for gate in gates)
        bench.note(f"{planned.rung.name} failed {why}: narrower widths are searched for there", "warning")
        try:
            found = [self.costs.priced(r) for r in self._narrower(planned, gates, plan.limits)]
        except (BuildError, MeasurementError) as error:
            if isinstance(error, MeasurementError) and not error.about_artifact:
                raise
            bench.note(f"{planned.rung.name} cannot be narrowed: {error.message}", "warning")
            return plan
        known = {r.rung for r in plan.rungs}
        after = f"searched for after {planned.rung.name} failed {why}"
        told = [replace(r, reason=f"{r.reason}; {after}") for r in found if r.rung not in known]
        places = {survey.place for survey in plan.surveys}
        note = f"{planned.rung.name} failed {why}; narrower widths were searched for then"
        return replace(
            plan,
            rungs=(*plan.rungs, *told),
            notes=(*plan.notes, note),
            surveys=(*plan.surveys, *(s for s in self.narrower.surveys if s.place not in places)),
            sensitivity=self.narrower.loss.taken,
        )

    def _narrower(self, planned: PlannedRung, gates: Sequence[GateResult], limits: Limits) -> list[PlannedRung]:
        """Widths whose p50 is lower by as much as the worst gate was missed by: the tail is taken to shrink along."""
        place, shapes = planned.rung.unpruned, self.narrower.shapes
        late = shapes.measure(planned.rung, planned.widths, planned.removed_blocks)
        share = min(gate.limit / (gate.measured or gate.limit) for gate in gates)
        tighter = replace(limits, p50_ms=min(share, 1.0) * late.p50_ms, p99_ms=None)
        return self.narrower.plan(shapes.measure(place), self.narrower.fastest_admissible(place), tighter)


def sure_to_be_late(shape: ShapeFigures, tried: Sequence[Candidate]) -> str | None:
    """Why widths that were not trained yet need not be: the tail that a gate saw at their place; None when they must.

    Args:
        shape: untrained, measured.
        tried: the candidates before it.
    """
    for candidate in tried:
        gates = candidate.judgement.gates if candidate.judgement else ()
        failed = next((g for g in gates if g.gate == "p99" and g.verdict is Verdict.FAIL), None)
        p50_ms, p99_ms = candidate.percentile_ms(50.0), candidate.percentile_ms(99.0)
        alike = candidate.rung.pruning is PruningKind.STRUCTURED and candidate.rung.unpruned == shape.rung.unpruned
        if alike and failed and p50_ms and p99_ms:
            predicted_ms = shape.p50_ms * p99_ms / p50_ms
            if predicted_ms > _SURE * failed.limit:
                told = f"p99 would be about {format_ms(predicted_ms)} by the tail of {candidate.rung.name}"
                return f"{told}, over the budget of {format_ms(failed.limit)}"
    return None


def _failed_by_latency(plan: Plan, tried: Sequence[Candidate]) -> tuple[PlannedRung, tuple[GateResult, ...]] | None:
    """The fastest of those that only their latency kept from passing, each the narrowest at its place.

    Where a rung with widths cut lost too much accuracy, narrower ones would lose more: such a place is left out. So is
    one where widths were searched for and none was tried.
    """
    by_rung = {r.rung: r for r in plan.rungs}
    searched = {r.rung.unpruned for r in plan.rungs if r.rung.pruning is PruningKind.STRUCTURED and r.widths}
    found = list[tuple[float, PlannedRung, tuple[GateResult, ...]]]()
    lossy = set[Rung]()
    for candidate in tried:
        planned, rung = by_rung.get(candidate.rung), candidate.rung
        failed = [g for g in (candidate.judgement.gates if candidate.judgement else ()) if g.verdict is Verdict.FAIL]
        if planned is None or not failed or rung.masked:
            continue
        cut, gates = rung.pruning is PruningKind.STRUCTURED, {g.gate for g in failed}
        if gates <= _LATENCY_GATES and (cut or rung not in searched):
            # A fallback is planned without having been measured.
            p50_ms = planned.p50_ms or candidate.percentile_ms(50.0) or 0.0
            found.append((p50_ms, planned, tuple(failed)))
        elif cut and gates & ACCURACY_GATES:
            lossy.add(rung.unpruned)
    narrowest = {f[1].rung.unpruned: f for f in sorted(found, key=lambda f: f[1].rung.pruning_ratio)}
    left = (f for place, f in narrowest.items() if place not in lossy)
    fastest = min(left, key=lambda f: f[0], default=None)
    return fastest and fastest[1:]


def planned_of(before: Plan, after: Plan) -> tuple[PlannedRung, ...]:
    """What is planned in the extended plan and was not before."""
    known = {r.rung for r in before.rungs}
    return tuple(r for r in after.rungs if r.rung not in known and r.status is RungStatus.PLANNED)
