"""How a measurement that no profile asks for is made, and what it is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgeprune.errors import InputError
from edgeprune.records.rung import Limits
from edgeprune.units import bytes_from_mb

if TYPE_CHECKING:
    from edgeprune.schema.profile import MeasurementPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchPolicy:
    """How `bench` measures and what it holds the artifact to.

    Attributes:
        threads: None takes those of the artifact's manifest, or 1.
        cpus: the cores to run on, as many as threads; empty for the last ones of the device, None for those of the
            manifest where `threads` are its own too.
        processes: fresh processes that the runs are spread over, at least 3.
        runs: timed runs over all processes, at least 300.
        p50_ms, p99_ms: limits to judge by; None for none.
        memory_mb: limit of the peak resident memory, which the artifact is also run under where the device can.
        memory_of: whose memory that is: `process`, or `model` (less the runtime's peak without one).
        confidence: of the bounds and of the verdict.
        percentiles: to report, each in (0, 100).
    """

    threads: int | None = None
    cpus: tuple[int, ...] | None = None
    processes: int = 5
    runs: int = 1000
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_mb: float | None = None
    memory_of: Literal["process", "model"] = "process"
    confidence: float = 0.95
    percentiles: tuple[float, ...] = (50.0, 90.0, 99.0, 99.9)

    def __post_init__(self) -> None:
        for name in ("p50_ms", "p99_ms", "memory_mb"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise InputError(f"{name}: expected a number > 0, got {value}")

    @property
    def measurement(self) -> MeasurementPolicy:
        """The same as a profile would say it.

        Raises:
            InputError: a value out of its range.
        """
        from pydantic import ValidationError

        from edgeprune.schema.profile import MeasurementPolicy

        try:
            return MeasurementPolicy(
                processes=self.processes,
                min_runs=self.runs,
                confidence=self.confidence,
                percentiles=self.percentiles,
            )
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"bench: {key}: {first['msg']}, got {first['input']}") from error

    @property
    def limits(self) -> Limits:
        """What the artifact is held to."""
        memory_bytes = None if self.memory_mb is None else bytes_from_mb(self.memory_mb)
        return Limits(p50_ms=self.p50_ms, p99_ms=self.p99_ms, memory_bytes=memory_bytes, memory_of=self.memory_of)
