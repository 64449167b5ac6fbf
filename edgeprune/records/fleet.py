"""One artifact on several devices at once, and what that says of all such devices."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Percentile
from edgeprune.records.result import BenchResult
from edgeprune.records.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDevice:
    """What was found on one device of a fleet.

    Attributes:
        profile: as the device's file names it.
        verdict: of this device by itself; INVALID where it was disturbed or could not be measured at all.
        sure_fail: whether it is FAIL also at the confidence that is left to each of several devices.
        error: why it could not be measured; empty where it was.
        error_exit_code: what `bench` would exit with on this device alone; None without an error.
        machine: what names the box while it runs: equal for two entries of one box; empty where unknown.
        p50, p99: with two-sided bounds; None where no valid block was measured.
        processes, disturbed: blocks that count, and those that were disturbed and do not.
        outlier: how many times as slow as the fleet's median device; None where it is like the others.
        result: all of it, raw samples included; None after an error.
    """

    device: str
    profile: str
    verdict: Verdict
    sure_fail: bool = False
    error: str = ""
    error_exit_code: int | None = None
    machine: str = ""
    p50: Percentile | None = None
    p99: Percentile | None = None
    processes: int = 0
    disturbed: int = 0
    outlier: float | None = None
    result: BenchResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDemand:
    """What is asked of a fleet, fixed before it is measured.

    Attributes:
        share: of all such devices that must meet the limits, in (0, 1); None asks it of every device measured.
        confidence: of the fleet's verdict.
        device_confidence: of each device's own PASS and FAIL.
        latency_limits: how many of p50 and p99 are judged on each device: so often a FAIL can be wrong there.
    """

    share: float | None
    confidence: float
    device_confidence: float
    latency_limits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetJudgement:
    """The verdict over a fleet.

    Attributes:
        boxes: independent ones: entries of one machine count once.
        passed, failed: boxes of which every entry did.
        share_lower, share_upper: one-sided bounds of the share of such devices that meet the limits, each at the
            demand's confidence; None where no share is asked for.
        needed: how many boxes it would have taken with as many as now that did not pass, for a PASS of the share;
            None where no share is asked for.
        reason: in words.
    """

    verdict: Verdict
    demand: FleetDemand
    boxes: int
    passed: int
    failed: int
    share_lower: float | None
    share_upper: float | None
    needed: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetResult:
    """What `edgeprune.api.bench_fleet` returns; devices are in the order in which they were asked for."""

    artifact: Artifact
    judgement: FleetJudgement
    devices: tuple[FleetDevice, ...]
    seconds: float
    schema: int = 1

    @property
    def verdict(self) -> Verdict:
        """Over all devices."""
        return self.judgement.verdict
