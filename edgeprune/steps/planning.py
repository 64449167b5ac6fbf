"""The plan: every rung of the ladder with what the device showed for its shape, and why it is in or out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeprune.errors import BuildError, MeasurementError, NotInstalledError, PlanError
from edgeprune.planning.feasibility import ShapeFigures, decide, over_budget, refuse
from edgeprune.planning.ladder import Ladder, RefusedRung, accuracy_cost, make_ladder
from edgeprune.records.rung import GroupWidth, Limits, Plan, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.sparsity import LEAST_SPARSE_GAIN
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.profile import Budget
from edgeprune.steps.budget import resolve_limits
from edgeprune.steps.compiling import compiler_versions
from edgeprune.steps.shapes import ShapeBench
from edgeprune.steps.sparsity import choose_patterns
from edgeprune.steps.workbench import Workbench
from edgeprune.units import format_mb, format_ms

NEARLY_AS_FAST = 1.25
"""Structured rungs are measured for the fastest runtime, and for those within this factor of it."""


def make_plan(bench: Workbench) -> Plan:
    """Measure the ladder's shapes and decide on each.

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
    ladder = Ladder(rungs=tuple(r for r in ladder.rungs if r.threads <= cores), refused=(*ladder.refused, *too_wide))
    notes += [f"{g.name} keeps its width: {g.reason}" for g in bench.groups.refused]
    return _Planner(ShapeBench(bench), ladder, bench.profile.budget, notes).plan()


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
    ladder: Ladder
    budget: Budget
    notes: list[str]
    decided: list[PlannedRung] = field(default_factory=list)
    figures: dict[Rung, ShapeFigures] = field(default_factory=dict)

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
        """The strongest ratio first: when even that is over, the others need no measurement."""
        by_place: dict[Rung, list[Rung]] = {}
        for rung in self.ladder.rungs:
            if rung.pruning is PruningKind.STRUCTURED:
                by_place.setdefault(_unpruned(rung), []).append(rung)
        places = [self.figures[p] for p in by_place if p in self.figures]
        fastest = self._fastest(places)
        for place, rungs in by_place.items():
            if place not in self.figures or fastest is None:
                self._refuse_all(rungs, f"{place.name} could not be measured")
            elif (factor := self.figures[place].p50_ms / fastest.p50_ms) > NEARLY_AS_FAST:
                self._refuse_all(rungs, f"{place.name} is {factor:.2f}x slower than {fastest.rung.name}")
            else:
                self._structured_at(rungs, limits)

    def _structured_at(self, rungs: list[Rung], limits: Limits) -> None:
        *weaker, strongest = rungs
        figures = self._measure(strongest)
        if figures is None:
            self._refuse_all(weaker, f"{strongest.name} could not be measured")
            return
        refusal = over_budget(figures, limits)
        if refusal is not None:
            self._refuse_all(weaker, f"even {strongest.name} is over the budget: {refusal}")
            self.decided.append(decide(figures, limits, accuracy_cost(strongest)))
            return
        fitting: list[ShapeFigures] = []
        for rung in weaker:
            if fitting:
                # It fits as well, and is measured when it is tried: only if the gates reject the one before it.
                self.decided.append(_fallback(rung, self.shapes.widths(rung), fitting[0]))
                continue
            shape = self._measure(rung)
            if shape is None:
                continue
            self.decided.append(self._decide(shape, limits))
            if self.decided[-1].status is RungStatus.PLANNED:
                fitting.append(shape)
        as_fast = [f for f in fitting if f.p50_ms <= figures.p50_ms]
        self.decided.append(_dominated(figures, as_fast[0]) if as_fast else self._decide(figures, limits))

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

    def _refuse_all(self, rungs: Iterable[Rung], reason: str) -> None:
        self.decided += [refuse(r, accuracy_cost(r), reason) for r in rungs]


def _unpruned(rung: Rung) -> Rung:
    return Rung(runtime=rung.runtime, precision=rung.precision, threads=rung.threads)


def _fallback(rung: Rung, widths: tuple[GroupWidth, ...], weaker: ShapeFigures) -> PlannedRung:
    """A rung that takes out more than one that fits; one of equal widths would be the same model again."""
    same = widths == weaker.widths
    return PlannedRung(
        rung=rung,
        status=RungStatus.REFUSED if same else RungStatus.PLANNED,
        reason=f"same widths as {weaker.rung.name}" if same else f"if {weaker.rung.name} should fail its gates",
        accuracy_cost=accuracy_cost(rung),
        widths=widths,
    )


def _dominated(shape: ShapeFigures, wider: ShapeFigures) -> PlannedRung:
    same = shape.widths == wider.widths
    why = f"same widths as {wider.rung.name}" if same else (
        f"{wider.rung.name} keeps more and is as fast ({format_ms(wider.p50_ms)} against {format_ms(shape.p50_ms)})"
    )  # fmt: skip
    refused = decide(shape, Limits(), accuracy_cost(shape.rung))
    return replace(refused, status=RungStatus.REFUSED, reason=why)


def no_plan_error(plan: Plan, report: Path | None = None) -> PlanError:
    """The quick and clear no: the best that was measured, by what, what stands in the way, and where a report lies."""
    best, limits = plan.best, plan.limits
    wanted = [f"{n} {format_ms(v)}" for n, v in (("p50", limits.p50_ms), ("p99", limits.p99_ms)) if v]
    wanted += [
        f"{n} {format_mb(v)}" for n, v in (("memory", limits.memory_bytes), ("size", limits.artifact_bytes)) if v
    ]
    where = f"; every rung and why: {report}" if report else ""
    return PlanError(
        f"no plan fits the budget ({', '.join(wanted)}); the best possible is p50 {format_ms(best.p50_ms or 0.0)} "
        f"by {best.rung.name}: {best.short_reason}{where}",
        best_p50_ms=best.p50_ms,
        best_p99_ms=best.p99_ms,
        best_rung=best.rung.name,
    )
