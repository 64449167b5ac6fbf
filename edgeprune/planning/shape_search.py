"""Propose a shape, measure the whole untrained model on the device, correct the cost model, propose again.

The search ends when the configuration that loses the least of all that are predicted to fit was measured to fit, and
the cheapest of those that lose less was measured not to; or when its trips are used up. What was measured always
counts more than what is predicted: a configuration that was over is not proposed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgeprune.planning.allocation import Allocation, allocate, cheapest, next_better
from edgeprune.planning.allocation_problem import AllocationProblem, Configuration
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.memory import least_beyond
from edgeprune.planning.shape_problem import LATENCY, ShapeProblem
from edgeprune.records.memory import MemoryForecast
from edgeprune.records.rung import Trip

MOST_TRIPS = 5

_NEARER = 1.10
"""A next better configuration that is predicted to be over by more than this needs no trip to show it."""


_CAUTION = (1.0, 0.98, 0.95, 0.9, 0.85)
"""Share of the limit that is aimed at, by how many proposals were over while none was found to fit: neighbours of what
was over are likely to be over as well, and the trips must not all end there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A whole model in some shape: what the device showed, and whether all limits hold."""

    latency_ms: float
    fits: bool
    memory: MemoryForecast | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """How a search ended.

    Attributes:
        best: the shape that loses least of those measured to fit; None where none did.
        trips: in the order in which they were made.
        cost: the cost model with all that was measured.
        ended: why it ended, in a sentence; also what of that is not proven.
        doubts: what of its proposals is not proven, where the solver's time ended first.
    """

    best: Configuration | None
    trips: tuple[Trip, ...]
    cost: CostModel
    ended: str
    doubts: tuple[str, ...] = ()


@dataclass(slots=True)
class ShapeSearch:
    """One search at one place.

    Args:
        problem: the model with its open widths and blocks.
        limits: `latency_ms`, and `weights` and `memory_bytes` where those are limited too.
        measure: of the whole model in a shape, on the device.
        cost: fitted to what was measured before.
        most_trips: whole models to measure.
    """

    problem: ShapeProblem
    limits: Mapping[str, float]
    measure: Callable[[Configuration], Measured]
    cost: CostModel
    most_trips: int = MOST_TRIPS
    _trips: list[Trip] = field(default_factory=list)
    _over: list[Configuration] = field(default_factory=list)
    _best: Allocation | None = None
    _doubts: list[str] = field(default_factory=list)

    def run(self) -> Found:
        """Make the trips."""
        ended = "its trips are used up"
        while len(self._trips) < self.most_trips:
            proposal = self._propose()
            if isinstance(proposal, str):
                ended = proposal
                break
            beyond = proposal.used[LATENCY] > self.limits[LATENCY]
            fits = self._try(proposal)
            if beyond and not fits:
                # It was proposed to be shown over, and is: the cheapest of all that lose less does not fit.
                ended = "the next better widths were measured to be over" if self._best else "even the fastest are over"
                break
        best = self._best.configuration if self._best else None
        return Found(best=best, trips=tuple(self._trips), cost=self.cost, ended=ended, doubts=tuple(self._doubts))

    def _propose(self) -> Allocation | str:
        """What to measure next, or why nothing more is."""
        problem = self.problem.allocation(self.cost)
        found = allocate(problem, {**self.limits, LATENCY: self._aim()}, excluding=self._over)
        if isinstance(found, Allocation):
            return self._told(found) if self._improves(found) else self._next_better(problem)
        if self._best is not None:
            return _said("no other widths are predicted to fit", found.doubt)
        least = cheapest(problem, LATENCY, {}, excluding=self._over)
        if not isinstance(least, Allocation) or self._trips:
            beyond = least_beyond(found, self.limits)
            if not beyond and isinstance(least, Allocation):
                beyond = f"at least {least.bound:.4g} ms"
            return _said("no widths are predicted to fit" + (f": {beyond}" if beyond else ""), found.doubt)
        # A prediction alone says no to nobody: the fastest widths are measured.
        return self._told(least)

    def _told(self, proposal: Allocation) -> Allocation:
        if proposal.doubt:
            self._doubts.append(f"the widths of trip {len(self._trips) + 1} are {proposal.doubt}")
        return proposal

    def _aim(self) -> float:
        overs = 0 if self._best is not None else len(self._over)
        return self.limits[LATENCY] * _CAUTION[min(overs, len(_CAUTION) - 1)]

    def _improves(self, found: Allocation) -> bool:
        return self._best is None or found.loss < self._best.loss

    def _next_better(self, problem: AllocationProblem) -> Allocation | str:
        """The cheapest widths that lose less than the best that fits: is it so that they do not fit?"""
        if self._best is None:
            return "nothing was measured to fit"
        others = {resource: limit for resource, limit in self.limits.items() if resource != LATENCY}
        better = next_better(problem, self._best, LATENCY, others, excluding=self._over)
        if not isinstance(better, Allocation):
            return _said("no widths lose less", better.doubt)
        if better.used[LATENCY] > _NEARER * self.limits[LATENCY]:
            taken = f"the next better widths are predicted to take {better.used[LATENCY]:.4g} ms"
            return _said(taken, better.doubt)
        return self._told(better)

    def _try(self, proposal: Allocation) -> bool:
        measured = self.measure(proposal.configuration)
        self._trips.append(
            Trip(
                widths=tuple(sorted(proposal.widths.items())),
                removed_blocks=tuple(sorted(proposal.removed_blocks)),
                loss=proposal.loss,
                predicted_ms=proposal.used[LATENCY],
                measured_ms=measured.latency_ms,
                fits=measured.fits,
                memory=measured.memory,
            )
        )
        if measured.fits and (self._best is None or proposal.loss < self._best.loss):
            self._best = proposal
        if not measured.fits:
            self._over.append(proposal.configuration)
        terms = self.problem.terms(proposal.configuration)
        self.cost = self.cost.updated(Observation(terms, measured.latency_ms))
        return measured.fits


def _said(what: str, doubt: str) -> str:
    return f"{what} ({doubt})" if doubt else what
