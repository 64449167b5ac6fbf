"""Which rungs can meet the budget, judged by shapes measured on the device before any training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeprune.records.memory import Schedule
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, Rung, RungStatus
from edgeprune.units import format_mb, format_ms

SLACK = 1.03
"""A shape is measured quickly and with untrained weights; one that is over by less than this is still tried."""

HEADROOM = 0.98
"""A shape is measured by a short block; what is only just within the budget there fails half of the proper ones."""

LOOKS_FOR_A_NO = 2
"""A p99 refuses a shape only when the best of so many long looks is over: a neighbour moves p99 tenfold."""


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
        long_looks: how often it was looked at long enough for its p99; the best look counts.
        processes: how many p50 is of.
        closer: whether it had its closer look, or is to have none.
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
    long_looks: int = 0
    processes: int = 1
    closer: bool = False
    not_sparse: str = ""
    load_bytes: int = 0
    run_bytes: int = 0
    schedule: Schedule | None = None

    def memory_bytes(self, of: str) -> int:
        """Of the whole process, or of the model alone."""
        return self.peak_bytes if of == "process" else max(0, self.peak_bytes - self.base_bytes)


def tightness(shape: PlannedRung | ShapeFigures, limits: Limits) -> float:
    """How near a measured shape is to the limits of latency: the largest share of one that it uses.

    It compares placements by the budget's own percentile: two threads can halve p50 and multiply p99 by ten. Without
    a limit of latency it is p50 in ms; a rung that was not measured is the least near of all: infinite.
    """
    if shape.p50_ms is None or shape.p99_ms is None:
        return math.inf
    values = ((shape.p50_ms, limits.p50_ms), (shape.p99_ms, limits.p99_ms))
    return max((value / limit for value, limit in values if limit is not None), default=shape.p50_ms)


def over_budget(shape: ShapeFigures, limits: Limits, slack: float = SLACK) -> str | None:
    """Why this shape cannot meet the limits; None when it can.

    A short look bounds no p99 (299 samples are the least, at 95 % confidence), but a p50 over the p99 limit settles it.
    Otherwise p99 counts after `LOOKS_FOR_A_NO` long looks, undisturbed.

    Args:
        shape: as it was measured.
        limits: to come in under.
        slack: p50 may be over by this factor.
    """
    p50_ms, p99_ms = format_ms(shape.p50_ms), format_ms(shape.p99_ms)
    if limits.p50_ms is not None and shape.p50_ms > limits.p50_ms * slack:
        return f"p50 {p50_ms} on the device, over the budget of {format_ms(limits.p50_ms)}"
    if limits.p99_ms is not None and shape.p50_ms > limits.p99_ms * slack:
        return f"p50 {p50_ms} on the device, over the p99 budget of {format_ms(limits.p99_ms)}"
    is_sure = shape.long_looks >= LOOKS_FOR_A_NO and not shape.disturbed
    # A tail is less certain than a median, however strictly that is taken.
    if is_sure and limits.p99_ms is not None and shape.p99_ms > limits.p99_ms * SLACK:
        looks = f"the best of {shape.long_looks} long looks"
        return f"p99 {p99_ms} on the device in {looks}, over the budget of {format_ms(limits.p99_ms)}"
    if limits.artifact_bytes is not None and shape.artifact_bytes > limits.artifact_bytes:
        return f"size {format_mb(shape.artifact_bytes)}, over the budget of {format_mb(limits.artifact_bytes)}"
    memory_bytes = shape.memory_bytes(limits.memory_of)
    if limits.memory_bytes is not None and memory_bytes > limits.memory_bytes:
        return (
            f"peak memory of the {limits.memory_of} {format_mb(memory_bytes)}, "
            f"over the budget of {format_mb(limits.memory_bytes)}"
        )
    return None


def is_over(shape: ShapeFigures, limits: Limits) -> bool:
    """Whether any figure is over its limit, as it was measured; a p99 only where nothing disturbed it."""
    late = limits.p99_ms is not None and shape.p99_ms > limits.p99_ms and not shape.disturbed
    return late or over_budget(shape, limits, slack=1.0) is not None


def what_is_over(shape: ShapeFigures, limits: Limits) -> str:
    """What a shape is over, in words after "measured to be"; empty where it keeps to all limits with headroom.

    A p99 that was disturbed is over nothing: it may be a hundred times what it is without the neighbour.
    """
    for share, words in ((1.0, "the"), (HEADROOM, f"{HEADROOM:.0%} of the")):
        held = scaled(limits, share)
        p50_ms, p99_ms = shape.p50_ms, shape.p50_ms if shape.disturbed else shape.p99_ms
        for name, value, limit in (("", p50_ms, held.p50_ms), ("p99 ", p99_ms, held.p99_ms)):
            if limit is not None and value > limit:
                return f"over {words} {name}budget"
    if is_over(shape, Limits(artifact_bytes=limits.artifact_bytes)):
        return "over the size budget"
    return "over the memory budget" if is_over(shape, limits) else ""


def is_late(shape: ShapeFigures, limits: Limits) -> bool:
    """Whether a latency is over its limit, less the headroom."""
    return is_over(shape, scaled(Limits(p50_ms=limits.p50_ms, p99_ms=limits.p99_ms), HEADROOM))


def needs_closer_look(shape: ShapeFigures, limits: Limits) -> bool:
    """Whether p50 is so near to its limit, on either side, that one process says neither yes nor no.

    What another limit refuses is not looked at.
    """
    if limits.p50_ms is None or shape.closer or over_budget(shape, replace(limits, p50_ms=None)) is not None:
        return False
    return limits.p50_ms / SLACK**2 <= shape.p50_ms <= limits.p50_ms * SLACK


def needs_longer_look(shape: ShapeFigures, limits: Limits, near: float = 1.0) -> bool:
    """Whether p99 alone is over its limit, by looks that are too few or too short to refuse the shape.

    Args:
        shape: as it was measured.
        limits: to come in under.
        near: for the first long look, the share of the limit from which p99 is to be known better.
    """
    if limits.p99_ms is None or over_budget(shape, limits) is not None:
        return False
    share = near if shape.long_looks == 0 else 1.0
    return shape.p99_ms > share * limits.p99_ms and shape.long_looks < LOOKS_FOR_A_NO


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
    by = f" by {shape.processes} processes" if shape.processes > 1 else ""
    held = f"{_within(shape, limits)}{_tail(shape, limits)}"
    reason = refusal or f"p50 {format_ms(shape.p50_ms)} on the device{by}, {held}"
    return PlannedRung(
        rung=shape.rung,
        status=status,
        reason=reason,
        accuracy_cost=cost,
        p50_ms=shape.p50_ms,
        p99_ms=shape.p99_ms,
        long_looks=shape.long_looks,
        artifact_bytes=shape.artifact_bytes,
        peak_bytes=shape.peak_bytes,
        base_bytes=shape.base_bytes,
        widths=shape.widths,
        removed_blocks=shape.removed_blocks,
    )


def _within(shape: ShapeFigures, limits: Limits) -> str:
    """How p50 stands to its limits, for a shape that is not refused."""
    wanted = [limit for limit in (limits.p50_ms, limits.p99_ms) if limit is not None]
    if not wanted or shape.p50_ms <= min(wanted):
        return "within the budget"
    over = 100 * (shape.p50_ms / min(wanted) - 1)
    return f"{over:.1f} % over the budget of {format_ms(min(wanted))}, within the slack of a look"


def _tail(shape: ShapeFigures, limits: Limits) -> str:
    """How p99 stands to its limit, for a shape that is not refused."""
    if limits.p99_ms is None:
        return ""
    look = "a long look" if shape.long_looks else "a quick look"
    disturbed = " on a disturbed device" if shape.disturbed else ""
    told, limit = f"p99 {format_ms(shape.p99_ms)} in {look}{disturbed}", format_ms(limits.p99_ms)
    if shape.p99_ms <= limits.p99_ms:
        return f"; {told}, limit {limit}"
    return f"; {told} is over its limit of {limit}, by too little or too short a look to refuse it"


def refuse(rung: Rung, cost: float | None, reason: str) -> PlannedRung:
    """A rung that was not measured, with the reason."""
    return PlannedRung(rung=rung, status=RungStatus.REFUSED, reason=reason, accuracy_cost=cost)


def scaled(limits: Limits, factor: float) -> Limits:
    """The latency limits times a factor; bytes are bytes."""
    p50, p99 = (None if x is None else factor * x for x in (limits.p50_ms, limits.p99_ms))
    return replace(limits, p50_ms=p50, p99_ms=p99)
