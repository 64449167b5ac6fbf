"""The plan: every rung of the ladder with what the device showed for its shape, and why it is in or out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from edgeprune.errors import BuildError, MeasurementError
from edgeprune.planning.feasibility import ShapeFigures, decide, over_budget, refuse
from edgeprune.planning.half_weights import exchange, left_out, why_not, with_half_weights
from edgeprune.planning.ladder import Ladder, accuracy_cost
from edgeprune.planning.placement import choose_placement
from edgeprune.planning.rung_order import drop_dominated, ordered
from edgeprune.pruning.selection import Room, told_widths
from edgeprune.records.rung import Limits, Plan, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.sparsity import LEAST_SPARSE_GAIN
from edgeprune.schema.profile import Budget
from edgeprune.steps.budget import resolve_limits
from edgeprune.steps.costs import NOT_MEASURED, AccuracyCosts
from edgeprune.steps.finer_places import NOT_LOOKED_AT, FinerPlaces, refused_place
from edgeprune.steps.narrowing import Narrower
from edgeprune.steps.reach import reachable_ladder
from edgeprune.steps.refusal import with_what_limits
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.shapes import ShapeBench, settled
from edgeprune.steps.structured import StructuredPlaces, told_search
from edgeprune.steps.workbench import Workbench
from edgeprune.units import format_ms


def make_plan(bench: Workbench, loss: GroupLosses) -> Plan:
    """Measure the ladder's shapes, search for widths, and decide on each rung.

    Args:
        bench: of the build.
        loss: what a group loses at a width; it is asked only when widths are searched for.

    Raises:
        InputError: `pruning.group_ratios` names a group that is not there.
        BuildError: no dense float32 model can be compiled and run.
        MeasurementError: no runtime of the profile is on the device, or the device cannot be measured on.
    """
    told_widths({g.name: Room(width=g.width) for g in bench.groups.groups}, bench.target.spec.pruning.group_ratios)
    notes: list[str] = []
    ladder = reachable_ladder(bench, notes)
    notes += [f"{g.name} keeps its width: {g.reason}" for g in bench.groups.refused]
    notes += [f"{b.name} stays: {b.reason}" for b in bench.blocks.refused]
    shapes = ShapeBench(bench)
    plan = _Planner(shapes, Narrower(shapes, loss), AccuracyCosts(loss), ladder, bench.profile.budget, notes).plan()
    if bench.target.spec.pruning.group_ratios and not any(r.rung.pruning is PruningKind.STRUCTURED for r in plan.rungs):
        note = "pruning.group_ratios was not tried: the full widths fit with room to spare"
        plan = replace(plan, notes=(*plan.notes, note))
    return with_what_limits(bench, replace(plan, sensitivity=loss.taken))


@dataclass(slots=True)
class _Planner:
    """The decisions so far. Its own so that `plan` reads in the order in which they are taken."""

    shapes: ShapeBench
    narrower: Narrower
    costs: AccuracyCosts
    ladder: Ladder
    budget: Budget
    notes: list[str]
    decided: list[PlannedRung] = field(default_factory=list)
    figures: dict[Rung, ShapeFigures] = field(default_factory=dict)
    stands_for: dict[Rung, Rung] = field(default_factory=dict)
    """The float32 place of each place with weights of 16 bits that is searched at instead of it."""
    broken: set[Rung] = field(default_factory=set)
    """Runtimes and precisions that the trained model does not bear."""

    def plan(self) -> Plan:
        unpruned = [r for r in self.ladder.rungs if r.pruning is PruningKind.NONE]
        dense = self._fastest(self._measure_all(r for r in unpruned if r.precision is Precision.FLOAT32))
        if dense is None:
            raise BuildError(
                "\n".join([r.reason for r in self.decided] or ["no dense float32 model could be measured"])
            )
        limits = resolve_limits(self.budget, dense.p50_ms, dense.p99_ms)
        if self.budget.p50_speedup is not None:
            self.shapes.refer_to(dense)
        self._measure_lower([r for r in unpruned if r.precision is not Precision.FLOAT32], limits)
        for rung, first in list(self.figures.items()):
            self._settle(rung, first, limits)
        self.ladder, self.stands_for = with_half_weights(self.ladder, self.figures, limits)
        self.decided += [decide(f, limits, accuracy_cost(f.rung)) for f in self.figures.values()]
        places = StructuredPlaces(self.narrower, self.ladder, self.figures)
        places.search(limits, fits=bool(self._planned))
        self.decided += places.found
        self.notes += places.notes
        self._masked(limits)
        self.decided += [refuse(r.rung, accuracy_cost(r.rung), r.reason) for r in self.ladder.refused]
        measured = self._price()
        self._search_exact(places, limits)
        self._finer(places, limits, measured=measured)
        self._tell_left_out()
        best_dense = decide(dense, limits, accuracy_cost(dense.rung))
        fits = bool(self._planned)
        return Plan(
            rungs=tuple(ordered(drop_dominated(ordered(self.decided, limits), limits), limits)),
            limits=limits,
            dense=best_dense,
            notes=tuple(self.notes),
            costs_measured=measured,
            surveys=tuple(self.narrower.surveys),
            not_asked=() if fits else tuple(r.place for r in places.not_asked),
        )

    def _measure_lower(self, rungs: Sequence[Rung], limits: Limits) -> None:
        """Lower precisions than float32; weights of 16 bits only where float32's file is too large."""
        needless = {rung: reason for rung in rungs if (reason := why_not(rung, self.figures, limits)) is not None}
        self._measure_all(rung for rung in rungs if rung not in needless)
        self.decided += [refuse(rung, accuracy_cost(rung), reason) for rung, reason in needless.items()]

    def _search_exact(self, places: StructuredPlaces, limits: Limits) -> None:
        """Float32 again, where trained weights turn out not to bear 16 bits."""
        back = {half: exact for half, exact in self.stands_for.items() if half.unplaced in self.broken}
        again = {half: exact for half, exact in back.items() if half in self.ladder.places}
        self.ladder = exchange(self.ladder, back)
        if again:
            # Its own, because places that were searched at are not searched at again.
            exact = StructuredPlaces(
                places.narrower, replace(self.ladder, places=tuple(again.values()), finer_places=()), self.figures
            )
            exact.search(limits, fits=bool(self._planned))
            self.decided += [self._priced(r) for r in exact.found]
            self.notes += exact.notes

    def _tell_left_out(self) -> None:
        searched = {r.rung.unpruned for r in self.decided if r.rung.pruning is PruningKind.STRUCTURED}
        for half, exact in self.stands_for.items():
            if exact not in searched:
                self.decided.append(left_out(self.figures[exact], self.figures[half]))

    def _finer(self, places: StructuredPlaces, limits: Limits, *, measured: bool) -> None:
        """Widths at finer precisions than INT8 where the full ones do not fit: at the fastest place of each.

        To price a place takes most of a minute, and another runtime has seldom so much to give.
        """
        decided = places.decided_places
        measured_places = [self.figures[p] for p in self.ladder.finer_places if p in self.figures]
        over = {f.rung for f in measured_places if f.rung not in decided and over_budget(f, limits) is not None}
        finer, choice = FinerPlaces(self.narrower, self.costs), choose_placement(measured_places, limits)
        for rung, reason in choice.left_out:
            if rung in over:
                self.decided.append(refused_place(rung, f"{reason}, at full widths; {places.known_of(rung)}"))
        dense = sorted(choice.kept, key=lambda f: f.p50_ms)
        fastest = {f.rung.precision: f for f in reversed(dense)}
        for place in (f for f in dense if f.rung in over):
            first, planned = fastest[place.rung.precision], self._planned
            if place is not first:
                reason = f"{first.rung.name} is faster at full widths; {places.known_of(place.rung)}"
                self.decided.append(refused_place(place.rung, reason))
            elif not (measured and planned):
                self.decided.append(refused_place(place.rung, NOT_LOOKED_AT))
            else:
                self._finer_at(finer, place, planned, limits)

    @property
    def _planned(self) -> list[PlannedRung]:
        return [r for r in self.decided if r.status is RungStatus.PLANNED]

    def _finer_at(self, finer: FinerPlaces, dense: ShapeFigures, planned: list[PlannedRung], limits: Limits) -> None:
        try:
            found = finer.plan(dense, planned, limits)
        except (BuildError, MeasurementError) as error:
            if isinstance(error, MeasurementError) and not error.about_artifact:
                raise
            found = [refused_place(dense.rung, error.message)]
            if dense.rung in self.stands_for:
                self._finer_at(finer, self.figures[self.stands_for[dense.rung]], planned, limits)
        self.decided += found
        self.notes += [told_search(r) for r in found if r.trips]

    def _price(self) -> bool:
        """Put measured losses in the place of ranks, where something fits and there is a model to measure with."""
        if not self._planned:
            # Nothing is to be ordered, and the quick no must be quick: measuring may take a training first.
            return False
        if not self.costs.measurable:
            self.notes.append(NOT_MEASURED)
            self.shapes.bench.note(NOT_MEASURED)
            return False
        self.decided = [self._priced(r) for r in self.decided]
        return True

    def _priced(self, rung: PlannedRung) -> PlannedRung:
        try:
            return self.costs.priced(rung)
        except BuildError as error:
            self.broken.add(rung.rung.unpruned.unplaced)
            return replace(refuse(rung.rung, None, error.message), p50_ms=rung.p50_ms, p99_ms=rung.p99_ms)

    def _measure_all(self, rungs: Iterable[Rung]) -> list[ShapeFigures]:
        found = (self._measure(rung) for rung in rungs)
        return [figures for figures in found if figures is not None]

    def _measure(self, rung: Rung) -> ShapeFigures | None:
        return self._tried(rung, lambda: self.shapes.measure(rung))

    def _settle(self, rung: Rung, first: ShapeFigures, limits: Limits) -> ShapeFigures | None:
        return self._tried(rung, lambda: settled(self.shapes, first, limits))

    def _tried(self, rung: Rung, look: Callable[[], ShapeFigures]) -> ShapeFigures | None:
        """A rung that cannot be compiled or run is refused with the reason; the others go on."""
        self.figures.pop(rung, None)
        try:
            self.figures[rung] = look()
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

    def _decide(self, figures: ShapeFigures, limits: Limits) -> PlannedRung:
        return decide(figures, limits, accuracy_cost(figures.rung))

    def _masked(self, limits: Limits) -> None:
        """Zeros must buy time for this very model, whatever they buy for a micro-model of its kind."""
        for rung in self.ladder.rungs:
            if not rung.masked:
                continue
            figures = self._measure(rung)
            dense = self.figures.get(rung.unpruned)
            if figures is None or dense is None:
                continue
            gain = dense.p50_ms / figures.p50_ms
            if gain < LEAST_SPARSE_GAIN:
                because = f": {figures.not_sparse}" if figures.not_sparse else ""
                reason = (
                    f"{rung.pruning_ratio:.0%} zeros gave {gain:.2f}x on the device "
                    f"({format_ms(dense.p50_ms)} dense, {format_ms(figures.p50_ms)} with zeros){because}"
                )
                self.shapes.bench.note(f"{rung.name}: {reason}", "warning")
                refused = replace(self._decide(figures, limits), status=RungStatus.REFUSED, reason=reason)
                self.decided.append(refused)
            elif (figures := self._settle(rung, figures, limits)) is not None:
                self.decided.append(self._decide(figures, limits))
