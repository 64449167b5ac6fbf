"""The certified measurement of an artifact, block by block in turn with the dense baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from edgeprune.benchmarking.sampling import Ending, Patience, plan_schedule, sample_until_certain
from edgeprune.benchmarking.validity import Watch
from edgeprune.clustering import ProcessSamples
from edgeprune.errors import MeasurementError
from edgeprune.events import Noted, Reporter, StageFinished, StageProgress, StageStarted
from edgeprune.gating.judge import judge_latency
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Block, Measurement, Percentile
from edgeprune.records.result import Candidate
from edgeprune.records.rung import Rung
from edgeprune.records.verdict import Evidence, Verdict
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.statistics import percentile, quantile
from edgeprune.steps.session import DeviceSession
from edgeprune.units import format_ms, ms_from_ns, ns_from_ms

_CANDIDATE = "candidate"
_BASELINE = "baseline"
_LEAST_BLOCKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An artifact to be timed and how."""

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
    subjects = {_CANDIDATE: candidate} if baseline is None else {_CANDIDATE: candidate, _BASELINE: baseline}
    estimate_ns = ns_from_ms(campaign.estimate_ms)
    schedule = plan_schedule(campaign.policy, estimate_ns)
    runs = schedule.looks[0].runs_per_process
    watch = Watch()
    told = Told(campaign.reporter, candidate.rung.name, schedule.looks[-1].processes_total * len(subjects))

    def assess(blocks: Mapping[str, tuple[Block, ...]], _confidence: float) -> Verdict:
        # The gates take the confidence of a look from the policy, as they will when the evidence is judged again.
        found = {role: _record(campaign, subjects[role], taken) for role, taken in blocks.items()}
        return judge_latency(campaign.evidence, found[_CANDIDATE], found.get(_BASELINE))

    def series(subject: Subject) -> Callable[[int], Block]:
        place = campaign.session.place(subject.folder, subject.artifact)

        def measure_block(_attempt: int) -> Block:
            block = campaign.session.block(subject.rung, place, campaign.samples_path, runs, estimate_ns)
            told.one_more(watch.disturbance(block))
            return block

        return measure_block

    patience = Patience(time_limit_s=campaign.policy.time_limit_s, max_retries=campaign.policy.max_disturbed)
    # Transfers come before the lease: others may measure meanwhile.
    measured = {role: series(s) for role, s in subjects.items()}
    with campaign.session.leased(told.note), told:
        sampled = sample_until_certain(schedule, measured, assess, watch.disturbance, patience)
    records = {
        role: replace(
            _record(campaign, subject, sampled.of(role).blocks),
            disturbed=sampled.of(role).disturbed,
            looks=sampled.looks,
            gave_up=sampled.ending is Ending.DISTURBED,
        )
        for role, subject in subjects.items()
    }
    return Measured(candidate=records[_CANDIDATE], baseline=records.get(_BASELINE))


def _record(campaign: Campaign, subject: Subject, blocks: tuple[Block, ...]) -> Measurement:
    return Measurement(
        artifact_digest=subject.artifact.digest,
        runtime=subject.rung.runtime,
        precision=subject.rung.precision,
        threads=subject.rung.threads,
        cpus=subject.rung.cpus,
        device=campaign.session.facts,
        blocks=blocks,
        planned_looks=campaign.policy.looks,
        confidence=campaign.policy.confidence,
    )


class Told:
    """The progress of a campaign; it may end before its total, when the verdict is certain early."""

    def __init__(self, reporter: Reporter, subject: str, total: int) -> None:
        self._reporter = reporter
        self._subject = subject
        self._total = total
        self._done = 0
        self._disturbed = 0
        self._started_s = time.monotonic()

    def __enter__(self) -> None:
        self._reporter.emit(
            StageStarted(stage="sample", subject=self._subject, total=self._total, unit="processes at most")
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        summary, seconds = f"{self._done} processes", time.monotonic() - self._started_s
        if self._disturbed:
            summary += f", and {self._disturbed} disturbed ones"
        self._reporter.emit(StageFinished(stage="sample", subject=self._subject, summary=summary, seconds=seconds))

    def note(self, text: str) -> None:
        """Something to know, such as for whom we wait."""
        self._reporter.emit(Noted(message=text))

    def one_more(self, disturbed: str | None) -> None:
        """A process ended; why it does not count, or None."""
        if disturbed:
            self._disturbed += 1
        else:
            self._done += 1
        detail = f"disturbed: {disturbed}" if disturbed else ""
        self._reporter.emit(StageProgress(stage="sample", subject=self._subject, done=self._done, detail=detail))


def percentiles_of(measurement: Measurement, policy: MeasurementPolicy) -> tuple[Percentile, ...]:
    """Those that the policy reports, and always p50 and p99; none where nothing valid was measured."""
    if not measurement.samples_ns:
        return ()
    wanted = sorted({50.0, 99.0, *policy.percentiles})
    samples = ProcessSamples(measurement.processes_ns)
    return tuple(percentile(samples, p, policy.confidence) for p in wanted)


def measured_in_turn(dense: Candidate, evidence: Evidence, policy: MeasurementPolicy) -> Candidate:
    """The dense candidate with the latencies that it was judged by: block by block in turn with the other."""
    if evidence.baseline is None or not evidence.baseline.blocks:
        return dense
    return replace(dense, measurement=evidence.baseline, percentiles=percentiles_of(evidence.baseline, policy))


def require_enough(measurement: Measurement, device: str) -> None:
    """A dense model that could not be measured is no baseline, and must not be kept as one.

    Raises:
        MeasurementError: fewer than three processes were undisturbed.
    """
    if len(measurement.blocks) < _LEAST_BLOCKS:
        why = f": {measurement.disturbed[-1].reason}" if measurement.disturbed else ""
        raise MeasurementError(f"device {device}: the dense model could not be measured{why}", kind="disturbed")


def latency_summary(measured: Measured) -> str:
    """p50, p99 and the number of runs, for the line that is shown."""
    samples = measured.candidate.samples_ns
    if not samples:
        return "no valid block"
    p50, p99 = (ms_from_ns(quantile(samples, q)) for q in (0.5, 0.99))
    return f"p50 {format_ms(p50)}, p99 {format_ms(p99)}, {len(samples)} runs"
