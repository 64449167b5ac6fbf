"""Raw latency samples and the evidence that the run was valid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from edgeprune.records.cores import Core
from edgeprune.records.rung import Precision

# The facts that a fingerprint is made of, in its order.
_DECISIVE = ("machine", "kernel", "cpu_model", "cpu_flags", "cores", "topology", "python", "runtimes")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """What the agent found on the device.

    Attributes:
        runtimes: (name, version) of each runtime that can be imported there.
        disk_free_bytes: on the file system of the agent's work folder.
        boot_id: changes when the device restarts; empty where unreadable.
        topology: the physical cores that a process may use.
    """

    machine: str
    system: str
    kernel: str
    cpu_model: str
    cpu_flags: tuple[str, ...]
    cores: int
    memory_bytes: int
    disk_free_bytes: int
    python: str
    numpy: str
    runtimes: tuple[tuple[str, str], ...]
    boot_id: str = ""
    topology: tuple[Core, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Identity of what decides latency there: processor, kernel, cores, runtimes. Not disk space or uptime."""
        return hashlib.sha256(repr(tuple(getattr(self, name) for name in _DECISIVE)).encode()).hexdigest()

    def differing(self, other: DeviceFacts) -> tuple[str, ...]:
        """The names of the facts by which two fingerprints differ; none where they are equal.

        Evidence from before the topology was told says nothing about it.
        """
        told = [name for name in _DECISIVE if name != "topology" or (self.topology and other.topology)]
        return tuple(name for name in told if getattr(self, name) != getattr(other, name))

    def runtime_version(self, name: str) -> str | None:
        """The version of a runtime there, or None where it is missing."""
        return dict(self.runtimes).get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """What one agent process shall time.

    Attributes:
        runs: timed runs, after the warm-up.
        fill_s, max_runs: more of them, until they take about so long, but at most so many; 0 for none more.
        max_s: fewer of them where they would take longer, but at least 20; 0 for no limit.
        warmup_min_runs, warmup_max_runs: the warm-up ends between these, when the latency is steady.
        warmup_max_s: and after this many seconds at the latest.
        cpus: the cores to pin to; empty lets the agent take the last `threads` cores that it may use.
    """

    runtime: str
    precision: Precision
    threads: int
    runs: int
    fill_s: float = 0.0
    max_runs: int = 0
    max_s: float = 0.0
    warmup_min_runs: int = 20
    warmup_max_runs: int = 2000
    warmup_max_s: float = 5.0
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What one fresh process measured.

    Attributes:
        samples_ns: latency of each timed run, in the order taken: set the input, run, read the output.
        warmup_runs: runs thrown away before.
        warmup_steady: whether the steadiness test ended the warm-up (else its limit did).
        warmup_ns: how long the runs thrown away took in all.
        load_ns: reading and compiling the artifact, without importing the runtime.
        peak_load_bytes: VmHWM after loading, before the first run.
        peak_run_bytes: the peak from then on; 0 from an agent that did not tell.
        peak_run_by: what told it: "high-water mark" (set back after loading, or risen since), or "resident at the end"
            where the mark cannot be set back and did not rise.
        peak_bytes: the larger of the two peaks.
        pss_bytes: proportional set size at the end: shared pages count by share; None where unreadable.
        base_bytes: VmHWM after importing the runtime, before loading the artifact.
        voluntary_switches, involuntary_switches: of the process during the timed runs.
        minor_faults, major_faults: pages mapped without and with reading from disk, likewise.
        cpu_ns, wall_ns: of the process during the timed runs.
        steal_ticks, other_ticks: on the pinned cores during the timed runs, in 1/100 s: stolen by the hypervisor;
            used by anybody else than this process.
        cpus: the cores that the process was pinned to.
        started_unix_s: when the timed runs began, by the device's clock.
        load_average: over the minute before the timed runs.
        probe_before_ns, probe_after_ns: best time of a fixed piece of integer work, before the warm-up and after the
            timed runs: how fast the core itself was.
        clock_mhz_before, clock_mhz_after: of the slowest pinned core.
        temperature_c_before, temperature_c_after: of the hottest thermal zone.
        throttle_events: times that the pinned cores were throttled during the timed runs.
        clock_source: what the kernel tells the time by, such as tsc.

    What the device does not tell, or evidence from before a field existed does not hold, is None or empty.
    """

    samples_ns: tuple[int, ...]
    warmup_runs: int
    warmup_steady: bool
    load_ns: int
    base_bytes: int
    peak_load_bytes: int
    peak_bytes: int
    voluntary_switches: int
    involuntary_switches: int
    major_faults: int
    cpu_ns: int
    wall_ns: int
    steal_ticks: int
    other_ticks: int
    cpus: tuple[int, ...]
    started_unix_s: float
    peak_run_bytes: int = 0
    peak_run_by: str = ""
    pss_bytes: int | None = None
    warmup_ns: int | None = None
    minor_faults: int | None = None
    load_average: float | None = None
    probe_before_ns: int | None = None
    probe_after_ns: int | None = None
    clock_mhz_before: float | None = None
    clock_mhz_after: float | None = None
    temperature_c_before: float | None = None
    temperature_c_after: float | None = None
    throttle_events: int | None = None
    clock_source: str = ""

    @property
    def model_bytes(self) -> int:
        """The model's own share of the peak: less the runtime's peak before anything was loaded."""
        return max(0, self.peak_bytes - self.base_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryProof:
    """Whether the artifact ran under a memory limit that the device imposed.

    Attributes:
        of: what the limit is on: the whole process, or the model's own share of it.
        how: `cgroup v2`, `cgroup v1` or `RLIMIT_DATA`; empty where the device has no way to limit.
        survived: it loaded and ran.
        reason: what ended it, or why it could not be limited; empty where it survived.
    """

    limit_bytes: int
    of: Literal["process", "model"]
    how: str
    survived: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisturbedBlock:
    """A block that was measured and not counted, with the reason."""

    block: Block
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """All blocks of one artifact on one device.

    Attributes:
        artifact_digest: of the artifact that was measured.
        cpus: the cores that were asked for; empty for the last ones.
        blocks: the valid ones, one a process; percentiles are taken over their pooled samples.
        disturbed: the ones that were not counted.
        looks: how many times the samples were judged while sampling went on (the confidence is split over the looks
            of the policy, so that peeking costs nothing).
        planned_looks: how many looks the policy allowed.
        confidence: of the verdict as a whole, such as 0.95.
        gave_up: whether sampling ended because the device stayed disturbed.
    """

    artifact_digest: str
    runtime: str
    precision: Precision
    threads: int
    device: DeviceFacts
    blocks: tuple[Block, ...]
    disturbed: tuple[DisturbedBlock, ...] = ()
    looks: int = 1
    planned_looks: int = 1
    confidence: float = 0.95
    gave_up: bool = False
    cpus: tuple[int, ...] = ()

    @property
    def processes_ns(self) -> tuple[tuple[int, ...], ...]:
        """The raw samples of the valid blocks, a tuple for each process."""
        return tuple(b.samples_ns for b in self.blocks)

    @property
    def samples_ns(self) -> tuple[int, ...]:
        """The pooled raw samples of the valid blocks."""
        return tuple(s for b in self.blocks for s in b.samples_ns)

    @property
    def peak_bytes(self) -> int:
        """Largest peak resident memory over the valid blocks."""
        return max((b.peak_bytes for b in self.blocks), default=0)

    @property
    def all_blocks(self) -> tuple[Block, ...]:
        """The disturbed ones too: a busy neighbour does not change a process's own memory."""
        return (*self.blocks, *(d.block for d in self.disturbed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """A percentile of latency with a two-sided distribution-free confidence bound, in milliseconds.

    Where the samples are too few to bound it, `lower_ms` is 0 and `upper_ms` None (JSON knows no infinity).

    Attributes:
        samples: how many runs there are.
        effective_samples: how many independent ones they are worth, from how much the processes differ.
    """

    percent: float
    value_ms: float
    lower_ms: float
    upper_ms: float | None
    confidence: float
    samples: int
    effective_samples: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Latency in plain numbers, in milliseconds, and the rules that the percentiles beside it follow.

    Attributes:
        standard_deviation_ms: over all runs.
        within_process_ms, between_process_ms: standard deviations of the runs of one process, and of what a process as
            a whole adds to each of its runs.
        process_p50_ms: the median of each process, in the order measured.
        correlation: of two runs of one process, from ranks, so that outliers do not drown it.
    """

    samples: int
    processes: int
    minimum_ms: float
    mean_ms: float
    standard_deviation_ms: float
    within_process_ms: float
    between_process_ms: float
    process_p50_ms: tuple[float, ...]
    correlation: float
    percentile_rule: str
    bound_rule: str
