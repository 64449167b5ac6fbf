"""`profiles/<name>.toml`: a class of devices and the budget that a model must meet there."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from edgeprune.cpu_list import checked_cpus, parse_cpus
from edgeprune.schema.base import FileModel
from edgeprune.zero_patterns import PATTERN, checked_pattern

Positive = Annotated[float, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$", max_length=64)]


class Hardware(FileModel):
    """Facts of the device class, from its data sheet. `device check` compares them with the real device."""

    arch: Literal["x86_64", "aarch64", "armv7l", "any"]
    """What `uname -m` prints there."""
    cores: Annotated[int, Field(gt=0)]
    """CPU cores that the model may use."""
    memory_mb: Annotated[int, Field(gt=0)] | None = None
    """RAM of the device, in MB of 1,000,000 bytes."""
    clock_mhz: Annotated[int, Field(gt=0)] | None = None
    """Highest CPU clock."""
    gpu: bool = False
    """Whether there is a GPU. It is not used yet; it is kept for the reader."""


class RuntimeSupport(FileModel):
    """What is declared for one runtime on this device class. Claims are checked by measurement."""

    int8: bool = True
    """Whether INT8 models may be used."""
    sparse_kernels: tuple[Annotated[str, Field(pattern=PATTERN), AfterValidator(checked_pattern)], ...] = ()
    """Zero patterns that the runtime's kernels are said to skip: `unstructured`, N:M (`2:4`), blocks of output channels
    by inputs (`block4x1`). Empty: zeros buy no time."""


class Budget(FileModel):
    """What the model must meet on the device. At least one latency limit."""

    p50_ms: Positive | None = None
    """50th percentile of latency, at most."""
    p99_ms: Positive | None = None
    """99th percentile of latency, at most."""
    p50_speedup: Positive | None = None
    """p50 at most that of the fastest dense float32 model on the same device, divided by this."""
    p99_speedup: Positive | None = None
    """The same for p99."""
    artifact_mb: Positive | None = None
    """Size of the artifact's files, at most, in MB of 1,000,000 bytes."""
    memory_mb: Positive | None = None
    """Peak resident memory, at most, in MB of 1,000,000 bytes."""
    memory_of: Literal["process", "model"] = "process"
    """Whose: of the process that runs the model, or the model's own share (less the runtime's peak without one)."""

    @model_validator(mode="after")
    def _one_latency_limit(self) -> Self:
        if self.p50_ms is not None and self.p50_speedup is not None:
            raise ValueError("either p50_ms or p50_speedup, not both")
        if self.p99_ms is not None and self.p99_speedup is not None:
            raise ValueError("either p99_ms or p99_speedup, not both")
        if not any((self.p50_ms, self.p99_ms, self.p50_speedup, self.p99_speedup)):
            raise ValueError("at least one of p50_ms, p99_ms, p50_speedup, p99_speedup")
        if self.p50_ms and self.p99_ms and self.p50_ms > self.p99_ms:
            raise ValueError("p50_ms at or under p99_ms")
        return self


class MeasurementPolicy(FileModel):
    """How long to measure. The defaults suit most devices."""

    processes: Annotated[int, Field(ge=3, le=50)] = 5
    """Fresh processes at the first look; each further look doubles them. With fewer than 5 the bounds are wide."""
    min_runs: Annotated[int, Field(ge=300)] = 1000
    """Timed runs over all processes at the first look."""
    looks: Annotated[int, Field(ge=1, le=6)] = 3
    """How often to judge before the verdict INCONCLUSIVE; the error probability is split over the looks."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of a PASS and of a FAIL."""
    time_limit_s: Positive = 300.0
    """For one candidate."""
    max_disturbed: Annotated[int, Field(ge=0, le=1000)] = 12
    """Disturbed rounds that are measured again, with growing pauses, before the verdict INVALID."""
    percentiles: tuple[Annotated[float, Field(gt=0, lt=100)], ...] = (50.0, 90.0, 99.0, 99.9)
    """What is reported beside the verdict."""


class DeviceProfile(FileModel):
    """A class of devices: hardware facts, runtimes, budget."""

    schema_version: Literal[1] = Field(alias="schema")
    """Version of this file's format."""
    name: Name
    """Equal to the file's name without `.toml`."""
    description: str = ""
    """One line for people."""
    hardware: Hardware
    runtimes: Annotated[dict[Name, RuntimeSupport], Field(min_length=1)]
    """By runtime name: the runtimes that a model may be shipped for."""
    budget: Budget
    threads: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (1,)
    """Thread counts to try."""
    cpus: tuple[Annotated[str, AfterValidator(checked_cpus)], ...] = ()
    """Sets of cores to try, as Linux writes them: `["4-7", "0-3"]`; of each that has so many, the last as many as there
    are threads. Empty: each kind of core that the device tells apart; of cores that are all alike the last ones."""
    measurement: MeasurementPolicy = MeasurementPolicy()

    @model_validator(mode="after")
    def _threads_fit(self) -> Self:
        if max(self.threads) > self.hardware.cores:
            raise ValueError(f"threads at most hardware.cores = {self.hardware.cores}")
        largest = max((len(parse_cpus(text)) for text in self.cpus), default=self.hardware.cores)
        if max(self.threads) > largest:
            raise ValueError(f"a set in cpus with as many cores as the largest of threads: {max(self.threads)}")
        return self
