"""Propose a shape, measure the whole untrained model on the device, correct the cost model, propose again.

The search ends when the configuration that loses the least of all that are predicted to fit was measured to fit, and
the cheapest of those that lose less was measured not to; or when its trips are used up. What was measured always
counts more than what is predicted: a configuration that was over is not proposed again. Where p99 is limited, p50 is
held to what the tails that were seen so far say of it, so each trip moves the limit too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from edgeprune.planning.allocation import Allocation, Infeasible, allocate, cheapest, next_better
from edgeprune.planning.allocation_problem import AllocationProblem, Configuration
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.memory import least_beyond
from edgeprune.planning.shape_problem import LATENCY, ShapeProblem
from edgeprune.planning.tail import TailLimit
from edgeprune.records.memory import MemoryForecast
from edgeprune.records.rung import Trip

MOST_TRIPS = 5

_CAUTION = (1.0, 0.98, 0.95, 0.9, 0.85)
"""Share of the limit that is aimed at, by how many proposals were over while none was found to fit: neighbours of what
was over are likely to be over as well, and the trips must not all end there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A whole model in some shape: what the device showed, and whether all limits hold.

    Attributes:
        latency_ms: p50.
        over: what it is over, in words after "measured to be"; empty where all limits hold.
        late: whether that is a latency, so that the aim is to be lower.
        p99_ms: where p99 is limited; None where it is not known, because the device was disturbed. It is taken to be
            what the tails that were seen so far say.
        memory: predicted and measured.
    """

    latency_ms: float
    over: str = ""
    late: bool = True
    p99_ms: float | None = None
    memory: MemoryForecast | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a search ended.

    Attributes:
        best: the shape that loses least of those measured to fit; None where none did.
        trips: in the order in which they were made.
        cost: the cost model with all that was measured.
        ended: why it ended, in a sentence; also what of that is not proven.
        latency_ms: what p50 was held to in the end.
        tail: with all that was seen; None where p99 is not limited.
        doubts: what of its proposals is not proven, where the solver's time ended first.
    """

    best: Configuration | None
    trips: tuple[Trip, ...]
    cost: CostModel
    ended: str
    latency_ms: float
    tail: TailLimit | None = None
    doubts: tuple[str, ...] = ()


@dataclass(slots=True)
class ShapeSearch:
    """One search at one place.

    Args:
        problem: the model with its open widths and blocks.
        limits: `latency_ms`, and `weights` and `memory_bytes` where those are limited too.
        measure: of the whole model in a shape, on the device.
        cost: fitted to what was measured before.
        tail: holds p50 to less where p99 is limited.
        most_trips: whole models to measure.
    """

    problem: ShapeProblem
    limits: Mapping[str, float]
    measure: Callable[[Configuration], Measured]
    cost: CostModel
    tail: TailLimit | None = None
    most_trips: int = MOST_TRIPS
    _trips: list[Trip] = field(default_factory=list)
    _over: list[Configuration] = field(default_factory=list)
    _late: int = 0
    _best: Allocation | None = None
    _doubts: list[str] = field(default_factory=list)

    def run(self) -> Found:
        """Make the trips."""
        ended = ""
        while not ended and len(self._trips) < self.most_trips:
            proposal = self._propose()
            ended = proposal if isinstance(proposal, str) else self._tried(proposal)
        return Found(
            best=self._best.configuration if self._best else None,
            trips=tuple(self._trips),
            cost=self.cost,
            ended=ended or self._used_up(),
            latency_ms=self._latency_ms,
            tail=self.tail,
            doubts=tuple(self._doubts),
        )

    @property
    def _latency_ms(self) -> float:
        limit_ms = self.limits[LATENCY]
        return min(limit_ms, self.tail.p50_ms) if self.tail else limit_ms

    def _tried(self, proposal: Allocation) -> str:
        """Make a trip; why it was the last one, or empty."""
        beyond = proposal.used[LATENCY] > self._latency_ms
        measured = self._try(proposal)
        if not (beyond and measured.over and measured.late):
            return ""
        # It was proposed to be shown over, and is: the cheapest of all that lose less does not fit.
        return f"{'the next better widths' if self._best else 'even the fastest'} were measured to be {measured.over}"

    def _propose(self) -> Allocation | str:
        """What to measure next, or why nothing more is."""
        problem = self.problem.allocation(self.cost)
        found = allocate(problem, {**self.limits, LATENCY: self._aim()}, excluding=self._over)
        if isinstance(found, Allocation) and self._improves(found):
            return self._told(found)
        if self._best is not None:
            return self._next_better(problem, self._best)
        # A prediction alone says no to nobody: the fastest widths are measured, within the other limits if they can be.
        least = cheapest(problem, LATENCY, self._others, excluding=self._over)
        if not isinstance(least, Allocation) and not self._trips:
            least = cheapest(problem, LATENCY, {})
        if isinstance(least, Allocation):
            return self._told(least)
        beyond = least_beyond(found, self.limits) if isinstance(found, Infeasible) else ""
        return _said("no widths are predicted to fit" + (f": {beyond}" if beyond else ""), found.doubt)

    def _told(self, proposal: Allocation) -> Allocation:
        if proposal.doubt:
            self._doubts.append(f"the widths of trip {len(self._trips) + 1} are {proposal.doubt}")
        return proposal

    def _aim(self) -> float:
        overs = 0 if self._best is not None else self._late
        return self._latency_ms * _CAUTION[min(overs, len(_CAUTION) - 1)]

    def _improves(self, found: Allocation) -> bool:
        return self._best is None or found.loss < self._best.loss

    def _next_better(self, problem: AllocationProblem, best: Allocation) -> Allocation | str:
        """The cheapest widths that lose less than the best that fits: is it so that they do not fit?"""
        better = next_better(problem, best, LATENCY, self._others, excluding=self._over)
        if isinstance(better, Allocation):
            return self._told(better)
        within = " within the other limits" if self._others else ""
        better_and_over = any(not t.fits and t.loss < best.loss for t in self._trips)
        return _said(f"no {'other ' if better_and_over else ''}widths{within} lose less", better.doubt)

    @property
    def _others(self) -> dict[str, float]:
        return {resource: limit for resource, limit in self.limits.items() if resource != LATENCY}

    def _used_up(self) -> str:
        """What the last trip left open, if anything."""
        if self._best is None:
            return "its trips are used up, and none fitted"
        better = next_better(self.problem.allocation(self.cost), self._best, LATENCY, self._others)
        if not isinstance(better, Allocation):
            return _said("no widths lose less", better.doubt)
        shown = (t for t, shape in zip(self._trips, self._shapes, strict=True) if shape == better.configuration)
        trip = next((t for t in shown if not t.fits), None)
        if trip is not None:
            return f"the next better widths were measured to be {trip.over}"
        predicted = f"{better.used[LATENCY]:.4g} ms predicted, {self._latency_ms:.4g} ms wanted"
        return f"its trips were used up before the next better widths were measured ({predicted})"

    @property
    def _shapes(self) -> list[Configuration]:
        return [Configuration(widths=dict(t.widths), removed_blocks=frozenset(t.removed_blocks)) for t in self._trips]

    def _try(self, proposal: Allocation) -> Measured:
        shape = proposal.configuration
        terms = self.problem.terms(shape)
        measured, tail, predicted_ms = self.measure(shape), self.tail, self.cost.predict_ms(terms)
        if tail is not None and measured.p99_ms is None and not measured.over and measured.latency_ms > tail.p50_ms:
            measured = replace(measured, over="over the p99 budget by the tails of others", late=True)
        self._trips.append(
            Trip(
                widths=tuple(sorted(proposal.widths.items())),
                removed_blocks=tuple(sorted(proposal.removed_blocks)),
                loss=proposal.loss,
                predicted_ms=predicted_ms,
                measured_ms=measured.latency_ms,
                fits=not measured.over,
                over=measured.over,
                memory=measured.memory,
                predicted_p99_ms=tail.p99_ms(predicted_ms) if tail else None,
                measured_p99_ms=measured.p99_ms if tail else None,
            )
        )
        if not measured.over and self._improves(proposal):
            self._best = proposal
        if measured.over:
            self._over.append(shape)
            self._late += measured.late
        self.cost = self.cost.updated(Observation(terms, measured.latency_ms))
        if tail is not None and measured.p99_ms is not None:
            self.tail = tail.updated(measured.latency_ms, measured.p99_ms)
        return measured


def _said(what: str, doubt: str) -> str:
    return f"{what} ({doubt})" if doubt else what
