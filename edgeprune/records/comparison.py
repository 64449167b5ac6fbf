"""Two artifacts measured in turn, and what differences a device can resolve."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Measurement


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A percentile of the first over that of the second: under 1, the first is faster.

    Attributes:
        percent: such as 50.0.
        first_ms, second_ms: nearest rank on the pooled samples of each.
        lower, upper: of the bootstrap interval of the ratio.
        confidence: of that interval.
    """

    percent: float
    first_ms: float
    second_ms: float
    ratio: float
    lower: float
    upper: float
    confidence: float

    @property
    def differs(self) -> bool:
        """Whether the interval leaves out 1."""
        return self.lower > 1.0 or self.upper < 1.0

    @property
    def reach(self) -> float:
        """How far the interval's farther end lies from 1."""
        return max(abs(self.lower - 1.0), abs(self.upper - 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What campaigns of one artifact against itself showed for a percentile.

    Attributes:
        false_alarms: campaigns whose interval left out 1, though there was no difference.
        false_alarm_upper: the exact (Clopper-Pearson) 95 % upper bound of their share.
        smallest: the smallest relative difference that the device can resolve, such as 0.018: the nearest-rank 95th
            percentile, over the campaigns, of how far the interval's farther end lies from 1.
    """

    percent: float
    campaigns: int
    false_alarms: int
    false_alarm_upper: float
    smallest: float

    @property
    def false_alarm_rate(self) -> float:
        """Share of the campaigns."""
        return self.false_alarms / self.campaigns


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a device can resolve with a runtime.

    Attributes:
        fingerprint: of the device when it was calibrated: it holds for no other.
        rounds, runs: of each campaign: rounds, and timed runs a process.
        campaigns: the ratios that were found, by campaign.
        cpus: the cores that were asked for; empty for the last ones.
        taken_unix_s: by this host's clock.
    """

    device: str
    fingerprint: str
    runtime: str
    artifact_digest: str
    p50_ms: float
    rounds: int
    runs: int
    confidence: float
    resolutions: tuple[Resolution, ...]
    campaigns: tuple[tuple[Ratio, ...], ...]
    taken_unix_s: float
    schema: int = 1
    cpus: tuple[int, ...] = ()

    def resolution(self, percent: float) -> Resolution | None:
        """Of one percentile."""
        return next((r for r in self.resolutions if r.percent == percent), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareResult:
    """What `edgeprune.compare` returns.

    Attributes:
        first, second: the measurements, whose blocks pair up round by round.
        ratios: of p50 and p99, first over second.
        smallest: by percentile, the smallest difference that the device can resolve; None where it is not calibrated.
    """

    device: str
    first_artifact: Artifact
    second_artifact: Artifact
    first: Measurement
    second: Measurement
    ratios: tuple[Ratio, ...]
    smallest: tuple[tuple[float, float | None], ...]
    schema: int = 1
