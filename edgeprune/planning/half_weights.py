"""Where float32 with weights stored in float16 is looked at: the file is half as large, and nothing is faster.

So it can only help where the float32 file is too large, and there it stands for float32 in the search for widths: of
the same latency, at the same widths, with half the bytes, so that more widths may stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeprune.planning.feasibility import ShapeFigures, refuse
from edgeprune.planning.ladder import Ladder
from edgeprune.records.rung import Limits, PlannedRung, Precision, PruningKind, Rung
from edgeprune.units import format_mb

_AS_FAST = 2.0
"""Two quick looks at one model of 8 us were 1.55x apart on a busy host. A runtime that converts weights anew in each
run may be further off: there float32 is asked too."""


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


def with_half_weights(ladder: Ladder, figures: Mapping[Rung, ShapeFigures]) -> tuple[Ladder, tuple[PlannedRung, ...]]:
    """The ladder with weights of 16 bits at the places where they were measured, and the float32 places they stand for.

    Args:
        ladder: its places have none yet.
        figures: of all that were measured at full widths; weights of 16 bits are among them only where they may gain.

    Returns:
        The ladder, and a refusal for each float32 place that is left out of it.
    """
    stands_for: dict[Rung, Rung] = {}
    slower: list[Rung] = []
    for place in (p for p in (*ladder.places, *ladder.finer_places) if p.precision is Precision.FLOAT32):
        exact, half = figures.get(place), figures.get(replace(place, precision=Precision.FLOAT32_W16))
        if exact is None or half is None:
            continue
        if half.p50_ms <= _AS_FAST * exact.p50_ms:
            stands_for[place] = half.rung
        else:
            slower.append(half.rung)
    refused = tuple(_left_out(place, half) for place, half in stands_for.items())
    return replace(
        ladder,
        places=_exchanged(ladder.places, stands_for),
        finer_places=(*_exchanged(ladder.finer_places, stands_for), *slower),
    ), refused


def _exchanged(places: Sequence[Rung], stands_for: Mapping[Rung, Rung]) -> tuple[Rung, ...]:
    return tuple(stands_for.get(place, place) for place in places)


def _left_out(place: Rung, half: Rung) -> PlannedRung:
    reason = f"{half.name} is as fast with half the bytes, so it can keep more"
    return refuse(replace(place, pruning=PruningKind.STRUCTURED), None, reason)
