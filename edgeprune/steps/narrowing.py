"""Structured rungs: widths searched for on the device, so that the whole untrained model comes in just under budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import ceil

from edgeprune.errors import BuildError
from edgeprune.graph.operators import model_operators
from edgeprune.planning.allocation import Allocation, allocate
from edgeprune.planning.allocation_problem import Choice
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.feasibility import ShapeFigures, decide, over_budget, refuse, scaled
from edgeprune.planning.ladder import structured_cost
from edgeprune.planning.shape_problem import LATENCY, WEIGHTS, ShapeProblem, weight_count
from edgeprune.planning.shape_search import Found, Measured, ShapeSearch
from edgeprune.profiling.widths import group_shapes, group_staircase
from edgeprune.records.operators import OperatorUse
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, PruningKind, Rung, RungStatus
from edgeprune.steps.shapes import ShapeBench
from edgeprune.steps.tables import OperatorTables
from edgeprune.units import format_ms

HEADROOM = 0.98
"""A shape is measured by a short block; what is only just within the budget there fails half of the proper ones."""

TIGHTER = (0.9, 0.8)
"""Shares of the budget that the fallbacks are planned for, should the gates reject what was just within it."""

_HOPELESS = 1.1
"""Round widths can be faster than the narrowest: only what is further over is refused without a search."""

_VECTOR = 8

_FINE = 64
"""Groups of more channels are measured at every second multiple: a step of 8 is then a small part of them."""


@dataclass(frozen=True)
class Narrower:
    """Plans the structured rungs of one model on one device.

    Attributes:
        shapes: measures them.
        loss: what a group (by name) loses at a width; see `records.sensitivity.GroupCurve.loss_at`.
    """

    shapes: ShapeBench
    loss: Callable[[str, int], float]

    def fastest_admissible(self, place: Rung) -> ShapeFigures:
        """The narrowest shape that the target allows, untrained, measured on the device; the faster of two roundings.

        Raises:
            BuildError: it cannot be compiled.
            MeasurementError: it cannot be run there.
        """
        exact = {g: self._minimum(g) for g in self._full}
        rounded = {g: min(self._full[g], -(-w // _VECTOR) * _VECTOR) for g, w in exact.items()}
        shapes = [exact] if exact == rounded else [exact, rounded]
        return min((self._measure(place, widths) for widths in shapes), key=lambda f: f.p50_ms)

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
        refusal = over_budget(narrow, limits)
        if refusal is not None and over_budget(narrow, scaled(limits, _HOPELESS)) is not None:
            reason = f"even with the narrowest widths (no group may lose more than {self._most:.0%}): {refusal}"
            # Without sensitivity, which may take a training first: the quick no must be quick.
            return [replace(decide(narrow, limits, structured_cost(place.precision, None)), reason=reason)]
        try:
            problem = self.problem(place, narrow)
        except BuildError as error:
            return [refuse(narrow.rung, self._cost(place, narrow.widths), error.message)]
        search_limits = self._search_limits(limits, dense, narrow)
        found = self._search(place, problem, limits, search_limits, (dense, narrow))
        if found.best is None:
            cost = self._cost(place, narrow.widths)
            # Within the budget, but by less than the headroom: worth a try where nothing else is.
            rung = decide(narrow, limits, cost)
            if refusal is not None:
                rung = replace(rung, status=RungStatus.REFUSED, reason=f"no widths fit: {found.ended}")
            return [replace(rung, trips=found.trips, ended=found.ended)]
        chosen = decide(self._measure(place, found.best), limits, self._cost(place, self._widths(found.best)))
        head = replace(chosen, trips=found.trips, ended=found.ended)
        return [head, *self._fallbacks(place, problem, found.cost, search_limits, head)]

    def least_loss(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits) -> float | None:
        """What the widths that lose least within the limits lose, by the tables alone and with room for their error.

        Arguments and errors are those of `plan` and `problem`; None where no widths are predicted to fit.
        """
        problem = self.problem(dense.rung, narrow)
        known = [Observation(problem.terms({w.group: w.after for w in f.widths}), f.p50_ms) for f in (dense, narrow)]
        search_limits = self._search_limits(scaled(limits, _HOPELESS), dense, narrow)
        found = allocate(problem.allocation(CostModel().updated(*known)), search_limits)
        return found.loss if isinstance(found, Allocation) else None

    def problem(self, place: Rung, narrow: ShapeFigures) -> ShapeProblem:
        """The model's widths as a problem: knees for choices, from tables that are measured now where they are missing.

        Args:
            place: runtime, precision and threads.
            narrow: the fastest admissible shape there; its widths are priced too.

        Raises:
            BuildError: the runtime's compiler or the runtime refuses an operator.
            MeasurementError: the device is busy or went away.
        """
        tables = self._tables
        measured = {g: self._widths_worth_a_look(g) for g in self._full}
        ends = {w.group: w.after for w in narrow.widths}
        tables.ensure(
            chain(
                (s for g, widths in measured.items() for s in group_shapes(self._uses, g, {*widths, ends[g]})),
                (u.shape for u in self._uses if not u.unsupported),
            ),
            place,
        )
        choices = {}
        for group, widths in measured.items():
            staircase = group_staircase(
                self._uses, group, widths, lambda shape: tables.latency_ms(shape, place), context=place.name
            )
            # The full width is always there: not to cut costs nothing in accuracy.
            kept = dict.fromkeys((*staircase.admissible, self._full[group]))
            choices[group] = tuple(Choice(width=w, loss=self.loss(group, w)) for w in kept)
        return ShapeProblem(
            uses=self._uses,
            full=self._full,
            choices=choices,
            entry_ms=lambda shape: tables.latency_ms(shape, place),
        )

    def _search(
        self,
        place: Rung,
        problem: ShapeProblem,
        limits: Limits,
        search_limits: Mapping[str, float],
        known: tuple[ShapeFigures, ShapeFigures],
    ) -> Found:
        def measure(widths: Mapping[str, int]) -> Measured:
            figures = self._measure(place, widths)
            fits = figures.p50_ms <= search_limits[LATENCY] and over_budget(figures, limits) is None
            return Measured(latency_ms=figures.p50_ms, fits=fits)

        observed = [Observation(problem.terms({w.group: w.after for w in f.widths}), f.p50_ms) for f in known]
        found = ShapeSearch(problem, search_limits, measure, CostModel().updated(*observed)).run()
        for number, trip in enumerate(found.trips, 1):
            self.shapes.bench.note(f"{place.name}: trip {number}: {trip.summary}")
        return found

    def _search_limits(self, limits: Limits, dense: ShapeFigures, narrow: ShapeFigures) -> dict[str, float]:
        """Latency with headroom; and weights where size or memory is limited, by a line through two measured shapes."""
        latencies = [x for x in (limits.p50_ms, limits.p99_ms) if x is not None]
        # Without any limit the search is for size or memory alone, and the full widths are fast enough.
        found = {LATENCY: HEADROOM * min(latencies) if latencies else 2.0 * max(dense.p50_ms, narrow.p50_ms)}
        ends = [self._weights({w.group: w.after for w in figures.widths}) for figures in (narrow, dense)]
        byte_limits = (
            (limits.artifact_bytes, (narrow.artifact_bytes, dense.artifact_bytes)),
            (limits.memory_bytes, tuple(f.memory_bytes(limits.memory_of) for f in (narrow, dense))),
        )
        for limit, (least, most) in byte_limits:
            if limit is not None and least < most and limit < most:
                share = (limit - least) / (most - least)
                weights = ends[0] + share * (ends[1] - ends[0])
                found[WEIGHTS] = min(found.get(WEIGHTS, weights), weights)
        return found

    def _fallbacks(
        self, place: Rung, problem: ShapeProblem, cost: CostModel, limits: Mapping[str, float], head: PlannedRung
    ) -> list[PlannedRung]:
        """Tighter widths by the corrected cost model; measured when they are tried."""
        planned, names = list[PlannedRung](), {head.rung.name}
        when = f"if {head.rung.name} should fail its gates"
        for share in TIGHTER:
            found = allocate(problem.allocation(cost), {**limits, LATENCY: share * limits[LATENCY]})
            if not isinstance(found, Allocation):
                break
            widths = self._widths(found.widths)
            rung = structured_rung(place, widths)
            if rung.name not in names:
                names.add(rung.name)
                planned.append(
                    PlannedRung(
                        rung=rung,
                        status=RungStatus.PLANNED,
                        reason=f"{when}; predicted p50 {format_ms(found.used[LATENCY])}",
                        accuracy_cost=self._cost(place, widths),
                        widths=widths,
                    )
                )
        return planned

    def _measure(self, place: Rung, widths: Mapping[str, int]) -> ShapeFigures:
        found = self._widths(widths)
        return self.shapes.measure(structured_rung(place, found), found)

    def _widths(self, widths: Mapping[str, int]) -> tuple[GroupWidth, ...]:
        return tuple(GroupWidth(group=g, before=full, after=widths[g]) for g, full in self._full.items())

    def _cost(self, place: Rung, widths: tuple[GroupWidth, ...]) -> float:
        return structured_cost(place.precision, sum(self.loss(w.group, w.after) for w in widths))

    def _weights(self, widths: Mapping[str, int]) -> int:
        return sum(weight_count(use.at(widths)) for use in self._uses if not use.unsupported)

    def _widths_worth_a_look(self, group: str) -> tuple[int, ...]:
        """Multiples of what vector kernels work on at a time, from the narrowest allowed to the full width."""
        full = self._full[group]
        step = _VECTOR if full <= _FINE else 2 * _VECTOR
        least = self._minimum(group)
        # The narrowest is there although it may be no multiple: it can be the only one that is fast enough.
        return tuple(sorted({*range(-(-least // step) * step, full + 1, step), least, full}))

    def _minimum(self, group: str) -> int:
        return max(1, ceil(self._full[group] * (1 - self._most) - 1e-9))

    @property
    def _most(self) -> float:
        return self.shapes.bench.target.spec.pruning.ratios[-1]

    @cached_property
    def _full(self) -> dict[str, int]:
        return {g.name: g.width for g in self.shapes.bench.groups.groups}

    @cached_property
    def _uses(self) -> tuple[OperatorUse, ...]:
        bench = self.shapes.bench
        return model_operators(bench.fresh_model(), bench.example, bench.groups.groups)

    @cached_property
    def _tables(self) -> OperatorTables:
        return OperatorTables(self.shapes.bench.device, self.shapes.bench.note)


def structured_rung(place: Rung, widths: tuple[GroupWidth, ...]) -> Rung:
    """The rung of some widths; its ratio is the share of all groups' channels that is out, to a tenth of a percent."""
    share = 1 - sum(w.after for w in widths) / sum(w.before for w in widths)
    return replace(place, pruning=PruningKind.STRUCTURED, pruning_ratio=round(share, 3), n_m=None)
