"""How long to measure: fresh processes in rounds, until the verdict is certain or time is up.

The schedule is fixed before the first sample: look k judges `processes * 2**k` processes, and each look gets an equal
part of the error that the policy allows. So it may be looked at several times, and stopped early, while the verdict
keeps its confidence.

Sources: what unplanned peeking costs: Armitage, McPherson & Rowe 1969, "Repeated Significance Tests on Accumulating
Data", JRSS A 132; the even split over a fixed number of looks is Bonferroni's inequality, see `confidence_per_look`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from edgeprune.records.measurement import Block, DisturbedBlock
from edgeprune.records.verdict import Verdict
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.statistics import confidence_per_look
from edgeprune.units import NS_PER_S

# A block of a fast model lasts at least about this long, so that the scheduler's and the kernel's periodic work
# (ticks, write-back, RCU) is in every block instead of in one of many.
BLOCK_S = 0.25
# More runs in one process add little: what differs between processes is not averaged away by them.
MOST_RUNS_PER_PROCESS = 1000
# A disturbance such as a package update lasts seconds: wait a little longer each time it is still there.
FIRST_BACK_OFF_S = 0.5
LONGEST_BACK_OFF_S = 8.0

MeasureBlock = Callable[[int], Block]
Assess = Callable[[Mapping[str, tuple[Block, ...]], float], Verdict]
IsDisturbed = Callable[[Block], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One planned judgement: after so many processes in all, each of so many timed runs."""

    processes_total: int
    runs_per_process: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """All looks, fixed before the first sample, and the confidence of each."""

    looks: tuple[Look, ...]
    confidence_per_look: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """When to give up.

    Attributes:
        time_limit_s: no round is begun after this long; a round in flight is let finish.
        max_retries: how many disturbed rounds are measured again, over the whole campaign.
        clock: seconds, monotonic.
        sleep: waits that many seconds before a disturbed round is measured again.
    """

    time_limit_s: float
    max_retries: int
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Ending(StrEnum):
    """Why sampling stopped."""

    CERTAIN = "certain"
    LOOKS = "looks"
    TIME = "time"
    DISTURBED = "disturbed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledSeries:
    """The blocks of one artifact, in the order of the rounds, and those that were not counted."""

    name: str
    blocks: tuple[Block, ...]
    disturbed: tuple[DisturbedBlock, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How a campaign ended.

    Attributes:
        series: in the order in which they were given.
        looks: judgements that were made.
        verdict: of the last judgement, which saw all blocks; INVALID when there was none to judge, or the device
            stayed disturbed.
    """

    series: tuple[SampledSeries, ...]
    looks: int
    verdict: Verdict
    ending: Ending

    def of(self, name: str) -> SampledSeries:
        """One series by its name."""
        return next(s for s in self.series if s.name == name)


def plan_schedule(policy: MeasurementPolicy, estimate_ns: float) -> Schedule:
    """The looks of a campaign.

    Args:
        policy: of the device profile.
        estimate_ns: latency of one run, known before the first look (from the rung's measured shape), so that the
            schedule does not depend on what it will find.
    """
    at_least = math.ceil(policy.min_runs / policy.processes)
    for_a_block = math.ceil(BLOCK_S * NS_PER_S / max(estimate_ns, 1.0))
    runs = max(at_least, min(for_a_block, MOST_RUNS_PER_PROCESS))
    looks = tuple(Look(processes_total=policy.processes * 2**k, runs_per_process=runs) for k in range(policy.looks))
    return Schedule(looks=looks, confidence_per_look=confidence_per_look(policy.confidence, policy.looks))


def sample_until_certain(
    schedule: Schedule,
    series: Mapping[str, MeasureBlock],
    assess: Assess,
    is_disturbed: IsDisturbed,
    patience: Patience,
) -> Sampled:
    """Measure in rounds until a look says PASS or FAIL, the looks are used up, or patience ends.

    A round measures one block of every series, in alternating order (AB, BA, AB, ...), so that a slow drift of the
    device falls on all of them alike. A round counts only if none of its blocks is disturbed. When patience ends
    between two looks, what was measured since is judged once, in place of the look that was not reached; but a device
    that stayed disturbed gets no verdict from the blocks that slipped through: INVALID.

    Args:
        schedule: see `plan_schedule`.
        series: by name, what measures one block in a fresh process; called with the number of the attempt.
        assess: judges the valid blocks by series, at the confidence given; INCONCLUSIVE or INVALID goes on.
        is_disturbed: why a block must not be counted, or None.
        patience: limits, clock and sleep.
    """
    campaign = _Campaign(series, is_disturbed, patience)
    looks, verdict, ending = 0, Verdict.INVALID, Ending.LOOKS
    for look in schedule.looks:
        counted = campaign.rounds
        stopped = campaign.measure_up_to(look.processes_total)
        if campaign.rounds > counted and stopped is not Ending.DISTURBED:
            looks += 1
            verdict = assess(campaign.blocks(), schedule.confidence_per_look)
        if verdict in {Verdict.PASS, Verdict.FAIL}:
            ending = Ending.CERTAIN
            break
        if stopped is not None:
            ending = stopped
            break
    if ending is Ending.DISTURBED:
        verdict = Verdict.INVALID
    return Sampled(series=campaign.sampled(), looks=looks, verdict=verdict, ending=ending)


@dataclass(slots=True)
class _Campaign:
    """The blocks so far. Its own so that the loop above reads as the schedule does."""

    series: Mapping[str, MeasureBlock]
    is_disturbed: IsDisturbed
    patience: Patience
    rounds: int = 0
    attempts: int = 0
    disturbed_in_a_row: int = 0
    started_s: float = field(init=False)
    valid: dict[str, list[Block]] = field(init=False)
    disturbed: dict[str, list[DisturbedBlock]] = field(init=False)

    def __post_init__(self) -> None:
        self.started_s = self.patience.clock()
        self.valid = {name: [] for name in self.series}
        self.disturbed = {name: [] for name in self.series}

    def measure_up_to(self, rounds: int) -> Ending | None:
        """Measure until so many rounds count; what stopped it early, or None."""
        while self.rounds < rounds:
            if self.patience.clock() - self.started_s >= self.patience.time_limit_s:
                return Ending.TIME
            if self._measure_round():
                self.disturbed_in_a_row = 0
            elif self.attempts - self.rounds > self.patience.max_retries:
                return Ending.DISTURBED
            else:
                self.patience.sleep(min(FIRST_BACK_OFF_S * 2**self.disturbed_in_a_row, LONGEST_BACK_OFF_S))
                self.disturbed_in_a_row += 1
        return None

    def _measure_round(self) -> bool:
        names = tuple(self.series)
        order = names if self.attempts % 2 == 0 else names[::-1]
        taken = {name: self.series[name](self.attempts) for name in order}
        self.attempts += 1
        reasons = {name: self.is_disturbed(block) for name, block in taken.items()}
        found = "; ".join(f"{name}: {reason}" for name, reason in reasons.items() if reason is not None)
        if not found:
            self.rounds += 1
            for name, block in taken.items():
                self.valid[name].append(block)
            return True
        for name, block in taken.items():
            reason = reasons[name] or f"the block measured beside it was disturbed: {found}"
            self.disturbed[name].append(DisturbedBlock(block=block, reason=reason))
        return False

    def blocks(self) -> dict[str, tuple[Block, ...]]:
        return {name: tuple(blocks) for name, blocks in self.valid.items()}

    def sampled(self) -> tuple[SampledSeries, ...]:
        return tuple(
            SampledSeries(name=name, blocks=tuple(self.valid[name]), disturbed=tuple(self.disturbed[name]))
            for name in self.series
        )
