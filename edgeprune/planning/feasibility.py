"""Which rungs can meet the budget, judged by shapes measured on the device before any training."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgeprune.records.memory import Schedule
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, Rung, RungStatus
from edgeprune.units import format_mb, format_ms

SLACK = 1.03
"""A shape is measured quickly and with untrained weights; one that is over by less than this is still tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeFigures:
    """What the device showed for one untrained shape.

    Attributes:
        p50_ms, p99_ms: nearest rank over the samples of a short measurement.
        peak_bytes: peak resident memory of the agent's process.
        base_bytes: the part of it that the runtime has without a model.
        widths, removed_blocks: what was cut, where it is structured.
        load_bytes, run_bytes: the peaks of the process while loading and from then on; 0 where they were not told.
        schedule: of the compiled file; None where it was not read.
        disturbed: what disturbed the measurement, and may have made it slower; empty when nothing did.
        not_sparse: why the runtime's rule says that its sparse kernels do not run this file; empty where they do, and
            for files without zeros.
    """

    rung: Rung
    p50_ms: float
    p99_ms: float
    artifact_bytes: int
    peak_bytes: int
    base_bytes: int = 0
    widths: tuple[GroupWidth, ...] = ()
    removed_blocks: tuple[str, ...] = ()
    disturbed: str = ""
    not_sparse: str = ""
    load_bytes: int = 0
    run_bytes: int = 0
    schedule: Schedule | None = None

    def memory_bytes(self, of: str) -> int:
        """Of the whole process, or of the model alone."""
        return self.peak_bytes if of == "process" else max(0, self.peak_bytes - self.base_bytes)


def over_budget(shape: ShapeFigures, limits: Limits) -> str | None:
    """Why this shape cannot meet the limits; None when it can.

    p99 is judged by p50 here: a short measurement bounds no p99 (299 samples are the least, at 95 % confidence), but a
    p50 over the p99 limit settles it.
    """
    if limits.p50_ms is not None and shape.p50_ms > limits.p50_ms * SLACK:
        return f"p50 {format_ms(shape.p50_ms)} on the device, over the budget of {format_ms(limits.p50_ms)}"
    if limits.p99_ms is not None and shape.p50_ms > limits.p99_ms * SLACK:
        return f"p50 {format_ms(shape.p50_ms)} on the device, over the p99 budget of {format_ms(limits.p99_ms)}"
    if limits.artifact_bytes is not None and shape.artifact_bytes > limits.artifact_bytes:
        return f"size {format_mb(shape.artifact_bytes)}, over the budget of {format_mb(limits.artifact_bytes)}"
    memory_bytes = shape.memory_bytes(limits.memory_of)
    if limits.memory_bytes is not None and memory_bytes > limits.memory_bytes:
        return (
            f"peak memory of the {limits.memory_of} {format_mb(memory_bytes)}, "
            f"over the budget of {format_mb(limits.memory_bytes)}"
        )
    return None


def no_room(shape: ShapeFigures, limits: Limits) -> str | None:
    """Why no widths at all can meet the memory limit at this shape's place; None where they may."""
    limit = limits.memory_bytes
    if limit is None or limits.memory_of == "model" or shape.base_bytes <= limit:
        return None
    return (
        f"the runtime alone takes {format_mb(shape.base_bytes)} before it loads a model, "
        f"over the memory budget of {format_mb(limit)}"
    )


def decide(shape: ShapeFigures, limits: Limits, cost: float) -> PlannedRung:
    """Turn a measured shape into a planned or refused rung, with the reason."""
    refusal = over_budget(shape, limits)
    status = RungStatus.REFUSED if refusal else RungStatus.PLANNED
    if refusal and shape.disturbed:
        refusal += f" (measured on a disturbed device: {shape.disturbed})"
    reason = refusal or f"p50 {format_ms(shape.p50_ms)} on the device, within the budget"
    return PlannedRung(
        rung=shape.rung,
        status=status,
        reason=reason,
        accuracy_cost=cost,
        p50_ms=shape.p50_ms,
        p99_ms=shape.p99_ms,
        artifact_bytes=shape.artifact_bytes,
        peak_bytes=shape.peak_bytes,
        base_bytes=shape.base_bytes,
        widths=shape.widths,
        removed_blocks=shape.removed_blocks,
    )


def refuse(rung: Rung, cost: float | None, reason: str) -> PlannedRung:
    """A rung that was not measured, with the reason."""
    return PlannedRung(rung=rung, status=RungStatus.REFUSED, reason=reason, accuracy_cost=cost)


def scaled(limits: Limits, factor: float) -> Limits:
    """The latency limits times a factor; bytes are bytes."""
    p50, p99 = (None if x is None else factor * x for x in (limits.p50_ms, limits.p99_ms))
    return replace(limits, p50_ms=p50, p99_ms=p99)
