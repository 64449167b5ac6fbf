"""A limit on p99 as one on p50: tables and cost models say a median; how much longer the slowest runs take is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeprune.planning.feasibility import HEADROOM, ShapeFigures
from edgeprune.records.rung import Limits
from edgeprune.statistics import quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class TailLimit:
    """What p50 is held to at one place, so that p99 keeps to its limit.

    Attributes:
        limit_ms: of p99.
        first: p99 over p50 there before a search: the lower one of the full and of the narrowest widths, because who
            disturbs a short look only makes it longer.
        seen: the same of every shape that a search looked at, long. Their lower median counts from the first on: they
            are nearer to what is searched for, and one disturbed look among them moves nothing.
    """

    limit_ms: float
    first: float
    seen: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """p99 over p50, at least 1."""
        return max(1.0, quantile(self.seen, 0.5) if self.seen else self.first)

    @property
    def p50_ms(self) -> float:
        """The p50 at which p99 is predicted to be at its limit."""
        return self.limit_ms / self.ratio

    def p99_ms(self, p50_ms: float) -> float:
        """Predicted for a shape with this p50."""
        return self.ratio * p50_ms

    def updated(self, p50_ms: float, p99_ms: float) -> TailLimit:
        """With one more shape that was looked at."""
        return replace(self, seen=(*self.seen, p99_ms / p50_ms))


def tail_limit(limits: Limits, *known: ShapeFigures) -> TailLimit | None:
    """With headroom, and by the shortest tail of the shapes that are known; None where p99 is not limited."""
    if limits.p99_ms is None:
        return None
    return TailLimit(limit_ms=HEADROOM * limits.p99_ms, first=min(f.p99_ms / f.p50_ms for f in known))


def held_p50_ms(limits: Limits, *known: ShapeFigures) -> float:
    """What p50 is held to, by its own limit and by that of p99; infinite where neither is limited."""
    tail = tail_limit(limits, *known)
    return min(math.inf if limits.p50_ms is None else limits.p50_ms, tail.p50_ms if tail else math.inf)
