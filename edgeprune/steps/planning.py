"""The plan: every rung of the ladder with what the device showed for its shape, and why it is in or out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeprune.errors import BuildError, MeasurementError, NotInstalledError, PlanError
from edgeprune.planning.feasibility import ShapeFigures, decide, over_budget, refuse, scaled
from edgeprune.planning.ladder import Ladder, RefusedRung, accuracy_cost, make_ladder, structured_cost
from edgeprune.records.rung import Limits, Plan, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.sparsity import LEAST_SPARSE_GAIN
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.profile import Budget
from edgeprune.steps.budget import resolve_limits
from edgeprune.steps.compiling import compiler_versions
from edgeprune.steps.narrowing import HEADROOM, TIGHTER, Narrower
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.shapes import ShapeBench
from edgeprune.steps.sparsity import choose_patterns, explain_refused
from edgeprune.steps.workbench import Workbench
from edgeprune.units import format_mb, format_ms

NEARLY_AS_FAST = 1.25
"""Widths are searched for at the fastest place, and at those within this factor of it."""


def make_plan(bench: Workbench, loss: GroupLosses) -> Plan:
    """Measure the ladder's shapes, search for widths, and decide on each rung.

    Args:
        bench: of the build.
        loss: what a group loses at a width; it is asked only when widths are searched for.

    Raises:
        BuildError: no dense float32 model can be compiled and run.
        MeasurementError: no runtime of the profile is on the device, or the device cannot be measured on.
    """
    notes: list[str] = []
    precisions = _usable_precisions(bench, notes)
    masks = choose_patterns(bench, precisions)
    notes += [choice.note for choice in masks if choice.note]
    can_cut = bool(bench.groups.groups)
    ladder = make_ladder(bench.profile, bench.target.spec.pruning, precisions, can_cut=can_cut, masks=masks)
    cores = bench.device.facts.cores
    too_wide = [
        RefusedRung(rung=r, reason=f"{r.threads} threads, and the device lets us use {cores} core(s)")
        for r in ladder.rungs
        if r.threads > cores
    ]
    ladder = Ladder(
        rungs=tuple(r for r in ladder.rungs if r.threads <= cores),
        places=tuple(p for p in ladder.places if p.threads <= cores),
        refused=(*explain_refused(bench, ladder.refused), *too_wide),
    )
    notes += [f"{g.name} keeps its width: {g.reason}" for g in bench.groups.refused]
    shapes = ShapeBench(bench)
    return _Planner(shapes, Narrower(shapes, loss), ladder, bench.profile.budget, notes).plan()


def _usable_precisions(bench: Workbench, notes: list[str]) -> dict[str, tuple[Precision, ...]]:
    """By runtime, what it computes in there; runtimes missing on the device or here are left out, with a note."""
    usable = {}
    for name in bench.profile.runtimes:
        try:
            bench.device.require(name)
        except MeasurementError as error:
            notes.append(f"no rung with {name}: {error.message}")
            continue
        found = []
        for precision in RUNTIMES.get(name).precisions(bench.device.facts):
            try:
                compiler_versions(Rung(runtime=name, precision=precision))
            except NotInstalledError as error:
                notes.append(f"no {precision} rung with {name}: {error.message}")
            else:
                found.append(precision)
        if Precision.FLOAT32 in found:
            usable[name] = tuple(found)
    for note in notes:
        bench.note(note, "warning")
    if not usable:
        raise MeasurementError("\n".join(notes))
    return usable


@dataclass(slots=True)
class _Planner:
    """The decisions so far. Its own so that `plan` reads in the order in which they are taken."""

    shapes: ShapeBench
    narrower: Narrower
    ladder: Ladder
    budget: Budget
    notes: list[str]
    decided: list[PlannedRung] = field(default_factory=list)
    figures: dict[Rung, ShapeFigures] = field(default_factory=dict)
    narrowed: list[ShapeFigures] = field(default_factory=list)
    """The narrowest shape at each place where widths were found, those of faster full widths first."""

    def plan(self) -> Plan:
        unpruned = [r for r in self.ladder.rungs if r.pruning is PruningKind.NONE]
        dense = self._fastest(self._measure_all(r for r in unpruned if r.precision is Precision.FLOAT32))
        if dense is None:
            raise BuildError(
                "\n".join([r.reason for r in self.decided] or ["no dense float32 model could be measured"])
            )
        limits = resolve_limits(self.budget, dense.p50_ms, dense.p99_ms)
        self._measure_all(r for r in unpruned if r.precision is not Precision.FLOAT32)
        self.decided += [decide(f, limits, accuracy_cost(f.rung)) for f in self.figures.values()]
        self._structured(limits)
        self._masked(limits)
        self.decided += [refuse(r.rung, accuracy_cost(r.rung), r.reason) for r in self.ladder.refused]
        order = sorted(self.decided, key=lambda r: (r.status is RungStatus.REFUSED, r.accuracy_cost, r.p50_ms or 0.0))
        best_dense = decide(dense, limits, accuracy_cost(dense.rung))
        return Plan(rungs=tuple(order), limits=limits, dense=best_dense, notes=tuple(self.notes))

    def _measure_all(self, rungs: Iterable[Rung]) -> list[ShapeFigures]:
        found = (self._measure(rung) for rung in rungs)
        return [figures for figures in found if figures is not None]

    def _measure(self, rung: Rung) -> ShapeFigures | None:
        """A rung that cannot be compiled or run is refused with the reason; the others go on."""
        try:
            self.figures[rung] = self.shapes.measure(rung)
        except (BuildError, MeasurementError) as error:
            if isinstance(error, MeasurementError) and not error.about_artifact:
                raise
            refused = refuse(rung, accuracy_cost(rung), error.message)
            self.decided.append(refused)
            self.shapes.bench.note(f"{rung.name} is refused: {refused.short_reason}", "warning")
            return None
        return self.figures[rung]

    @staticmethod
    def _fastest(figures: Iterable[ShapeFigures]) -> ShapeFigures | None:
        return min(figures, key=lambda f: f.p50_ms, default=None)

    def _structured(self, limits: Limits) -> None:
        """Search for widths where the full ones are over the budget, or nearly; the fastest place first."""
        places = sorted((self.figures[p] for p in self.ladder.places if p in self.figures), key=lambda f: f.p50_ms)
        for dense in places:
            factor = dense.p50_ms / places[0].p50_ms
            if factor > NEARLY_AS_FAST:
                self._refuse_narrower(dense.rung, f"{factor:.2f}x slower than {places[0].rung.name} at full widths")
            elif over_budget(dense, limits) is not None:
                self._narrow(dense, limits)
            elif over_budget(dense, scaled(limits, TIGHTER[0])) is not None:
                # It fits by so little that its gates may reject it.
                self._narrow(dense, scaled(limits, TIGHTER[0]))

    def _narrow(self, dense: ShapeFigures, limits: Limits) -> None:
        place = dense.rung
        try:
            narrow = self.narrower.fastest_admissible(place)
            better = next((b for b in self.narrowed if b.p50_ms <= narrow.p50_ms), None)
            if better is not None:
                reason = f"{better.rung.name} is as fast at full widths and at the narrowest, so it can keep more"
                self._refuse_narrower(place, reason)
                return
            found = self.narrower.plan(dense, narrow, limits)
        except (BuildError, MeasurementError) as error:
            if isinstance(error, MeasurementError) and not error.about_artifact:
                raise
            self._refuse_narrower(place, error.message)
            return
        self.decided += found
        self.notes += [_told(r) for r in found if r.trips]
        if any(r.status is RungStatus.PLANNED for r in found):
            self.narrowed.append(narrow)

    def _refuse_narrower(self, place: Rung, reason: str) -> None:
        rung = replace(place, pruning=PruningKind.STRUCTURED)
        self.decided.append(refuse(rung, structured_cost(place.precision, None), reason))

    def _decide(self, figures: ShapeFigures, limits: Limits) -> PlannedRung:
        return decide(figures, limits, accuracy_cost(figures.rung))

    def _masked(self, limits: Limits) -> None:
        """Zeros must buy time for this very model, whatever they buy for a micro-model of its kind."""
        for rung in self.ladder.rungs:
            if not rung.masked:
                continue
            figures = self._measure(rung)
            dense = self.figures.get(_unpruned(rung))
            if figures is None or dense is None:
                continue
            gain = dense.p50_ms / figures.p50_ms
            decided = self._decide(figures, limits)
            if gain < LEAST_SPARSE_GAIN:
                because = f": {figures.not_sparse}" if figures.not_sparse else ""
                reason = (
                    f"{rung.pruning_ratio:.0%} zeros gave {gain:.2f}x on the device "
                    f"({format_ms(dense.p50_ms)} dense, {format_ms(figures.p50_ms)} with zeros){because}"
                )
                self.shapes.bench.note(f"{rung.name}: {reason}", "warning")
                decided = replace(decided, status=RungStatus.REFUSED, reason=reason)
            self.decided.append(decided)


def _told(planned: PlannedRung) -> str:
    """How the widths of a rung were found, or why none were."""
    trips = "; ".join(trip.summary for trip in planned.trips)
    cut = ", ".join(f"{w.group} {w.before} to {w.after}" for w in planned.widths if w.after < w.before)
    widths = f"; {cut}" if cut and planned.status is RungStatus.PLANNED else ""
    return f"{planned.rung.name}: whole shapes on the device: {trips}; it ended as {planned.ended}{widths}"


def _unpruned(rung: Rung) -> Rung:
    return Rung(runtime=rung.runtime, precision=rung.precision, threads=rung.threads)


def no_plan_error(plan: Plan, report: Path | None = None) -> PlanError:
    """The quick and clear no: the best that was measured, by what, what stands in the way, and where a report lies."""
    best, limits = plan.best, plan.limits
    wanted = [f"{n} {format_ms(v)}" for n, v in (("p50", limits.p50_ms), ("p99", limits.p99_ms)) if v]
    wanted += [
        f"{n} {format_mb(v)}" for n, v in (("memory", limits.memory_bytes), ("size", limits.artifact_bytes)) if v
    ]
    where = f"; every rung and why: {report}" if report else ""
    feasible_ms = _least_feasible_p50_ms(plan)
    could = ""
    if feasible_ms is not None and plan.dense.p50_ms is not None:
        could = f"; a p50 of {format_ms(feasible_ms)} ({plan.dense.p50_ms / feasible_ms:.2f}x dense) could be met"
    return PlanError(
        f"no plan fits the budget ({', '.join(wanted)}); the best possible is p50 {format_ms(best.p50_ms or 0.0)} "
        f"by {best.rung.name}: {best.short_reason}{could}{where}",
        best_p50_ms=best.p50_ms,
        best_p99_ms=best.p99_ms,
        best_rung=best.rung.name,
        least_feasible_p50_ms=feasible_ms,
    )


def _least_feasible_p50_ms(plan: Plan) -> float | None:
    """The smallest p50 budget that the fastest shape would be planned for; None where p50 does not stand in the way."""
    best, limit_ms = plan.best.p50_ms, plan.limits.p50_ms
    if best is None or limit_ms is None or best <= limit_ms:
        return None
    return best / HEADROOM
