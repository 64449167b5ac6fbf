"""How often the sequential verdict is wrong: many synthetic campaigns with a known true quantile.

    python tools/simulate_verdicts.py --campaigns 10000

Each row has one kind of latency and one budget, as a multiple of the true quantile. At a multiple of 1 the truth is on
the edge, where both errors are largest: a PASS there is false for a model that is slower by nothing measurable, a FAIL
is false for one that is faster by as little. Every other row has one right answer.

The first kinds have independent samples, for which the error is guaranteed. In the last ones every process has an
offset of its own: what it costs the guarantee is printed, not hidden. It is why a look needs several processes.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edgeprune.benchmarking.sampling import Schedule, plan_schedule
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.statistics import lower_rank, upper_rank

Draw = Callable[[np.random.Generator, tuple[int, int, int]], NDArray[np.float64]]
CHUNK = 500
SPREAD = 0.05
QUICK_SHARE = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A kind of latency.

    Attributes:
        draw: (random, (campaigns, processes, runs)) to latencies of that shape.
        quantile: q to the true q-quantile.
        independent: whether the samples are, so that the guarantee holds.
    """

    name: str
    draw: Draw
    quantile: Callable[[float], float]
    independent: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares of the campaigns by verdict, and the samples that they took on average."""

    latency: Latency
    q: float
    budget: float
    passed: float
    failed: float
    mean_samples: float

    @property
    def false_pass(self) -> float:
        """Share of PASS where the truth is over, or infinitely little over, the budget."""
        return self.passed if self.budget <= 1 else 0.0

    @property
    def false_fail(self) -> float:
        """Share of FAIL where the truth is at or under the budget."""
        return self.failed if self.budget >= 1 else 0.0


def kinds() -> tuple[Latency, ...]:
    """The latencies that are simulated, each with its true quantiles in closed form."""
    return (
        Latency(name="lognormal", draw=_lognormal, quantile=lambda q: math.exp(SPREAD * _normal_quantile(q))),
        Latency(name="bimodal, 3 % slow", draw=_bimodal, quantile=_bimodal_quantile),
        Latency(name="Pareto tail 1.5", draw=_pareto, quantile=lambda q: (1 - q) ** (-1 / 1.5)),
        _with_process_offset(0.1),
        _with_process_offset(0.5),
    )


def simulate(latency: Latency, q: float, budget: float, schedule: Schedule, campaigns: int, seed: int) -> Rates:
    """Run the schedule on that many campaigns; `budget` is a multiple of the true quantile."""
    random = np.random.default_rng(seed)
    limit = budget * latency.quantile(q)
    sizes = [min(CHUNK, campaigns - start) for start in range(0, campaigns, CHUNK)]
    passed = failed = samples = 0
    for size in sizes:
        shape = (size, schedule.looks[-1].processes_total, schedule.looks[-1].runs_per_process)
        # An order statistic is at or under the limit exactly if as many samples are: counting replaces sorting.
        under = np.cumsum((latency.draw(random, shape) <= limit).sum(axis=2), axis=1)
        chunk = _verdicts(under, q, schedule)
        passed, failed, samples = passed + chunk[0], failed + chunk[1], samples + chunk[2]
    return Rates(
        latency=latency,
        q=q,
        budget=budget,
        passed=passed / campaigns,
        failed=failed / campaigns,
        mean_samples=samples / campaigns,
    )


def _verdicts(under: NDArray[np.int64], q: float, schedule: Schedule) -> tuple[int, int, int]:
    """Campaigns that pass, that fail, and samples of all, from the counts of samples within the budget.

    Args:
        under: [campaigns, processes], samples at or under the budget up to and including each process.
        q: of the quantile that is judged.
        schedule: the looks.
    """
    undecided = np.ones(len(under), dtype=bool)
    passed = failed = samples = 0
    seen = 0
    for look in schedule.looks:
        count = look.processes_total * look.runs_per_process
        samples += int(undecided.sum()) * (count - seen)
        seen = count
        within = under[:, look.processes_total - 1]
        upper = upper_rank(count, q, schedule.confidence_per_look)
        lower = lower_rank(count, q, schedule.confidence_per_look)
        passes = undecided & (within >= (count + 1 if upper is None else upper))
        fails = undecided & ~passes & (within < (0 if lower is None else lower))
        passed, failed = passed + int(passes.sum()), failed + int(fails.sum())
        undecided &= ~(passes | fails)
    return passed, failed, samples


def _lognormal(random: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    return np.exp(SPREAD * random.standard_normal(shape))


def _bimodal(random: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    drawn = random.random(shape)
    return np.where(drawn < QUICK_SHARE, 1.0 + 0.1 * drawn, 3.0 + 10.0 * (drawn - QUICK_SHARE))


def _bimodal_quantile(q: float) -> float:
    return 1.0 + 0.1 * q if q < QUICK_SHARE else 3.0 + 10.0 * (q - QUICK_SHARE)


def _pareto(random: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    return 1.0 + random.pareto(1.5, shape)


def _with_process_offset(ratio: float) -> Latency:
    """Lognormal, and each process is slower or faster as a whole, by `ratio` of the spread within a process."""

    def draw(random: np.random.Generator, shape: tuple[int, int, int]) -> NDArray[np.float64]:
        offset = ratio * random.standard_normal((*shape[:2], 1))
        return np.exp(SPREAD * (random.standard_normal(shape) + offset))

    total = SPREAD * math.hypot(1.0, ratio)
    return Latency(
        name=f"process offset {ratio:g} sd",
        draw=draw,
        quantile=lambda q: math.exp(total * _normal_quantile(q)),
        independent=False,
    )


def _normal_quantile(q: float) -> float:
    return NormalDist().inv_cdf(q)


def rows(campaigns: int, seed: int) -> Iterator[Rates]:
    """Every kind at the edge, and 3 % off it on both sides, for p50 and p99 under the default policy."""
    schedule = plan_schedule(MeasurementPolicy(), estimate_ns=5e6)
    for latency in kinds():
        for q in (0.5, 0.99):
            for budget in (0.97, 1.0, 1.03):
                yield simulate(latency, q, budget, schedule, campaigns, seed)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--campaigns", type=int, default=10_000, help="for each row (default 10000)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    policy = MeasurementPolicy()
    print(
        f"{arguments.campaigns} campaigns a row, {policy.looks} looks, {policy.confidence:.0%} confidence "
        f"(error at most {1 - policy.confidence:.3f} where samples are independent), seed {arguments.seed}"
    )
    print(f"{'latency':<24}{'q':>5}{'budget':>8}{'PASS':>8}{'FAIL':>8}{'false P':>9}{'false F':>9}{'samples':>9}")
    for row in rows(arguments.campaigns, arguments.seed):
        print(
            f"{row.latency.name:<24}{row.q:>5}{row.budget:>8.2f}{row.passed:>8.4f}{row.failed:>8.4f}"
            f"{row.false_pass:>9.4f}{row.false_fail:>9.4f}{row.mean_samples:>9.0f}"
        )
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
