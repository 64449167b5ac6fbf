"""Where float32 with weights stored in float16 is looked at: the file is half as large, and nothing is faster.

So it can only help where the float32 file is too large, and there it stands for float32 in the search for widths: of
the same latency, at the same widths, with half the bytes, so that more widths may stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeprune.planning.feasibility import ShapeFigures, is_late, refuse
from edgeprune.planning.ladder import Ladder
from edgeprune.records.rung import Limits, PlannedRung, Precision, PruningKind, Rung
from edgeprune.units import format_mb, format_ms

_AS_FAST = 2.0
"""Two quick looks at one model of 8 us were 1.55x apart on a busy host. A runtime that converts weights anew in each
run may be further off: there float32 is asked too."""

_AS_FAST_WHERE_LATE = 1.1
"""The same where latency has to be won too: what is this much slower may have to be cut further than float32."""


def why_not(rung: Rung, figures: Mapping[Rung, ShapeFigures], limits: Limits) -> str | None:
    """Why a rung is not worth a look because weights of 16 bits gain nothing there; None where it is.

    Args:
        rung: unpruned, in any precision.
        figures: of float32 at each place, full widths.
        limits: the budget.
    """
    exact = figures.get(replace(rung, precision=Precision.FLOAT32))
    if rung.precision is not Precision.FLOAT32_W16 or exact is None:
        return None
    if limits.artifact_bytes is not None and exact.artifact_bytes > limits.artifact_bytes:
        return None
    return f"weights of 16 bits save size alone, and {exact.rung.name} has {format_mb(exact.artifact_bytes)}"


def with_half_weights(
    ladder: Ladder, figures: Mapping[Rung, ShapeFigures], limits: Limits
) -> tuple[Ladder, dict[Rung, Rung]]:
    """The ladder with weights of 16 bits at the places where they were measured.

    Args:
        ladder: its places have none yet.
        figures: of all that were measured at full widths; weights of 16 bits are among them only where they may gain.
        limits: the budget.

    Returns:
        The ladder, and the float32 place that each place with weights of 16 bits stands for.
    """
    stands_for: dict[Rung, Rung] = {}
    slower: list[Rung] = []
    for place in (p for p in (*ladder.places, *ladder.finer_places) if p.precision is Precision.FLOAT32):
        exact, half = figures.get(place), figures.get(replace(place, precision=Precision.FLOAT32_W16))
        if exact is None or half is None:
            continue
        if half.p50_ms <= exact.p50_ms * (_AS_FAST_WHERE_LATE if is_late(half, limits) else _AS_FAST):
            stands_for[half.rung] = place
        else:
            slower.append(half.rung)
    halves = {exact: half for half, exact in stands_for.items()}
    exchanged = exchange(ladder, halves)
    return replace(exchanged, finer_places=(*exchanged.finer_places, *slower)), stands_for


def exchange(ladder: Ladder, places: Mapping[Rung, Rung]) -> Ladder:
    """The ladder with other places where widths are searched for.

    Args:
        ladder: any.
        places: the new ones, by those that are there.
    """
    return replace(
        ladder,
        places=tuple(places.get(place, place) for place in ladder.places),
        finer_places=tuple(places.get(place, place) for place in ladder.finer_places),
    )


def left_out(exact: ShapeFigures, half: ShapeFigures) -> PlannedRung:
    """Why no widths were searched for in float32, where weights of 16 bits stood for it."""
    takes = f"takes {format_ms(half.p50_ms)} with half the bytes, float32 {format_ms(exact.p50_ms)}"
    reason = f"{half.rung.name} {takes}: of the size it can keep more"
    return refuse(replace(exact.rung, pruning=PruningKind.STRUCTURED), None, reason)
