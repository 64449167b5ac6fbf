"""The certified measurement of an artifact, block by block in turn with the dense baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeprune.benchmarking.sampling import Patience, Sampled, SampledSeries, plan_schedule, sample_until_certain
from edgeprune.benchmarking.validity import disturbance
from edgeprune.events import Reporter, StageFinished, StageProgress, StageStarted
from edgeprune.gating.judge import judge_latency
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Block, Measurement
from edgeprune.records.rung import Rung
from edgeprune.records.verdict import Evidence, Verdict
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.steps.session import DeviceSession
from edgeprune.units import ns_from_ms

_MOST_DISTURBED = 12
"""Rounds measured again before the answer is INVALID; with the back-off that is about a minute of waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An artifact to be timed and how."""

    name: str
    rung: Rung
    artifact: Artifact
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A candidate's measurement and, where there was one, the baseline's of the same campaign."""

    candidate: Measurement
    baseline: Measurement | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What one certified measurement needs.

    Attributes:
        samples_path: of the inputs on the device.
        estimate_ms: latency to expect of the slowest subject, for the length of a block.
        evidence: limits, speed-ups and floors; the measurements are filled in here.
    """

    session: DeviceSession
    policy: MeasurementPolicy
    samples_path: str
    estimate_ms: float
    evidence: Evidence
    reporter: Reporter


def measure(campaign: Campaign, candidate: Subject, baseline: Subject | None = None) -> Measured:
    """Measure until the latency gates are certain, the looks are used up, or time is.

    Raises:
        MeasurementError: the device died or the artifact does not run there.
    """
    subjects = [s for s in (candidate, baseline) if s is not None]
    places = {s.name: campaign.session.place(s.folder, s.artifact) for s in subjects}
    schedule = plan_schedule(campaign.policy, ns_from_ms(campaign.estimate_ms))
    runs = schedule.looks[0].runs_per_process
    told = _Told(campaign.reporter, candidate.rung.name, schedule.looks[-1].processes_total * len(subjects))

    def assemble(subject: Subject, blocks: tuple[Block, ...], found: SampledSeries | None, looks: int) -> Measurement:
        return Measurement(
            artifact_digest=subject.artifact.digest,
            runtime=subject.rung.runtime,
            precision=subject.rung.precision,
            threads=subject.rung.threads,
            device=campaign.session.facts,
            blocks=blocks,
            disturbed=found.disturbed if found else (),
            looks=looks,
            planned_looks=campaign.policy.looks,
            confidence=campaign.policy.confidence,
        )

    def assess(blocks: Mapping[str, tuple[Block, ...]], _confidence: float) -> Verdict:
        taken = {s.name: assemble(s, blocks[s.name], None, 1) for s in subjects}
        return judge_latency(campaign.evidence, taken[candidate.name], taken.get(baseline.name) if baseline else None)

    def measure_block(subject: Subject) -> Block:
        block = campaign.session.block(subject.rung, places[subject.name], campaign.samples_path, runs)
        told.one_more(disturbance(block))
        return block

    series = {s.name: lambda _attempt, s=s: measure_block(s) for s in subjects}
    patience = Patience(time_limit_s=campaign.policy.time_limit_s, max_retries=_MOST_DISTURBED)
    with told:
        sampled: Sampled = sample_until_certain(schedule, series, assess, disturbance, patience)
    records = {s.name: assemble(s, sampled.of(s.name).blocks, sampled.of(s.name), sampled.looks) for s in subjects}
    return Measured(candidate=records[candidate.name], baseline=records[baseline.name] if baseline else None)


class _Told:
    """The progress of a campaign; it may end before its total, when the verdict is certain early."""

    def __init__(self, reporter: Reporter, subject: str, total: int) -> None:
        self._reporter = reporter
        self._subject = subject
        self._total = total
        self._done = 0

    def __enter__(self) -> None:
        self._reporter.emit(
            StageStarted(stage="sample", subject=self._subject, total=self._total, unit="processes at most")
        )

    def __exit__(self, *_: object) -> None:
        summary = f"{self._done} processes"
        self._reporter.emit(StageFinished(stage="sample", subject=self._subject, summary=summary))

    def one_more(self, disturbed: str | None) -> None:
        self._done += 1
        detail = f"disturbed: {disturbed}" if disturbed else ""
        self._reporter.emit(StageProgress(stage="sample", subject=self._subject, done=self._done, detail=detail))
