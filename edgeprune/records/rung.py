"""One way to meet the budget, and the plan that orders such ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from edgeprune.cpu_list import format_cpus
from edgeprune.records.breakdown import Breakdown, PlaceSurvey
from edgeprune.records.memory import MemoryForecast
from edgeprune.records.sensitivity import Sensitivity, ZeroSpread
from edgeprune.units import format_ms

_SHORT_REASON = 160


class Precision(StrEnum):
    """What the runtime computes in; and, where that differs, what the file has the weights in."""

    FLOAT32 = "float32"
    FLOAT32_W16 = "float32w16"
    """Weights stored in float16 and made float32 when the file is loaded: half its size, and float32's kernels."""
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def arithmetic(self) -> Precision:
        """What the runtime is told to compute in: how the weights are stored stands in the file."""
        return Precision.FLOAT32 if self is Precision.FLOAT32_W16 else self


class PruningKind(StrEnum):
    """What is taken out of the model."""

    NONE = "none"
    STRUCTURED = "structured"
    UNSTRUCTURED = "unstructured"
    N_M = "n:m"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """Runtime x precision x threads and their cores x pruning.

    Attributes:
        cpus: the cores to run on; empty where only one choice is worth a look: the last `threads` ones there.
        pruning_ratio: share taken out, in [0, 1): of each group's channels when structured, of the weights otherwise.
        n_m: for N:M pruning, (2, 4) keeps 2 of every 4 weights along the input channels.
        block: for block pruning, (output channels, inputs) that are zero together.
        blocks_out: residual blocks that are removed whole, when structured.
    """

    runtime: str
    precision: Precision
    threads: int = 1
    cpus: tuple[int, ...] = ()
    pruning: PruningKind = PruningKind.NONE
    pruning_ratio: float = 0.0
    n_m: tuple[int, int] | None = None
    block: tuple[int, int] | None = None
    blocks_out: int = 0

    @property
    def masked(self) -> bool:
        """Whether single weights are zeroed."""
        return self.pruning in {PruningKind.UNSTRUCTURED, PruningKind.N_M, PruningKind.BLOCK}

    @property
    def unpruned(self) -> Rung:
        """At the same place, whole."""
        return Rung(runtime=self.runtime, precision=self.precision, threads=self.threads, cpus=self.cpus)

    @property
    def unplaced(self) -> Rung:
        """Equal for rungs that differ only in threads and their cores."""
        return replace(self, threads=1, cpus=())

    @property
    def place(self) -> str:
        """Runtime, precision, threads and their cores: what the price of an operator belongs to."""
        cores = f"-cpu{format_cpus(self.cpus).replace(',', '+')}" if self.cpus else ""
        return f"{self.runtime}-{self.precision}-t{self.threads}{cores}"

    @property
    def name(self) -> str:
        """Short, unique and fit for a folder: `tflite-int8-t1-structured50`; `structured50d2` without two blocks."""
        return self.place if self.pruning is PruningKind.NONE else f"{self.place}-{self.pruning_name}"

    @property
    def pattern(self) -> tuple[PruningKind, tuple[int, int] | None, tuple[int, int] | None]:
        """What is taken out, whatever the share of it."""
        return self.pruning, self.n_m, self.block

    @property
    def pruning_name(self) -> str:
        """The part of the name that says what is taken out; equal wherever the same is."""
        if self.n_m is not None:
            return f"nm{self.n_m[0]}of{self.n_m[1]}"
        # Where nothing is decided yet, no widths have a share.
        share = f"{100 * self.pruning_ratio:g}" if self.pruning_ratio else ""
        if self.block is not None:
            return f"block{self.block[0]}x{self.block[1]}-{share}"
        return f"{self.pruning}{share}" + (f"d{self.blocks_out}" if self.blocks_out else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupWidth:
    """The width of one channel group before and after; 0 after where its block is removed."""

    group: str
    before: int
    after: int


def kept_widths(widths: Iterable[GroupWidth]) -> dict[str, int]:
    """Width by group, without the groups of removed blocks."""
    return {w.group: w.after for w in widths if w.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """A whole untrained model that was measured on the device while its widths were searched for.

    Attributes:
        widths: (group, width), by name of the group; without those of removed blocks.
        removed_blocks: by name.
        loss: predicted increase of the validation loss before recovery, from the groups' sensitivity.
        predicted_ms: p50, before it was measured.
        measured_ms: p50 on the device.
        fits: within all limits that were searched by.
        memory: predicted and measured.
        over: what it is over where it does not fit: a limit of the budget, or the share of one that is aimed at.
        predicted_p99_ms: by the tails that were seen before it; None where p99 is not limited.
        measured_p99_ms: of a look that is long where it comes near its limit; None where that was disturbed.
    """

    widths: tuple[tuple[str, int], ...]
    loss: float
    predicted_ms: float
    measured_ms: float
    fits: bool
    removed_blocks: tuple[str, ...] = ()
    memory: MemoryForecast | None = None
    over: str = ""
    predicted_p99_ms: float | None = None
    measured_p99_ms: float | None = None

    @property
    def summary(self) -> str:
        """In a line: predicted 0.0541 ms, measured 0.0539 ms, fits; with p99 and memory where they are limited."""
        figures = f"predicted {format_ms(self.predicted_ms)}, measured {format_ms(self.measured_ms)}"
        if self.predicted_p99_ms is not None:
            seen = "disturbed" if self.measured_p99_ms is None else f"measured {format_ms(self.measured_p99_ms)}"
            figures += f", p99 {format_ms(self.predicted_p99_ms)}, {seen}"
        memory = f", {self.memory.summary}" if self.memory else ""
        return f"{figures}{memory}, {'fits' if self.fits else self.over or 'over'}"


class RungStatus(StrEnum):
    """Where a rung stands after planning."""

    PLANNED = "planned"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What is expected of a shape that was not compiled yet.

    Attributes:
        p50_ms: by the cost model.
        p99_ms: p50 times what p99 is of p50 at shapes that were measured at the same place; a hint only.
        memory_bytes: peak memory, as the budget counts it.
        artifact_bytes: size of the compiled shape.
    """

    p50_ms: float
    p99_ms: float
    memory_bytes: int
    artifact_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRung:
    """A rung with what was measured of its untrained shape on the device, and why it is in or out.

    Attributes:
        p50_ms: measured on the device with untrained weights; None when it was not measured.
        p99_ms: nearest rank on the same samples; a hint only, from too few samples to certify.
        long_looks: how often it was looked at long enough for its p99; the best look counts.
        artifact_bytes: size of the compiled shape.
        peak_bytes: peak resident memory of the agent's process with that shape.
        base_bytes: the part of it that the runtime has without a model.
        accuracy_cost: predicted increase of the mean validation loss, before recovery: `steps/costs.py`. Where the plan
            says that costs are not measured, a rank. None for a refused rung whose cost nobody asked for.
        cost_error: its standard error over the examples; 0 for a rank.
        widths: of the groups, in the model's order; empty when nothing is cut.
        removed_blocks: residual blocks that are removed whole, in the model's order.
        trips: the search for these widths, in order; empty where they were not searched for.
        ended: why the search ended.
        breakdown: where the milliseconds of this shape go; None where its operators were not priced.
        memory: of the chosen widths: predicted before they were compiled, and measured.
        predicted: of a fallback that is measured when it is tried; None for all that were measured, and for what was
            not looked at.
        zeros: how a mask's are spread by sensitivity; None where they are not, and before that was measured.
    """

    rung: Rung
    status: RungStatus
    reason: str
    accuracy_cost: float | None
    cost_error: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    artifact_bytes: int | None = None
    peak_bytes: int | None = None
    widths: tuple[GroupWidth, ...] = ()
    removed_blocks: tuple[str, ...] = ()
    trips: tuple[Trip, ...] = ()
    ended: str = ""
    breakdown: Breakdown | None = None
    base_bytes: int | None = None
    memory: MemoryForecast | None = None
    long_looks: int = 0
    predicted: Prediction | None = None
    zeros: ZeroSpread | None = None

    def memory_bytes(self, of: Literal["process", "model"]) -> int | None:
        """Measured peak of the process, or of the model beyond the runtime's own; None where it was not measured."""
        if self.peak_bytes is None or of == "process":
            return self.peak_bytes
        return max(0, self.peak_bytes - (self.base_bytes or 0))

    @property
    def short_reason(self) -> str:
        """The first line of the reason, cut to 160 characters: a compiler's message may have hundreds of lines."""
        line = next(iter(self.reason.strip().splitlines()), "")
        return line if len(line) <= _SHORT_REASON else f"{line[: _SHORT_REASON - 3].rstrip()}..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The budget in absolute terms; None where the profile sets none.

    Attributes:
        p50_ms: the 50th percentile of latency must be at or under this.
        p99_ms: the 99th percentile of latency must be at or under this.
        memory_bytes: peak resident memory.
        memory_of: of the process that runs the artifact, or of the model: less the runtime's peak without one.
        artifact_bytes: the sum of the artifact's files.
    """

    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_bytes: int | None = None
    artifact_bytes: int | None = None
    memory_of: Literal["process", "model"] = "process"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The ladder: planned rungs in the order in which they are tried, then the refused ones."""

    rungs: tuple[PlannedRung, ...]
    limits: Limits
    dense: PlannedRung
    """The fastest dense float32 rung: relative budgets refer to it."""
    notes: tuple[str, ...] = ()
    surveys: tuple[PlaceSurvey, ...] = ()
    """Of the places where widths were searched for: the staircases, and where the milliseconds go at full widths."""
    sensitivity: Sensitivity | None = None
    """What each group loses, where widths were chosen by it; None before anything was trained."""
    costs_measured: bool = False
    """Whether accuracy costs are losses that were measured; else they are ranks, and only their order counts."""
    not_asked: tuple[str, ...] = ()
    """Where nothing is planned, the places whose narrowest widths were not measured: others promised more."""

    @property
    def planned(self) -> tuple[PlannedRung, ...]:
        """The rungs that will be tried, in order."""
        return tuple(r for r in self.rungs if r.status is RungStatus.PLANNED)

    @property
    def best(self) -> PlannedRung:
        """The rung with the lowest measured p50."""
        measured = [r for r in (*self.rungs, self.dense) if r.p50_ms is not None]
        return min(measured, key=lambda r: r.p50_ms or 0.0)

    def survey(self, rung: Rung) -> PlaceSurvey | None:
        """What was learned of a rung's place; None where no widths were searched for there."""
        return next((s for s in self.surveys if s.place == rung.place), None)
