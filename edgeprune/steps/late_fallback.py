"""Narrower widths for full ones that fitted with room to spare and failed their latency gates all the same.

Nothing is searched for as long as the plan may do: a p99 that is over the limit while p50 is far under it is rare, and
a search costs trips to the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeprune.errors import BuildError, MeasurementError
from edgeprune.records.result import Candidate
from edgeprune.records.rung import Limits, Plan, PlannedRung, PruningKind, RungStatus
from edgeprune.records.verdict import GateResult, Verdict
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.narrowing import Narrower

_LATENCY_GATES = frozenset({"p50", "p99"})


@dataclass(frozen=True)
class LateFallback:
    """Extends a plan that was climbed to its end without a pass."""

    narrower: Narrower
    costs: AccuracyCosts

    def extended(self, plan: Plan, tried: Sequence[Candidate]) -> Plan:
        """The plan with narrower rungs at the fastest place that failed by its latency alone, or as it was.

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
        told = [replace(r, reason=f"{r.reason}; searched for after {planned.rung.name} failed {why}") for r in found]
        note = f"{planned.rung.name} failed {why}; narrower widths were searched for then"
        return replace(
            plan,
            rungs=(*plan.rungs, *told),
            notes=(*plan.notes, note),
            surveys=(*plan.surveys, *self.narrower.surveys),
            sensitivity=self.narrower.loss.taken,
        )

    def _narrower(self, planned: PlannedRung, gates: Sequence[GateResult], limits: Limits) -> list[PlannedRung]:
        """Widths whose p50 is lower by as much as the worst gate was missed by: the tail is taken to shrink along."""
        place = planned.rung
        dense = self.narrower.shapes.measure(place)
        share = min(gate.limit / (gate.measured or gate.limit) for gate in gates)
        tighter = replace(limits, p50_ms=min(share, 1.0) * dense.p50_ms, p99_ms=None)
        found = self.narrower.plan(dense, self.narrower.fastest_admissible(place), tighter)
        return [r for r in found if r.rung != place]


def _failed_by_latency(plan: Plan, tried: Sequence[Candidate]) -> tuple[PlannedRung, tuple[GateResult, ...]] | None:
    """The fastest unpruned rung that only its latency kept from passing, at a place with no narrower rung yet."""
    by_rung = {r.rung: r for r in plan.rungs}
    narrowed = {r.rung.unpruned for r in plan.rungs if r.rung.pruning is PruningKind.STRUCTURED and r.widths}
    found = []
    for candidate in tried:
        planned = by_rung.get(candidate.rung)
        failed = [g for g in (candidate.judgement.gates if candidate.judgement else ()) if g.verdict is Verdict.FAIL]
        only_late = bool(failed) and {g.gate for g in failed} <= _LATENCY_GATES
        unpruned = candidate.rung.pruning is PruningKind.NONE
        if planned is not None and only_late and unpruned and candidate.rung not in narrowed:
            found.append((planned, tuple(failed)))
    return min(found, key=lambda f: f[0].p50_ms or 0.0, default=None)


def planned_of(before: Plan, after: Plan) -> tuple[PlannedRung, ...]:
    """What is planned in the extended plan and was not before."""
    known = {r.rung for r in before.rungs}
    return tuple(r for r in after.rungs if r.rung not in known and r.status is RungStatus.PLANNED)
