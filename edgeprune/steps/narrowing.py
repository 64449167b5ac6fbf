"""Structured rungs: widths and blocks searched for on the device, so that the untrained model comes in under budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from edgeprune.errors import BuildError
from edgeprune.planning.allocation import Allocation, Infeasible, allocate
from edgeprune.planning.allocation_problem import AllocationProblem, Configuration
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.feasibility import (
    HEADROOM,
    SLACK,
    ShapeFigures,
    decide,
    is_late,
    is_over,
    over_budget,
    refuse,
    scaled,
    what_is_over,
)
from edgeprune.planning.ladder import structured_cost
from edgeprune.planning.memory import MEMORY
from edgeprune.planning.nearby import predict_near
from edgeprune.planning.shape_problem import LATENCY, WEIGHTS, ShapeProblem
from edgeprune.planning.shape_search import Found, Measured, ShapeSearch
from edgeprune.planning.tail import held_p50_ms, tail_limit
from edgeprune.records.breakdown import Breakdown, PlaceSurvey
from edgeprune.records.memory import MemoryForecast
from edgeprune.records.rung import (
    GroupWidth,
    Limits,
    PlannedRung,
    Prediction,
    PruningKind,
    Rung,
    RungStatus,
    kept_widths,
)
from edgeprune.steps.memory import ShapeMemory, shape_memory
from edgeprune.steps.open_model import OpenModel
from edgeprune.steps.priced_widths import PricedWidths
from edgeprune.steps.selecting import SelectedWidths
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.shapes import ShapeBench, settled
from edgeprune.steps.tables import OperatorTables
from edgeprune.units import format_ms

TIGHTER = (0.9, 0.8)
"""Shares of the budget that the fallbacks are planned for, should the gates reject what was just within it."""

_NEAR = 0.5
"""A short look may see too little of a tail, but hardly half: from this share of the p99 limit on, a trip is long."""
ROUNDED_WITHIN = 2.0
"""Rounded up, the narrowest widths seldom take half the time: what is further over the budget is measured as it is."""

_HOPELESS = 1.1
"""Round widths can be faster than the narrowest: only what is further over is refused without a search."""


@dataclass(frozen=True)
class Narrower:
    """Plans the structured rungs of one model on one device.

    Attributes:
        shapes: measures them.
        loss: what a group loses at a width, and the model without a block.
        surveys: what was learned of each place where `plan` searched, in that order.
        priced: the full widths there, with what all others cost.
    """

    shapes: ShapeBench
    loss: GroupLosses
    surveys: list[PlaceSurvey] = field(default_factory=list)
    priced: list[tuple[ShapeFigures, AllocationProblem]] = field(default_factory=list)

    def fastest_admissible(self, place: Rung, limits: Limits | None = None) -> ShapeFigures:
        """The smallest shape that the target allows, untrained, measured on the device; the faster of two roundings.

        All groups as narrow as may be, and without all blocks that may go.

        Args:
            place: runtime, precision and threads.
            limits: where the first rounding is over `ROUNDED_WITHIN` of these, the second is not measured.

        Raises:
            BuildError: it cannot be compiled.
            MeasurementError: it cannot be run there.
        """
        exact, *rounded = self._model.narrowest()
        found = [self._measure(place, exact)]
        if limits is None or over_budget(found[0], scaled(limits, ROUNDED_WITHIN)) is None:
            found += [self._measure(place, shape) for shape in rounded]
        return min(found, key=lambda f: f.p50_ms)

    def plan(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> list[PlannedRung]:
        """The rung whose widths lose least of those measured to fit, with its fallbacks; or one refusal.

        Args:
            dense: the full widths at a place: runtime, precision and threads.
            narrow: the fastest admissible ones there.
            limits: to come in under.

        Raises:
            MeasurementError: the device is busy or went away.
        """
        place = dense.rung
        narrow = settled(self.shapes, narrow, limits)
        refusal = over_budget(narrow, limits)
        if refusal is not None and over_budget(narrow, scaled(limits, _HOPELESS)) is not None:
            return [self._hopeless(narrow, limits, refusal)]
        if self.shapes.bench.target.spec.pruning.selection != "planner":
            return [self._selected(narrow, limits)]
        try:
            if refusal is not None and (no := self._predicted_no(dense, narrow, limits)) is not None:
                rung = self._hopeless(narrow, limits, refusal)
                return [replace(rung, reason=f"{rung.reason}; no other widths are predicted to fit", breakdown=no)]
            memory = self._memory(limits, dense)
            problem = self.problem(place, narrow, every_width=_takes_too_much(dense, limits))
            problem = replace(problem, memory=memory.book if memory else None)
        except BuildError as error:
            return [refuse(narrow.rung, self._cost(narrow), error.message)]
        found, looked = self._search(place, problem, limits, (dense, narrow), memory)
        self.surveys.append(self._widths.survey(problem, found.cost, dense))
        self.priced.append((dense, problem.allocation(found.cost)))
        chosen = _chosen(found, looked, limits)
        if chosen is None:
            # Knees may be faster than the narrowest widths: a no tells the best there is.
            best = min((narrow, *looked), key=lambda f: (over_budget(f, limits) is not None, f.p50_ms))
            rung = self._nearest(best, limits, found)
            where = self._widths.breakdown(place, problem, found.cost, self._model.shape(best), rung.p50_ms)
            return [replace(rung, trips=found.trips, ended=found.ended, breakdown=where)]
        shape, measured = self._model.shape(chosen), decide(chosen, limits, self._cost(chosen))
        where = self._widths.breakdown(place, problem, found.cost, shape, chosen.p50_ms)
        head = replace(measured, trips=found.trips, ended=found.ended, breakdown=where, memory=_forecast(found, shape))
        return [head, *self._fallbacks(place, problem, found, self._search_limits(limits, dense, narrow), head)]

    def _hopeless(self, narrow: ShapeFigures, limits: Limits, refusal: str) -> PlannedRung:
        """A no without sensitivity, which may take a training first: the quick no must be quick."""
        blocks = f", {len(narrow.removed_blocks)} blocks removed" if narrow.removed_blocks else ""
        most = f"no group may lose more than {self._model.most:.0%}"
        reason = f"even with the narrowest widths ({most}{blocks}): {refusal}"
        return replace(decide(narrow, limits, structured_cost(narrow.rung.precision, None)), reason=reason)

    def _predicted_no(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> Breakdown | None:
        """Where the narrowest widths miss by little: what they take, if the tables say that no others are faster."""
        # With room for the error of a prediction; memory is not predicted yet.
        roomy = replace(scaled(limits, SLACK**2 / HEADROOM), memory_bytes=None)
        wanted = self._search_limits(roomy, dense, narrow)
        wanted[LATENCY] = min(wanted[LATENCY], held_p50_ms(roomy, dense, narrow))
        found = self._widths.predicted_no(dense, narrow, wanted, every_width=_takes_too_much(dense, limits))
        if found is None:
            return None
        self.surveys.append(found[0])
        return found[1]

    def _nearest(self, best: ShapeFigures, limits: Limits, found: Found) -> PlannedRung:
        """Where no knees fit: the fastest shape of all, mostly the narrowest, decided without the slack of a look."""
        best = settled(self.shapes, best, limits)
        over = over_budget(best, limits)
        # On a device that is disturbed a little too slow is not too slow.
        if over is None and not best.disturbed:
            over = over_budget(best, limits, slack=1.0)
        rung = decide(best, limits, self._cost(best))
        if over is None:
            return rung
        reason = f"no widths fit: {found.ended}; the fastest of all: {over}"
        return replace(rung, status=RungStatus.REFUSED, reason=reason)

    def _selected(self, narrow: ShapeFigures, limits: Limits) -> PlannedRung:
        """The rung of widths that the target wants chosen by another rule."""
        place = narrow.rung.unpruned
        rule = SelectedWidths(self._model, self.loss, partial(self._settled, place, scaled(limits, HEADROOM)))
        if self.shapes.bench.target.spec.pruning.selection == "told":
            return self._told(place, rule.told(), limits)
        found = rule.search(scaled(limits, HEADROOM / SLACK))
        if found.figures is None:
            cost = structured_cost(place.precision, None)
            return refuse(replace(place, pruning=PruningKind.STRUCTURED), cost, found.ended)
        rung = decide(found.figures, limits, self._cost(found.figures))
        return replace(rung, ended=found.ended, reason=f"{rung.reason}; {found.ended}")

    def _told(self, place: Rung, shape: Configuration, limits: Limits) -> PlannedRung:
        """The rung of widths that the target tells: one shape, which fits or does not."""
        unknown = structured_cost(place.precision, None)
        if shape.widths == self._model.full:
            nothing = replace(place, pruning=PruningKind.STRUCTURED)
            return refuse(nothing, unknown, "pruning.group_ratios are too small to take a whole channel out")
        figures = self._settled(place, limits, shape)
        fits = over_budget(figures, limits) is None
        rung = decide(figures, limits, self._cost(figures) if fits else unknown)
        return replace(rung, ended="pruning.group_ratios", reason=f"{rung.reason}; widths of pruning.group_ratios")

    def likely_loss(self, dense: ShapeFigures, limits: Limits) -> float | None:
        """What widths that meet the limits would lose at a place whose operators were not priced: no trip, no compiler.

        By the prices of a place where they were, each operator as much slower as the full widths are. None where none
        were, and infinite where none fit.
        """
        if not self.priced or (limits.p50_ms is None and limits.p99_ms is None):
            return None
        known, problem = self.priced[0]
        wanted_ms = held_p50_ms(limits, dense, known)
        found = allocate(problem, {LATENCY: wanted_ms * known.p50_ms / dense.p50_ms})
        return _least_proven(found, math.inf)

    def least_loss(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> float | None:
        """What the widths that lose least within the limits lose, by the tables alone and with room for their error.

        Where the solver's time ends first it is what they lose at the least, for all that is proven.

        Arguments and errors are those of `plan` and `problem`; None where no widths are predicted to fit.
        """
        problem = self.problem(dense.rung, narrow, every_width=_takes_too_much(dense, limits))
        known = [Observation(problem.terms(self._model.shape(f)), f.p50_ms) for f in (dense, narrow)]
        # Memory would take a trip to know of; the search itself keeps to it.
        roomy = replace(scaled(limits, _HOPELESS), memory_bytes=None)
        search_limits = self._search_limits(roomy, dense, narrow)
        search_limits[LATENCY] = min(search_limits[LATENCY], held_p50_ms(roomy, dense, narrow))
        found = allocate(problem.allocation(CostModel().updated(*known)), search_limits)
        return _least_proven(found, None)

    def problem(self, place: Rung, narrow: ShapeFigures, *, every_width: bool = False) -> ShapeProblem:
        """The widths at a place, priced: see `PricedWidths.problem`."""
        return self._widths.problem(place, narrow, every_width=every_width)

    def _search(
        self,
        place: Rung,
        problem: ShapeProblem,
        limits: Limits,
        known: tuple[ShapeFigures, ShapeFigures],
        memory: ShapeMemory | None,
    ) -> tuple[Found, list[ShapeFigures]]:
        """How it ended, and what was measured on each trip."""
        looked: list[ShapeFigures] = []

        def measure(shape: Configuration) -> Measured:
            figures = self._settled(place, scaled(limits, HEADROOM), shape, near=_NEAR)
            looked.append(figures)
            unknown = figures.disturbed and limits.p99_ms is not None and figures.p99_ms > HEADROOM * limits.p99_ms
            return Measured(
                latency_ms=figures.p50_ms,
                p99_ms=None if unknown else figures.p99_ms,
                over=what_is_over(figures, limits),
                late=is_late(figures, limits),
                memory=memory.take(figures) if memory else None,
            )

        cost = CostModel().updated(*(Observation(problem.terms(self._model.shape(f)), f.p50_ms) for f in known))
        search = ShapeSearch(problem, self._search_limits(limits, *known), measure, cost, tail_limit(limits, *known))
        found = search.run()
        for number, trip in enumerate(found.trips, 1):
            self.shapes.bench.note(f"{place.name}: trip {number}: {trip.summary}")
        for doubt in found.doubts:
            self.shapes.bench.note(f"{place.name}: {doubt}", "warning")
        return found, looked

    def _memory(self, limits: Limits, dense: ShapeFigures) -> ShapeMemory | None:
        """What is known of memory before the search; None where it is not limited."""
        if limits.memory_bytes is None:
            return None
        # With all blocks: tensors are followed from one compiled graph to another of the same form.
        narrow = self._measure(dense.rung, Configuration(widths={g: self._model.minimum(g) for g in self._model.full}))
        memory = shape_memory(
            self._model.schedule, lambda f: self._model.weights(self._model.shape(f)), limits, dense, narrow
        )
        if memory.doubt:
            self.shapes.bench.note(f"{dense.rung.name}: {memory.doubt}", "warning")
        return memory

    def _search_limits(self, limits: Limits, dense: ShapeFigures, narrow: ShapeFigures) -> dict[str, float]:
        """p50 with headroom; memory; and weights where the size is limited, by a line through two shapes.

        What p50 is held to because p99 is limited is not in it: see `planning.tail`.
        """
        latencies = [x for x in (limits.p50_ms, limits.p99_ms) if x is not None]
        # Without any limit the search is for size or memory alone, and the full widths are fast enough.
        found = {LATENCY: HEADROOM * min(latencies) if latencies else 2.0 * max(dense.p50_ms, narrow.p50_ms)}
        ends = [self._model.weights(self._model.shape(figures)) for figures in (narrow, dense)]
        limit, least, most = limits.artifact_bytes, narrow.artifact_bytes, dense.artifact_bytes
        if limit is not None and least < most and limit < most:
            found[WEIGHTS] = ends[0] + (limit - least) / (most - least) * (ends[1] - ends[0])
        if limits.memory_bytes is not None:
            found[MEMORY] = limits.memory_bytes
        return found

    def _fallbacks(
        self, place: Rung, problem: ShapeProblem, search: Found, limits: Mapping[str, float], head: PlannedRung
    ) -> list[PlannedRung]:
        """Tighter widths by the corrected cost model; measured when they are tried."""
        planned, names = list[PlannedRung](), {head.rung.name}
        when = f"if {head.rung.name} should fail its gates"
        for share in TIGHTER:
            found = allocate(problem.allocation(search.cost), {**limits, LATENCY: share * search.latency_ms})
            if not isinstance(found, Allocation):
                break
            widths, blocks = self._model.cut(found.configuration)
            rung = structured_rung(place, widths, blocks)
            doubt = f"; {found.doubt}" if found.doubt else ""
            if rung.name not in names:
                names.add(rung.name)
                p50_ms = found.used[LATENCY]
                p99 = f", p99 about {format_ms(search.tail.p99_ms(p50_ms))}" if search.tail else ""
                planned.append(
                    PlannedRung(
                        rung=rung,
                        status=RungStatus.PLANNED,
                        reason=f"{when}; predicted p50 {format_ms(p50_ms)}{p99}{doubt}",
                        accuracy_cost=structured_cost(place.precision, found.loss),
                        widths=widths,
                        predicted=self._predicted(found, head, search),
                        removed_blocks=blocks,
                        breakdown=self._widths.breakdown(place, problem, search.cost, found.configuration),
                    )
                )
        return planned

    def _predicted(self, found: Allocation, head: PlannedRung, search: Found) -> Prediction:
        """Of widths near the head's, by that and by the full ones; p99 by the tails that the search saw."""
        dense, _ = self.priced[-1]
        chosen = Configuration(widths=kept_widths(head.widths), removed_blocks=frozenset(head.removed_blocks))
        weights = (self._model.weights(self._model.shape(dense)), self._model.weights(chosen))
        near = predict_near(found.used, (dense, head), weights, self.shapes.bench.profile.budget.memory_of)
        return replace(near, p99_ms=search.tail.p99_ms(near.p50_ms)) if search.tail else near

    def _measure(self, place: Rung, shape: Configuration) -> ShapeFigures:
        widths, blocks = self._model.cut(shape)
        return self.shapes.measure(structured_rung(place, widths, blocks), widths, blocks)

    def _settled(self, place: Rung, limits: Limits, shape: Configuration, *, near: float = 1.0) -> ShapeFigures:
        return settled(self.shapes, self._measure(place, shape), limits, near=near)

    def _cost(self, figures: ShapeFigures) -> float:
        losses = [self.loss(w.group, w.after) for w in figures.widths if w.after]
        return structured_cost(
            figures.rung.precision, sum([*losses, *(self.loss.block(b) for b in figures.removed_blocks)])
        )

    @cached_property
    def _model(self) -> OpenModel:
        return OpenModel(self.shapes.bench)

    @cached_property
    def _widths(self) -> PricedWidths:
        return PricedWidths(self._model, self.loss, self._tables, self.shapes.bench.blocks.removable)

    @cached_property
    def _tables(self) -> OperatorTables:
        return OperatorTables(self.shapes.bench.device, self.shapes.bench.note)


def _takes_too_much(dense: ShapeFigures, limits: Limits) -> bool:
    """Whether something else than latency is to be saved: full widths have too much memory, or are too large."""
    return over_budget(dense, replace(limits, p50_ms=None, p99_ms=None)) is not None


def _least_proven(found: Allocation | Infeasible, if_none: float | None) -> float | None:
    """What any widths that fit lose at the least; `if_none` where it is proven that none fit."""
    if isinstance(found, Allocation):
        return found.loss if found.proven_optimal else max(0.0, found.bound)
    return if_none if found.proven else 0.0


def _chosen(found: Found, looked: Sequence[ShapeFigures], limits: Limits) -> ShapeFigures | None:
    """What is planned of the shapes that were measured: the best that fits, else what is within the budget itself."""
    tried = sorted(zip(found.trips, looked, strict=True), key=lambda t: t[0].loss)
    fits = [figures for trip, figures in tried if trip.fits]
    return next(iter([*fits, *(figures for _, figures in tried if not is_over(figures, limits))]), None)


def _forecast(found: Found, shape: Configuration) -> MemoryForecast | None:
    """Of the shape that was chosen."""
    widths, blocks = tuple(sorted(shape.widths.items())), tuple(sorted(shape.removed_blocks))
    return next((t.memory for t in found.trips if (t.widths, t.removed_blocks) == (widths, blocks)), None)


def structured_rung(place: Rung, widths: tuple[GroupWidth, ...], removed_blocks: tuple[str, ...] = ()) -> Rung:
    """The rung of a shape; its ratio is the share of all groups' channels that is out, to a tenth of a percent."""
    # A model may have blocks that can go, and no channels that can.
    share = 1 - sum(w.after for w in widths) / sum(w.before for w in widths) if widths else 0.0
    kind, blocks = PruningKind.STRUCTURED, len(removed_blocks)
    return replace(place, pruning=kind, pruning_ratio=round(share, 3), n_m=None, blocks_out=blocks)
