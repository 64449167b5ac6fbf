"""What shapes need in memory: read from their compiled files, measured by the agent, predicted for other widths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import BuildError
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.live_tensors import follow_groups
from edgeprune.planning.memory import MemoryBook
from edgeprune.profiling.schedules import SCHEDULES
from edgeprune.records.memory import MemoryForecast, MemoryNeeds, OpenSchedule, Schedule
from edgeprune.records.rung import Limits, Rung, kept_widths

_FLOAT_BYTES = 4


def compiled_schedule(path: Path, rung: Rung, note: Callable[[str, str], object]) -> Schedule | None:
    """The schedule of a compiled file; None, with a warning, where it cannot be read: a plan can do without."""
    if rung.masked or rung.runtime not in SCHEDULES.names():
        return None
    try:
        return SCHEDULES.get(rung.runtime).read(path, rung.precision)
    except BuildError as error:
        note(f"{rung.name}: the plan knows no activation memory: {error.message}", "warning")
        return None


@dataclass(slots=True)
class ShapeMemory:
    """Memory of the shapes of one model at one place.

    Args:
        book: of the place.
        count: how many weights a measured shape has.
        followed: the share of the compiled tensors' bytes that the model's calls explain; see `planning.live_tensors`.
            None where the compiled schedules were not read, or differ; the calls stand for them then.
    """

    book: MemoryBook
    count: Callable[[ShapeFigures], int]
    followed: float | None

    @property
    def doubt(self) -> str:
        """What may make the predicted activations wrong; empty for nothing."""
        if self.followed is None:
            return "the compiled graphs of wide and narrow models differ: activations are those of the model's calls"
        missing = 1 - self.followed
        what = f"{missing:.0%} of the compiled tensors' bytes follow no tensor of the model, and count at full widths"
        return what if missing else ""

    def take(self, figures: ShapeFigures) -> MemoryForecast:
        """What was predicted for a shape that is measured now; the next predictions know it."""
        widths, weights = kept_widths(figures.widths), self.count(figures)
        needs = _needs(self.book, widths, weights, figures)
        forecast = self.book.forecast(widths, weights, needs)
        self.book.observe(widths, weights, needs)
        return forecast


def shape_memory(
    calls: OpenSchedule,
    count: Callable[[ShapeFigures], int],
    limits: Limits,
    dense: ShapeFigures,
    narrow: ShapeFigures,
) -> ShapeMemory:
    """Begin with the two ends of what widths there are at a place.

    Args:
        calls: of the model; see `graph.activations`.
        count: how many weights a measured shape has.
        limits: for whose memory counts.
        dense: as it is; its widths may be empty.
        narrow: with the narrowest widths, and the full ones beside them. With all blocks: its graph must be the same.
    """
    full = {w.group: w.before for w in narrow.widths}
    ends = {w.group: w.after for w in narrow.widths}
    schedule, share = calls, None
    if dense.schedule is not None and narrow.schedule is not None:
        followed = follow_groups(dense.schedule, narrow.schedule, calls, full, ends)
        schedule, share = (followed.schedule, followed.share) if followed else (calls, None)
    book = MemoryBook(schedule=schedule, of=limits.memory_of)
    for widths, figures in ((full, dense), (ends, narrow)):
        weights = count(figures)
        book.observe(widths, weights, _needs(book, widths, weights, figures))
    return ShapeMemory(book, count, share)


def _needs(book: MemoryBook, widths: Mapping[str, int], weights: int, figures: ShapeFigures) -> MemoryNeeds:
    schedule = figures.schedule
    return MemoryNeeds(
        base_bytes=figures.base_bytes,
        load_bytes=max(0, (figures.load_bytes or figures.peak_bytes) - figures.base_bytes),
        run_bytes=max(0, (figures.run_bytes or figures.peak_bytes) - figures.base_bytes),
        weight_bytes=schedule.weight_bytes if schedule else _FLOAT_BYTES * weights,
        activation_bytes=schedule.peak_bytes if schedule else round(book.schedule.peak_bytes(widths)),
    )
