"""How many threads a place has, by the percentile that the budget limits.

Which cores they run on is not chosen here: the agent pins a process to the last cores that it may use, as many as it
has threads, because core 0 gets most interrupts (`benchmarking/agent/device/bench.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.rung_order import tightness
from edgeprune.records.rung import Limits, Rung
from edgeprune.units import format_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadChoice:
    """The shape with the best thread count of each runtime and precision, and the other places with the reason."""

    kept: tuple[ShapeFigures, ...]
    left_out: tuple[tuple[Rung, str], ...]


def choose_threads(places: Sequence[ShapeFigures], limits: Limits) -> ThreadChoice:
    """Keep the thread count that comes nearest to no limit; of equal ones the first.

    Args:
        places: full widths, each measured long enough for the percentiles that the budget limits.
        limits: the budget. Without a limit of latency the lowest p50 counts.
    """
    best: dict[Rung, ShapeFigures] = {}
    for place in places:
        alike = replace(place.rung, threads=1)
        best[alike] = min(best.get(alike, place), place, key=lambda f: tightness(f, limits))
    left_out = []
    for place in places:
        kept = best[replace(place.rung, threads=1)]
        if kept is not place:
            percentile, value_ms, best_ms = _deciding(place, kept, limits)
            reason = f"{percentile} {format_ms(value_ms)}, and {format_ms(best_ms)} with {kept.rung.threads} thread(s)"
            left_out.append((place.rung, reason))
    return ThreadChoice(kept=tuple(best.values()), left_out=tuple(left_out))


def _deciding(place: ShapeFigures, kept: ShapeFigures, limits: Limits) -> tuple[str, float, float]:
    """The percentile by which a place is nearer to its limit, there and at the place that was kept."""
    by_p99 = limits.p99_ms is not None and (
        limits.p50_ms is None or place.p99_ms / limits.p99_ms >= place.p50_ms / limits.p50_ms
    )
    return ("p99", place.p99_ms, kept.p99_ms) if by_p99 else ("p50", place.p50_ms, kept.p50_ms)
