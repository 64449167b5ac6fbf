"""How often the sequential verdict is wrong: many synthetic campaigns with a known true quantile.

    python tools/simulate_verdicts.py --campaigns 10000

Each row has one kind of latency and one budget, as a multiple of the true quantile. At a multiple of 1 the truth is on
the edge, where both errors are largest: a PASS there is false for a model that is slower by nothing measurable, a FAIL
is false for one that is faster by as little. Every other row has one right answer. The bounds are those of the gates;
beside them stand, as "pooled", those that take all runs for independent, which is what other tools do.

In most kinds the runs of a process depend on one another: an offset of each process, autocorrelation, a share of slow
runs that differs between processes. The last kind, marked *, has no guarantee: one process in ten is slow as a whole,
and a campaign that has none of those cannot know of them. The reason of a PASS says how rare such a kind must be.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeprune.benchmarking.sampling import Schedule, plan_schedule
from edgeprune.clustering import ProcessSamples
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.statistics import lower_rank, quantile_bounds, upper_rank

Shape = tuple[int, int]
Draw = Callable[[np.random.Generator, Shape], NDArray[np.float64]]
QUANTILES = (0.5, 0.99)
BUDGETS = (0.97, 1.0, 1.03)
SPREAD = 0.05
QUICK_SHARE = 0.97
SLOW_PROCESSES = 0.1
BURST_SHARE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A kind of latency.

    Attributes:
        draw: (random, (processes, runs)) to the latencies of one campaign.
        quantile: q to the true q-quantile.
        independent: whether the runs are.
        guaranteed: whether the error is meant to be kept.
    """

    name: str
    draw: Draw
    quantile: Callable[[float], float]
    independent: bool = False
    guaranteed: bool = True


@dataclass(slots=True)
class Rule:
    """What a way to bound found, over campaigns of one kind, one quantile and one budget."""

    campaigns: int = 0
    passed: int = 0
    failed: int = 0
    samples: int = 0

    def add(self, verdict: int, samples: int) -> None:
        """Count a campaign: 1 PASS, -1 FAIL, 0 undecided."""
        self.campaigns += 1
        self.passed += verdict > 0
        self.failed += verdict < 0
        self.samples += samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Verdicts of one row: by the bounds of the gates, and by bounds that take all runs for independent."""

    latency: Latency
    q: float
    budget: float
    clustered: Rule = field(default_factory=Rule)
    pooled: Rule = field(default_factory=Rule)

    def false_pass(self, rule: Rule) -> float:
        """Share of PASS where the truth is over, or infinitely little over, the budget."""
        return rule.passed / rule.campaigns if self.budget <= 1 else 0.0

    def false_fail(self, rule: Rule) -> float:
        """Share of FAIL where the truth is at or under the budget."""
        return rule.failed / rule.campaigns if self.budget >= 1 else 0.0


def kinds() -> tuple[Latency, ...]:
    """The latencies that are simulated, each with its true quantiles."""
    return (
        Latency(name="lognormal", draw=_lognormal, quantile=_lognormal_quantile, independent=True),
        Latency(name="bimodal, 3 % slow", draw=_bimodal, quantile=_bimodal_quantile, independent=True),
        Latency(name="Pareto tail 1.5", draw=_pareto, quantile=lambda q: (1 - q) ** (-1 / 1.5), independent=True),
        _autocorrelated(0.5),
        _autocorrelated(0.9),
        *(_with_process_offset(ratio) for ratio in (0.1, 0.25, 0.5, 1.0)),
        Latency(name="bursts by process", draw=_bursts, quantile=_bursts_quantile),
        Latency(name="1 process in 10 slow *", draw=_slow_processes, quantile=_slow_quantile, guaranteed=False),
    )


def simulate(
    latency: Latency,
    schedule: Schedule,
    campaigns: int,
    seed: int,
    *,
    quantiles: Sequence[float] = QUANTILES,
    budgets: Sequence[float] = BUDGETS,
) -> tuple[Rates, ...]:
    """Run the schedule on that many campaigns; budgets are multiples of the true quantile, which they share."""
    random = np.random.default_rng(seed)
    rows = tuple(Rates(latency=latency, q=q, budget=budget) for q in quantiles for budget in budgets)
    for _ in range(campaigns):
        drawn = latency.draw(random, (schedule.looks[-1].processes_total, schedule.looks[-1].runs_per_process))
        looks = [_bounds(drawn[: look.processes_total], quantiles, schedule) for look in schedule.looks]
        for row in rows:
            limit = row.budget * latency.quantile(row.q)
            for rule, name in ((row.clustered, "clustered"), (row.pooled, "pooled")):
                rule.add(*_verdict([(size, bounds[row.q, name]) for size, bounds in looks], limit))
    return rows


def _bounds(
    drawn: NDArray[np.float64], quantiles: Sequence[float], schedule: Schedule
) -> tuple[int, dict[tuple[float, str], tuple[float, float]]]:
    """The number of runs, and (lower, upper) by (q, rule): budgets come and go, the bounds stay."""
    samples, confidence = ProcessSamples(list(drawn)), schedule.confidence_per_look
    found = {}
    for q in quantiles:
        found[q, "clustered"] = quantile_bounds(samples, q, confidence)
        lower, upper = lower_rank(len(samples), q, confidence), upper_rank(len(samples), q, confidence)
        found[q, "pooled"] = (
            0.0 if lower is None else float(samples.ordered[lower - 1]),
            math.inf if upper is None else float(samples.ordered[upper - 1]),
        )
    return len(samples), found


def _verdict(looks: Sequence[tuple[int, tuple[float, float]]], limit: float) -> tuple[int, int]:
    """(1 PASS, -1 FAIL, 0 undecided; runs taken) when every look is judged in turn until one decides."""
    size = 0
    for size, (lower, upper) in looks:
        if upper <= limit:
            return 1, size
        if lower > limit:
            return -1, size
    return 0, size


def _lognormal(random: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    return np.exp(SPREAD * random.standard_normal(shape))


def _lognormal_quantile(q: float) -> float:
    return math.exp(SPREAD * NormalDist().inv_cdf(q))


def _bimodal(random: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    drawn = random.random(shape)
    return np.where(drawn < QUICK_SHARE, 1.0 + 0.1 * drawn, 3.0 + 10.0 * (drawn - QUICK_SHARE))


def _bimodal_quantile(q: float) -> float:
    return 1.0 + 0.1 * q if q < QUICK_SHARE else 3.0 + 10.0 * (q - QUICK_SHARE)


def _pareto(random: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    return 1.0 + random.pareto(1.5, shape)


def _autocorrelated(ratio: float) -> Latency:
    """Lognormal, each run's logarithm correlated by `ratio` with that of the run before in the same process."""

    def draw(random: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        from scipy.signal import lfilter

        noise = random.standard_normal(shape)
        noise[:, 1:] *= math.sqrt(1.0 - ratio**2)
        return np.exp(SPREAD * np.asarray(lfilter([1.0], [1.0, -ratio], noise, axis=-1)))

    return Latency(name=f"autocorrelated {ratio:g}", draw=draw, quantile=_lognormal_quantile)


def _with_process_offset(ratio: float) -> Latency:
    """Lognormal, and each process is slower or faster as a whole, by `ratio` of the spread within a process."""

    def draw(random: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
        offset = ratio * random.standard_normal((shape[0], 1))
        return np.exp(SPREAD * (random.standard_normal(shape) + offset))

    total = SPREAD * math.hypot(1.0, ratio)
    return Latency(
        name=f"process offset {ratio:g} sd",
        draw=draw,
        quantile=lambda q: math.exp(total * NormalDist().inv_cdf(q)),
    )


def _bursts(random: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    """Each process has its own share of slow runs, 0 to 6 %; the process as a whole is no slower."""
    share = random.uniform(0.0, 2.0 * BURST_SHARE, (shape[0], 1))
    drawn = random.random(shape)
    quick, slow = 1.0 + 0.1 * random.random(shape), 3.0 + random.random(shape)
    return np.where(drawn < share, slow, quick)


def _bursts_quantile(q: float) -> float:
    quick_share = 1.0 - BURST_SHARE
    return 1.0 + 0.1 * q / quick_share if q < quick_share else 3.0 + (q - quick_share) / BURST_SHARE


def _slow_processes(random: np.random.Generator, shape: Shape) -> NDArray[np.float64]:
    slow = random.random((shape[0], 1)) < SLOW_PROCESSES
    return np.where(slow, 2.0, 1.0) * (1.0 + 0.1 * random.random(shape))


def _slow_quantile(q: float) -> float:
    quick = 1.0 - SLOW_PROCESSES
    return 1.0 + 0.1 * q / quick if q < quick else 2.0 * (1.0 + 0.1 * (q - quick) / SLOW_PROCESSES)


def rows(campaigns: int, seed: int, confidence: float) -> Iterator[Rates]:
    """Every kind at the edge, and 3 % off it on both sides, for p50 and p99 under the default policy."""
    schedule = plan_schedule(MeasurementPolicy(confidence=confidence), estimate_ns=5e6)
    for latency in kinds():
        yield from simulate(latency, schedule, campaigns, seed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=10_000, help="for each kind (default 10000)")
    parser.add_argument("--confidence", type=float, default=0.95, help="of the verdict (default 0.95)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    schedule = plan_schedule(MeasurementPolicy(confidence=arguments.confidence), estimate_ns=5e6)
    looks = ", ".join(f"{k.processes_total} x {k.runs_per_process}" for k in schedule.looks)
    print(
        f"{arguments.campaigns} campaigns a kind; looks at {looks} runs; {arguments.confidence:.0%} confidence "
        f"(error at most {1 - arguments.confidence:.3f}); seed {arguments.seed}"
    )
    print(f"{'':<37}{'by process':^43}|{'pooled':^27}")
    columns = f"{'false P':>9}{'false F':>9}{'runs':>7}"
    print(f"{'latency':<24}{'q':>5}{'budget':>8}{'PASS':>9}{'FAIL':>9}{columns} |{columns}", flush=True)
    for row in rows(arguments.campaigns, arguments.seed, arguments.confidence):
        found = row.clustered
        cells = [
            f"{row.false_pass(rule):>9.4f}{row.false_fail(rule):>9.4f}{rule.samples / rule.campaigns:>7.0f}"
            for rule in (found, row.pooled)
        ]
        shares = f"{found.passed / found.campaigns:>9.4f}{found.failed / found.campaigns:>9.4f}"
        print(f"{row.latency.name:<24}{row.q:>5}{row.budget:>8.2f}{shares}{cells[0]} |{cells[1]}", flush=True)
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
