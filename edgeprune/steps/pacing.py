"""Running an artifact at a rate, or for a long time: `edgeprune bench --rate` and `--sustain`."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeprune.benchmarking.sampling import Ending, Look, Patience, Schedule, sample_until_certain
from edgeprune.benchmarking.validity import Watch
from edgeprune.clustering import ProcessSamples
from edgeprune.comparison import trend
from edgeprune.errors import InputError, MeasurementError
from edgeprune.events import Noted, Reporter, StageFinished, StageStarted
from edgeprune.gating.judge import judge, judge_latency
from edgeprune.records.measurement import Block, DisturbedBlock, Measurement
from edgeprune.records.paced import Pace, PacedBlock, PacedResult, Trend
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Evidence, Floors, Verdict
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.statistics import percentile
from edgeprune.steps.comparing import Placed, place
from edgeprune.steps.health import ready_session
from edgeprune.steps.measuring import Subject, Told
from edgeprune.steps.session import DeviceSession
from edgeprune.units import format_seconds

LONGEST_BUCKET_S = 60.0
_LEAST_BUCKETS = 6
_FULL = 0.9
_MOST_DISTURBED = 12


def bucket_seconds(seconds: float) -> float:
    """A minute, or a sixth of the whole where that is less."""
    return min(LONGEST_BUCKET_S, seconds / _LEAST_BUCKETS)


def pace_artifact(
    subject: Subject, device: DeviceSpec, policy: MeasurementPolicy, limits: Limits, reporter: Reporter, *,
    rate_hz: float,
) -> PacedResult:  # fmt: skip
    """Run at a rate, spread over fresh processes, and judge the latency from arrival by the limits.

    The number of frames is fixed before the first: `min_runs` over all processes.

    Raises:
        DeployError: the device could not be reached or could not take the files.
        MeasurementError: it does not run there, or every process was disturbed.
    """
    seconds = math.ceil(policy.min_runs / policy.processes) / rate_hz
    pace = Pace(rate_hz=rate_hz, seconds=seconds, bucket_s=seconds)
    evidence = Evidence(limits=limits, floors=Floors(), artifact_bytes=subject.artifact.size_bytes)
    taken: list[PacedBlock] = []
    watch = Watch(waits=True)
    with ready_session(device) as session:
        placed = place(session, subject)
        told = Told(reporter, f"{subject.rung.name} at {rate_hz:g} a second", policy.processes)

        def measure_block(_attempt: int) -> Block:
            taken.append(_paced_block(session, placed, pace))
            told.one_more(watch.disturbance(taken[-1].block))
            return taken[-1].block

        def assess(blocks: Mapping[str, tuple[Block, ...]], _confidence: float) -> Verdict:
            return judge_latency(evidence, _measurement(session, subject, policy, blocks[_PACED]), None)

        look = Look(processes_total=policy.processes, runs_per_process=math.ceil(policy.min_runs / policy.processes))
        schedule = Schedule(looks=(look,), confidence_per_look=policy.confidence)
        # The schedule, not the time limit, says how long a run at a low rate takes.
        time_limit_s = max(policy.time_limit_s, 3.0 * policy.processes * seconds)
        patience = Patience(time_limit_s=time_limit_s, max_retries=_MOST_DISTURBED)
        with session.leased(told.note), told:
            sampled = sample_until_certain(schedule, {_PACED: measure_block}, assess, watch.disturbance, patience)
        series = sampled.of(_PACED)
        measurement = replace(
            _measurement(session, subject, policy, series.blocks),
            disturbed=series.disturbed,
            looks=sampled.looks,
            gave_up=sampled.ending is Ending.DISTURBED,
        )
    blocks = tuple(p for p in taken if any(p.block is b for b in series.blocks))
    if not blocks:
        why = f": {series.disturbed[-1].reason}" if series.disturbed else ""
        raise MeasurementError(f"device {device.name}: no undisturbed process was measured{why}", kind="disturbed")
    return _result(subject, device, policy, pace, _Run(blocks, measurement, evidence))


def sustain_artifact(
    subject: Subject, device: DeviceSpec, policy: MeasurementPolicy, reporter: Reporter, *, seconds: float,
    rate_hz: float | None = None,
) -> PacedResult:  # fmt: skip
    """Run one process for a time, at a rate or flat out, and look for a trend of the p99 from stretch to stretch.

    A disturbance is told and not measured again: what lasts as long as the run belongs to it.

    Raises:
        InputError: no time at all.
        DeployError, MeasurementError: as for `pace_artifact`.
    """
    if seconds <= 0:
        raise InputError(f"sustain: expected a duration > 0 s, got {seconds:g} s")
    pace = Pace(rate_hz=rate_hz, seconds=seconds, bucket_s=bucket_seconds(seconds))
    subject_name = f"{subject.rung.name} for {format_seconds(seconds)}"
    started_s = time.monotonic()
    reporter.emit(StageStarted(stage="sustain", subject=subject_name))
    with ready_session(device) as session:
        placed = place(session, subject)
        with session.leased(lambda text: reporter.emit(Noted(message=text))):
            block = _paced_block(session, placed, pace)
        reason = Watch(waits=rate_hz is not None).disturbance(block.block)
        disturbed = (DisturbedBlock(block=block.block, reason=reason),) if reason else ()
        counted = () if reason else (block.block,)
        measurement = replace(_measurement(session, subject, policy, counted), disturbed=disturbed)
    reporter.emit(
        StageFinished(
            stage="sustain",
            subject=subject_name,
            summary=f"{block.served} runs",
            seconds=time.monotonic() - started_s,
        )
    )
    evidence = Evidence(limits=Limits(), floors=Floors(), artifact_bytes=subject.artifact.size_bytes)
    run = _Run((block,), measurement, evidence, sustained=True, disturbed=reason or "")
    return _result(subject, device, policy, pace, run)


def p99_trend(block: PacedBlock, bucket_s: float) -> Trend | None:
    """Of the p99 of the full buckets, from one to the next."""
    full = [b for b in block.buckets if b.seconds >= _FULL * bucket_s]
    return trend([b.start_s for b in full], [float(b.p99_ns) for b in full])


_PACED = "paced"


@dataclass(frozen=True, slots=True)
class _Run:
    blocks: tuple[PacedBlock, ...]
    measurement: Measurement
    evidence: Evidence
    sustained: bool = False
    disturbed: str = ""


def _paced_block(session: DeviceSession, placed: Placed, pace: Pace) -> PacedBlock:
    return session.paced_block(placed.subject.rung, placed.path, placed.samples_path, pace)


def _measurement(
    session: DeviceSession, subject: Subject, policy: MeasurementPolicy, blocks: tuple[Block, ...]
) -> Measurement:
    return Measurement(
        artifact_digest=subject.artifact.digest,
        runtime=subject.rung.runtime,
        precision=subject.rung.precision,
        threads=subject.rung.threads,
        cpus=subject.rung.cpus,
        device=session.facts,
        blocks=blocks,
        confidence=policy.confidence,
    )


def _result(subject: Subject, device: DeviceSpec, policy: MeasurementPolicy, pace: Pace, run: _Run) -> PacedResult:
    samples = ProcessSamples([b.block.samples_ns for b in run.blocks])
    wanted = sorted({50.0, 99.0, *policy.percentiles})
    return PacedResult(
        artifact=subject.artifact,
        device=device.name,
        pace=pace,
        sustained=run.sustained,
        blocks=run.blocks,
        measurement=run.measurement,
        percentiles=tuple(percentile(samples, p, policy.confidence) for p in wanted),
        trend=p99_trend(run.blocks[0], pace.bucket_s) if run.sustained else None,
        disturbed=run.disturbed,
        judgement=judge(replace(run.evidence, measurement=run.measurement)),
    )
