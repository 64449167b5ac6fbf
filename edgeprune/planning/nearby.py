"""What is expected of widths that are near measured ones: the fallbacks of a plan, which nobody compiled yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.memory import MEMORY
from edgeprune.planning.shape_problem import LATENCY, WEIGHTS
from edgeprune.records.rung import PlannedRung, Prediction


def predict_near(
    used: Mapping[str, float],
    measured: tuple[ShapeFigures, PlannedRung],
    weights: tuple[int, int],
    memory_of: Literal["process", "model"],
) -> Prediction:
    """Latency and memory by the models that found the widths; the rest by two shapes that were measured there.

    Size is on the line through the two, over the number of weights; so is memory where it is not limited, because then
    nobody read the schedules that its model is made from. p99 is to p50 as at the two, the lower of both: who disturbs
    a short look only makes its tail longer.

    Args:
        used: what the widths use of each resource, as the allocation that found them has it.
        measured: the full widths at the place, and the chosen ones; the fallbacks are a little narrower than those.
        weights: how many of them the operators of the two have.
        memory_of: whose peak the budget counts.
    """
    dense, head = measured
    p50_ms = used[LATENCY]
    tails = [one.p99_ms / one.p50_ms for one in measured if one.p99_ms is not None and one.p50_ms]
    share = _share(used[WEIGHTS], *weights)
    memory_bytes = used.get(MEMORY)
    if memory_bytes is None:
        peak = dense.memory_bytes(memory_of)
        memory_bytes = _on_the_line(peak, head.memory_bytes(memory_of) or peak, share)
    return Prediction(
        p50_ms=p50_ms,
        p99_ms=max(1.0, min(tails)) * p50_ms,
        memory_bytes=round(memory_bytes),
        artifact_bytes=round(_on_the_line(dense.artifact_bytes, head.artifact_bytes or dense.artifact_bytes, share)),
    )


def _share(count: float, full: int, chosen: int) -> float:
    """How far a number of weights is on the way from the full to the chosen ones; more than 1 beyond these."""
    return 1.0 if full == chosen else (full - count) / (full - chosen)


def _on_the_line(full: float, chosen: float, share: float) -> float:
    """Never below nothing: noise of a measurement may tilt the line."""
    return max(0.0, full + share * (chosen - full))
