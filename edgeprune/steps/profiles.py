"""Latencies of many artifacts in few trips: what was disturbed is left out, and measured again where little is left."""

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
_TRIPS = 3
# A trip's file is kept on the device until it makes room for others: split what would be too large.
_TRIP_BYTES = 256_000_000


def time_all(
    session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]
) -> tuple[Timing | MeasurementError, ...]:
    """The latency of each artifact, or why the device would not run it.

    Artifacts with fewer than three undisturbed rounds go on another trip, three trips in all; then the fastest rounds
    stand in, and the timing says so.

    Raises:
        MeasurementError: the device is busy or went away, or lacks the runtime.
    """
    found = dict(enumerate(_trip(session, request, jobs)))
    for _ in range(_TRIPS - 1):
        again = [n for n, profiled in found.items() if not profiled.refused and _settled(profiled).disturbed]
        if not again:
            break
        for number, more in zip(again, _trip(session, request, [jobs[n] for n in again]), strict=True):
            found[number] = replace(found[number], blocks=found[number].blocks + more.blocks)
    return tuple(
        MeasurementError(f"device {session.spec.name}: {p.refused}", kind="bad_artifact") if p.refused else _settled(p)
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


def _settled(profiled: Profiled) -> Timing:
    return timing(profiled.blocks)


def timing(blocks: Sequence[Block]) -> Timing:
    """The latency that the rounds of one artifact tell.

    The lower quartile over rounds, not their median: what shares the caches and the memory with this core leaves no
    trace in the evidence, and makes rounds slower but never faster. Of a quiet device's rounds both are the same.
    """
    reasons = [disturbance(b) for b in blocks]
    quiet = [_median_ms(b) for b, reason in zip(blocks, reasons, strict=True) if reason is None]
    if len(quiet) >= LEAST_ROUNDS:
        return Timing(latency_ms=quantile(quiet, 0.25), rounds=len(quiet))
    fastest = sorted(map(_median_ms, blocks))[:LEAST_ROUNDS]
    why = next((reason for reason in reasons if reason), "too few rounds")
    return Timing(latency_ms=quantile(fastest, 0.5), rounds=len(quiet), disturbed=why)


def _median_ms(block: Block) -> float:
    return ms_from_ns(quantile(block.samples_ns, 0.5))
