"""Runs at a fixed rate or for a fixed time, instead of a fixed number of runs."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Block, Measurement, Percentile
from edgeprune.records.verdict import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How one process shall run.

    Attributes:
        rate_hz: frames arrive so many times a second, whether or not the one before is done; None for one run
            straight after the other.
        seconds: for how long.
        bucket_s: latencies are summed up for each such stretch.
    """

    rate_hz: float | None
    seconds: float
    bucket_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One stretch of a run.

    Attributes:
        start_s: since the first arrival.
        seconds: its length; the last one may be shorter than the others.
        p50_ns, p99_ns, max_ns: nearest rank over all runs of the stretch.
        kept_every: every so many-th sample was sent and stored.
    """

    start_s: float
    seconds: float
    runs: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    kept_every: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedBlock:
    """What one fresh process did.

    Attributes:
        block: its samples count from the scheduled arrival where there is a rate.
        frames: that arrived.
        served: that were run; the others were given up 5 s after the last arrival, and their samples are the time
            that they had waited until then.
        missed: that were not done when the next one arrived.
        duration_ns: from the first arrival to the end.
    """

    block: Block
    frames: int
    served: int
    missed: int
    duration_ns: int
    buckets: tuple[Bucket, ...]

    @property
    def achieved_hz(self) -> float:
        """Frames served a second."""
        return self.served / (self.duration_ns / 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Whether a series rises or falls: Mann-Kendall's test, with Theil and Sen's slope.

    Attributes:
        points: of the series.
        tau: Kendall's rank correlation with time, in [-1, 1].
        p_value: two-sided, of no trend.
        slope_percent_per_minute: the median slope, in percent of the series' median.
    """

    points: int
    tau: float
    p_value: float
    slope_percent_per_minute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedResult:
    """What `edgeprune.bench_paced` returns.

    Attributes:
        blocks: one a process that counts; one in all where `sustained`.
        measurement: the same processes with the disturbed ones beside them.
        percentiles: over all stored samples.
        trend: of the buckets' p99; only where `sustained`, and None with fewer than five full buckets.
        disturbed: why a sustained run was disturbed, which is told and not measured again; empty where it was not.
        judgement: over the limits that were given; PASS without any gate when there were none.
    """

    artifact: Artifact
    device: str
    pace: Pace
    sustained: bool
    blocks: tuple[PacedBlock, ...]
    measurement: Measurement
    percentiles: tuple[Percentile, ...]
    trend: Trend | None
    disturbed: str
    judgement: Judgement
    schema: int = 1
