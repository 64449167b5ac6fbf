"""Latencies of many artifacts in few trips: where what was disturbed does not agree, it is measured again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from statistics import fmean, median

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

_BESIDE = 8
"""Artifacts that are timed beside one base: with more, the last ones run too long after it."""

_LYING_WELL = 1.08
"""Of an artifact in one process beside the fastest of them, at one pace: what takes more lies badly in memory there."""

_SURPLUS = 0.02
"""Of an artifact's latency, that its difference to its base may be off in one process by chance, where most is 0.01."""

_DISAGREED = "its processes do not agree"

_UNDISTURBED_SHARE = 0.1
_MORE_TRIPS = 2
_ENOUGH = 2
# A trip's file is kept on the device until it makes room for others: split what would be too large.
_TRIP_BYTES = 256_000_000


_Alone = tuple[ProfileJob]
_Beside = tuple[ProfileJob, ProfileJob]
_Found = tuple[Profiled, ...]
"""Of one process: of an artifact, and of its base where it has one."""


def time_all(
    session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]
) -> tuple[Timing | MeasurementError, ...]:
    """The latency of each artifact in one process, or why the device would not run it.

    An artifact that was not left alone goes on two more trips at most: one with fewer than three undisturbed rounds
    whose fastest do not agree, or with fewer than three at the pace of the session's fastest core. Then the timing says
    so, and what the device has now is the pace from then on.

    Raises:
        MeasurementError: the device is busy or went away, or lacks the runtime.
    """
    found = _timed(session, request, [(job,) for job in jobs], 1)
    return tuple(one if isinstance(one, MeasurementError) else one[0] for one in found)


def time_beside(
    session: DeviceSession, request: ProfileRequest, pairs: Sequence[_Beside]
) -> tuple[tuple[Timing, Timing] | MeasurementError, ...]:
    """What each artifact takes and its base beside it, in the mean of several processes that agree.

    A difference is always that of one process, where both are loaded at the same time and run soon after one another:
    between processes, and even between artifacts of one that are far apart, the same file differs by 1 %, which is as
    much as an operator of a small model takes. Four tables of 63 operators of 0.1 to 10 us in OpenVINO INT8 differed by
    0.11 us (one standard deviation; `tools/show_table_repeats.py`, 2026-11). The agent loads in another order each
    time: what a file's place in memory costs it would else be the same in all processes.

    What takes long is timed in one process. A pair for which fewer than two that were left alone agree goes on two more
    trips at most, as in `time_all`; then its timings say so.

    Args:
        session: on the device.
        request: runtime, threads and rounds.
        pairs: an artifact and its base; those of one base one after the other.

    Raises:
        MeasurementError: the device is busy or went away, or lacks the runtime.
    """
    return tuple(
        one if isinstance(one, MeasurementError) else (one[0], one[1])
        for one in _timed(session, request, pairs, PROCESSES)
    )


def _timed(
    session: DeviceSession, request: ProfileRequest, subjects: Sequence[_Alone | _Beside], processes: int
) -> list[tuple[Timing, ...] | MeasurementError]:
    taken: list[list[_Found]] = [[] for _ in subjects]
    for trip in range(processes + _MORE_TRIPS):
        again = [n for n, found in enumerate(taken) if trip == 0 or _lacks(found, session.watch, processes)]
        if not again:
            break
        for number, one in zip(again, _trip(session, request, [subjects[n] for n in again]), strict=True):
            taken[number].append(one)
    timings = [_refusal(session, found[0]) or _typical(found, session.watch, processes) for found in taken]
    _accept_pace(session, timings)
    return timings


def _lacks(found: Sequence[_Found], watch: Watch, processes: int) -> bool:
    if any(profiled.refused for profiled in found[0]):
        return False
    quiet = [timings for timings in _timings(found, watch) if not _disturbed(timings)]
    if quiet and quiet[0][0].latency_ms >= SHORT_MS:
        return False
    return len(found) < processes or len(_agreeing(quiet)) < min(_ENOUGH, processes)


def _typical(found: Sequence[_Found], watch: Watch, processes: int) -> tuple[Timing, ...]:
    timings = _timings(found, watch)
    quiet = [of_one for of_one in timings if not _disturbed(of_one)] or timings
    typical = tuple(_mean(of_one) for of_one in zip(*(_agreeing(quiet) or quiet), strict=True))
    if _disturbed(typical) or not _lacks(found, watch, processes):
        return typical
    why = next((t.disturbed for of_one in timings for t in of_one if t.disturbed and len(quiet) < _ENOUGH), _DISAGREED)
    return tuple(replace(timing, disturbed=why) for timing in typical)


def _agreeing(processes: Sequence[tuple[Timing, ...]]) -> list[tuple[Timing, ...]]:
    """Those in which nothing lies badly in memory and whose difference is near the middle one, all at one pace."""
    at_pace = [_paced(found, min(slow, default=1.0)) for found, slow in zip(processes, _slow(processes), strict=True)]
    well = [f for f, slow in zip(at_pace, _slow(at_pace), strict=True) if max(slow) <= _LYING_WELL]
    counted = well or at_pace
    if not counted:
        return []
    middle_ms = median(_surplus_ms(found) for found in counted)
    return [found for found in counted if abs(_surplus_ms(found) - middle_ms) <= _SURPLUS * found[0].latency_ms]


def _slow(processes: Sequence[tuple[Timing, ...]]) -> list[list[float]]:
    """Of each process, how many times each artifact takes what it does in its fastest one."""
    least = [min(timing.latency_ms for timing in of_one) for of_one in zip(*processes, strict=True)]
    return [[t.latency_ms / ms for t, ms in zip(found, least, strict=True)] for found in processes]


def _paced(found: tuple[Timing, ...], pace: float) -> tuple[Timing, ...]:
    """As if the core had been as fast as in the fastest process: what slows both alike is no place in memory.

    Of an artifact alone nobody can tell.
    """
    if len(found) == 1:
        return found
    return tuple(replace(t, latency_ms=t.latency_ms / pace, p50_ms=t.p50_ms / pace) for t in found)


def _surplus_ms(found: Sequence[Timing]) -> float:
    return found[0].latency_ms - sum(base.latency_ms for base in found[1:])


def _mean(timings: Sequence[Timing]) -> Timing:
    return Timing(
        latency_ms=fmean(timing.latency_ms for timing in timings),
        p50_ms=fmean(timing.p50_ms for timing in timings),
        rounds=min(timing.rounds for timing in timings),
        disturbed=next((timing.disturbed for timing in timings if timing.disturbed), ""),
    )


def _timings(processes: Sequence[_Found], watch: Watch) -> list[tuple[Timing, ...]]:
    """Of all but those that had no memory left for it, after the first had."""
    ran = [found for found in processes if not any(profiled.refused for profiled in found)]
    return [tuple(timing(profiled.blocks, watch) for profiled in found) for found in ran]


def _disturbed(timings: Sequence[Timing]) -> bool:
    return any(timing.disturbed for timing in timings)


def _refusal(session: DeviceSession, found: _Found) -> MeasurementError | None:
    refused = next((profiled.refused for profiled in found if profiled.refused), "")
    return MeasurementError(f"device {session.spec.name}: {refused}", kind="bad_artifact") if refused else None


def _accept_pace(session: DeviceSession, found: Sequence[tuple[Timing, ...] | MeasurementError]) -> None:
    """Where trips did not help, the fastest pace of earlier is not waited for any longer."""
    timings = (timing for one in found if not isinstance(one, MeasurementError) for timing in one)
    if any(timing.disturbed not in {"", _DISAGREED} for timing in timings):
        session.watch = Watch()


def _trip(session: DeviceSession, request: ProfileRequest, subjects: Sequence[_Alone | _Beside]) -> list[_Found]:
    """What one process found of each."""
    jobs: list[ProfileJob] = []
    places: list[tuple[int, ...]] = []
    for base, alike in groupby(subjects, key=lambda subject: subject[1:]):
        for beside in _in_parts(list(alike)):
            at = tuple(range(len(jobs), len(jobs) + len(base)))
            jobs += base
            for subject in beside:
                places.append((len(jobs), *at))
                jobs.append(replace(subject[0], follows=bool(base)))
    found = _sent(session, request, jobs)
    for block in (b for profiled in found for b in profiled.blocks):
        session.watch.see(block)
    return [tuple(found[number] for number in place) for place in places]


def _in_parts(subjects: Sequence[_Alone | _Beside]) -> Iterator[Sequence[_Alone | _Beside]]:
    for first in range(0, len(subjects), _BESIDE):
        yield subjects[first : first + _BESIDE]


def _sent(session: DeviceSession, request: ProfileRequest, jobs: Sequence[ProfileJob]) -> list[Profiled]:
    found: list[Profiled] = []
    part: list[ProfileJob] = []
    for job in jobs:
        if part and not job.follows and sum(j.artifact.size_bytes for j in (*part, job)) > _TRIP_BYTES:
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
