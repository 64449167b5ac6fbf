"""Before a plan says no: which of the places that were passed over are asked for their narrowest widths, how many.

Full widths do not say which place is fastest at narrow ones. On this project's own models TFLite INT8 fell to a tenth
and OpenVINO INT8 to a third, float32 in ONNX Runtime was slower than INT8 at full widths and faster at the narrowest.
So every runtime is asked once. Between places of one runtime its own shrinkage is the better guide, but it may be off
by a factor of three: it orders, and refuses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeprune.planning.feasibility import ShapeFigures

_LEAST_ASKED = 4
"""On a ladder of three runtimes and one thread that keeps the no under a minute."""


def most_asked(full_widths: int) -> int:
    """How many of the places that were passed over are asked: half as many as were measured at full widths, or four.

    Args:
        full_widths: how many places were measured at full widths; the no cannot be quicker than those.
    """
    return max(_LEAST_ASKED, full_widths // 2)


def most_promising(places: Sequence[ShapeFigures], known: Iterable[tuple[ShapeFigures, ShapeFigures]]) -> ShapeFigures:
    """The place to ask next: the fastest of a runtime that was not asked yet, else that of the lowest expected latency.

    Args:
        places: full widths, at least one.
        known: full and narrowest widths of the places that were asked.
    """
    shrinkage: dict[str, float] = {}
    for full, narrow in known:
        runtime = full.rung.runtime
        shrinkage[runtime] = min(shrinkage.get(runtime, 1.0), narrow.p50_ms / full.p50_ms)

    def order(place: ShapeFigures) -> tuple[bool, float, str]:
        least = shrinkage.get(place.rung.runtime)
        return least is not None, place.p50_ms * (1.0 if least is None else least), place.rung.name

    return min(places, key=order)
