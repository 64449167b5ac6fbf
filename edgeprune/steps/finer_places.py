"""Structured rungs at finer precisions than INT8: searched for only where they could cost less than what is planned.

Cutting in float32 has to win all the time that INT8 gives for next to nothing, so it seldom costs less; but where
INT8 breaks a model it does. Each place is asked the cheap questions first: what its precision alone costs, what its
widths would lose at the prices of a place that was searched, its narrowest shape, what its own operator tables say, and
only then the search on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeprune.planning.feasibility import ShapeFigures, over_budget, refuse
from edgeprune.planning.rung_order import noise
from edgeprune.records.rung import Limits, PlannedRung, PruningKind, Rung, RungStatus
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.narrowing import Narrower

_DOUBT = 2.0
"""Another place's prices may be so far off in what they say of a loss."""

NOT_LOOKED_AT = "finer than INT8: widths are searched for only when the costs of the planned rungs are measured"


@dataclass(frozen=True)
class FinerPlaces:
    """Decides on one place after the other, against what is planned by then."""

    narrower: Narrower
    costs: AccuracyCosts

    def plan(self, dense: ShapeFigures, planned: Sequence[PlannedRung], limits: Limits) -> list[PlannedRung]:
        """The rungs that were found at a place, or one refusal; all with their cost.

        Args:
            dense: the full widths there, which are over the budget.
            planned: all rungs that fit, with measured costs; at least one.
            limits: the budget.

        Raises:
            BuildError, MeasurementError: a shape cannot be compiled or run there, or the device went away.
        """
        place = dense.rung
        best = min(planned, key=lambda r: r.accuracy_cost or 0.0)
        bare = self.costs.priced(PlannedRung(rung=place, status=RungStatus.PLANNED, reason="", accuracy_cost=None))
        if self._is_enough(best, bare):
            return [refused_place(place, f"{_costs(best)}: no widths in {place.precision} could cost less")]
        likely = self.narrower.likely_loss(dense, limits)
        if likely is not None and (bare.accuracy_cost or 0.0) + likely / _DOUBT >= (best.accuracy_cost or 0.0):
            told = f"at the prices of the searched place its widths would cost about {likely:.4g}"
            return [refused_place(place, f"{told}; {_costs(best)}")]
        narrow = self.narrower.fastest_admissible(place)
        too_slow = over_budget(narrow, limits)
        if too_slow is not None:
            return [refused_place(place, f"even with the narrowest widths: {too_slow}")]
        least = self.narrower.least_loss(dense, narrow, limits)
        if least is None:
            return [refused_place(place, "by the operator tables no widths fit")]
        if (bare.accuracy_cost or 0.0) + least >= (best.accuracy_cost or 0.0):
            told = f"by the operator tables its widths cost at least {(bare.accuracy_cost or 0.0) + least:.4g}"
            return [refused_place(place, f"{told}; {_costs(best)}")]
        return [self.costs.priced(r) for r in self.narrower.plan(dense, narrow, limits)]

    @staticmethod
    def _is_enough(best: PlannedRung, bare: PlannedRung) -> bool:
        """Whether a planned rung costs no more, within the noise, than the place's precision before anything is cut."""
        return (best.accuracy_cost or 0.0) <= (bare.accuracy_cost or 0.0) + noise(best, bare)


def refused_place(place: Rung, reason: str) -> PlannedRung:
    """No widths were searched for at a place, and why."""
    return refuse(replace(place, pruning=PruningKind.STRUCTURED), None, reason)


def _costs(best: PlannedRung) -> str:
    return f"{best.rung.name} fits and costs {best.accuracy_cost or 0.0:.4g} \u00b1 {best.cost_error:.2g}"
