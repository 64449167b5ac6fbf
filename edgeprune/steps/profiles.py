"""Latencies of many artifacts in few trips: where what was disturbed does not agree, it is measured again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.benchmarking.validity import disturbance
from edgeprune.errors import MeasurementError
from edgeprune.records.measurement import Block
from edgeprune.records.profiled import Profiled, ProfileRequest, Timing
from edgeprune.statistics import quantile
from edgeprune.steps.session import DeviceSession
from edgeprune.units import ms_from_ns

LEAST_ROUNDS = 3
AGREEMENT = 1.01
"""Three rounds whose undisturbed runs differ by less than this factor found the same, whatever the evidence says."""

_UNDISTURBED_SHARE = 0.1
_TRIPS = 3
# A trip's file is kept on the device until it makes room for others: split what would be too large.
_TRIP_BYTES = 256_000_000


def time_all(
    session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]
) -> tuple[Timing | MeasurementError, ...]:
    """The latency of each artifact, or why the device would not run it.

    Artifacts with fewer than three undisturbed rounds, whose fastest rounds do not agree, go on another trip, three
    trips in all; then the timing says so.

    Raises:
        MeasurementError: the device is busy or went away, or lacks the runtime.
    """
    found = dict(enumerate(_trip(session, request, jobs)))
    for _ in range(_TRIPS - 1):
        again = [n for n, profiled in found.items() if not profiled.refused and timing(profiled.blocks).disturbed]
        if not again:
            break
        for number, more in zip(again, _trip(session, request, [jobs[n] for n in again]), strict=True):
            found[number] = replace(found[number], blocks=found[number].blocks + more.blocks)
    return tuple(
        MeasurementError(f"device {session.spec.name}: {p.refused}", kind="bad_artifact")
        if p.refused
        else timing(p.blocks)
        for p in found.values()
    )


def _trip(session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]) -> list[Profiled]:
    found: list[Profiled] = []
    part: list[ProfileJob] = []
    for job in jobs:
        if part and sum(j.artifact.size_bytes for j in (*part, job)) > _TRIP_BYTES:
            found += session.profile(request, part)
            part = []
        part.append(job)
    return [*found, *session.profile(request, part)] if part else found


def timing(blocks: Sequence[Block]) -> Timing:
    """The latency that the rounds of one artifact tell.

    A low decile of runs and the third fastest round, not medians: who shares the core, its caches or memory often
    leaves no trace in the evidence, and makes runs slower but never faster. So the disturbed rounds count too. By the
    medians of undisturbed rounds, three encoders of 24 were 5 to 15 % off; and with a neighbour on the core, two trips
    differed by 1.1 % (one standard deviation), by the deciles 0.2 % (ONNX Runtime, x86, 2026-11).
    """
    reasons = [disturbance(b) for b in blocks]
    quiet = sum(reason is None for reason in reasons)
    low = sorted(_ms(b, _UNDISTURBED_SHARE) for b in blocks)
    agree = len(low) >= LEAST_ROUNDS and low[LEAST_ROUNDS - 1] <= low[0] * AGREEMENT
    why = next((reason for reason in reasons if reason), "too few rounds")
    return Timing(
        latency_ms=low[:LEAST_ROUNDS][-1],
        p50_ms=min(_ms(b, 0.5) for b in blocks),
        rounds=quiet,
        disturbed="" if quiet >= LEAST_ROUNDS or agree else why,
    )


def _ms(block: Block, share: float) -> float:
    return ms_from_ns(quantile(block.samples_ns, share))
