"""Latencies of many artifacts in few trips: where what was disturbed does not agree, it is measured again."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.benchmarking.validity import Watch, disturbance
from edgeprune.errors import MeasurementError
from edgeprune.records.measurement import Block
from edgeprune.records.profiled import Profiled, ProfileRequest, Timing
from edgeprune.statistics import quantile
from edgeprune.steps.session import DeviceSession
from edgeprune.units import ms_from_ns

PROCESSES = 3
"""That time what a table is made of: in one of them a few artifacts lie in memory so that all rounds take longer.

Of 38 operators of 10 to 50 us in OpenVINO one took 5 us more in one process of six; one table of ResNet-20 of three had
a 3x3 convolution at 11.7 instead of 10.0 us, which was 3 % of a model with three of them (2026-11).
"""
SHORT_MS = 1.0
"""What takes longer is timed in one process: there such a surplus is less than a hundredth."""

LEAST_ROUNDS = 3
AGREEMENT = 1.01
"""Three rounds whose undisturbed runs differ by less than this factor found the same, whatever the evidence says."""

MOST_PACE = 1.15
"""Of a round's core beside the fastest of the session: what is measured at different paces cannot be compared.

Nobody reads it off the latencies: all rounds of an artifact may be slow alike, and agree. On a quiet core the probe
stays within 1.10 of its best (2 cores, 2026-11); in hosts that share theirs it goes to 2.
"""

_UNDISTURBED_SHARE = 0.1
_MORE_TRIPS = 2
_ENOUGH = 2
# A trip's file is kept on the device until it makes room for others: split what would be too large.
_TRIP_BYTES = 256_000_000


def time_all(
    session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob], *, processes: int = PROCESSES
) -> tuple[Timing | MeasurementError, ...]:
    """The latency of each artifact in the one in the middle of several processes, or why the device would not run it.

    What takes long is timed in one. An artifact that was left alone in fewer than two (in none, where one is asked for
    or it takes long) goes on two more trips at most: one with fewer than three undisturbed rounds whose fastest do not
    agree, or with fewer than three at the pace of the session's fastest core. Then the timing says so, and what the
    device has now is the pace from then on.

    Raises:
        MeasurementError: the device is busy or went away, or lacks the runtime.
    """
    taken: list[list[Profiled]] = [[] for _ in jobs]
    for trip in range(processes + _MORE_TRIPS):
        again = [n for n, found in enumerate(taken) if trip == 0 or _lacks(found, session.watch, processes)]
        if not again:
            break
        for number, one in zip(again, _trip(session, request, [jobs[n] for n in again]), strict=True):
            taken[number].append(one)
    timings = [_refusal(session, found[0]) or _typical(found, session.watch) for found in taken]
    _accept_pace(session, timings)
    return tuple(timings)


def _lacks(found: Sequence[Profiled], watch: Watch, processes: int) -> bool:
    if found[0].refused:
        return False
    quiet = [t for t in _timings(found, watch) if not t.disturbed]
    if quiet and quiet[0].latency_ms >= SHORT_MS:
        return False
    return len(found) < processes or len(quiet) < min(_ENOUGH, processes)


def _typical(processes: Sequence[Profiled], watch: Watch) -> Timing:
    timings = sorted(_timings(processes, watch), key=lambda t: t.latency_ms)
    quiet = [t for t in timings if not t.disturbed] or timings
    return quiet[(len(quiet) - 1) // 2]


def _timings(processes: Sequence[Profiled], watch: Watch) -> list[Timing]:
    """Of all but those that had no memory left for it, after the first had."""
    return [timing(p.blocks, watch) for p in processes if not p.refused]


def _refusal(session: DeviceSession, profiled: Profiled) -> MeasurementError | None:
    if not profiled.refused:
        return None
    return MeasurementError(f"device {session.spec.name}: {profiled.refused}", kind="bad_artifact")


def _accept_pace(session: DeviceSession, found: Sequence[Timing | MeasurementError]) -> None:
    """Where trips did not help, the fastest pace of earlier is not waited for any longer."""
    if any(isinstance(t, Timing) and t.disturbed for t in found):
        session.watch = Watch()


def _trip(session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]) -> list[Profiled]:
    found = _sent(session, request, jobs)
    for block in (b for profiled in found for b in profiled.blocks):
        session.watch.see(block)
    return found


def _sent(session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]) -> list[Profiled]:
    found: list[Profiled] = []
    part: list[ProfileJob] = []
    for job in jobs:
        if part and sum(j.artifact.size_bytes for j in (*part, job)) > _TRIP_BYTES:
            found += session.profile(request, part)
            part = []
        part.append(job)
    return [*found, *session.profile(request, part)] if part else found


def timing(blocks: Sequence[Block], watch: Watch | None = None) -> Timing:
    """The latency that the rounds of one artifact tell; of those at full pace, where there are three.

    A low decile of runs and the third fastest round, not medians: who shares the core, its caches or memory often
    leaves no trace in the evidence, and makes runs slower but never faster. So the disturbed rounds count too. By the
    medians of undisturbed rounds, three encoders of 24 were 5 to 15 % off; and with a neighbour on the core, two trips
    differed by 1.1 % (one standard deviation), by the deciles 0.2 % (ONNX Runtime, x86, 2026-11).
    """
    slowed = [watch.slowed(b, MOST_PACE) if watch else None for b in blocks]
    reasons = [disturbance(b) or slow for b, slow in zip(blocks, slowed, strict=True)]
    quiet = sum(reason is None for reason in reasons)
    fast = [b for b, slow in zip(blocks, slowed, strict=True) if slow is None]
    counted = fast if len(fast) >= LEAST_ROUNDS else blocks
    low = sorted(_ms(b, _UNDISTURBED_SHARE) for b in counted)
    agree = len(fast) >= LEAST_ROUNDS and low[LEAST_ROUNDS - 1] <= low[0] * AGREEMENT
    why = next((reason for reason in reasons if reason), "too few rounds")
    return Timing(
        latency_ms=low[:LEAST_ROUNDS][-1],
        p50_ms=min(_ms(b, 0.5) for b in counted),
        rounds=quiet,
        disturbed="" if quiet >= LEAST_ROUNDS or agree else why,
    )


def _ms(block: Block, share: float) -> float:
    return ms_from_ns(quantile(block.samples_ns, share))
