"""Quantiles of latency without assuming a distribution: one percentile rule and exact binomial bounds.

Two stages need the same arithmetic (benchmarking to know when to stop, gating to judge), so it lies under both.

The rule for a percentile, everywhere: nearest rank. With n samples in ascending order, 1-based, the q-quantile is
x_(ceil(q n)). It is always a latency that was measured, never an interpolation between two.

The rule for a bound: the number of samples at or under the true q-quantile is binomial (n, q), whatever the
distribution, as long as the samples are independent. So an order statistic bounds the quantile with a probability
that is known exactly for continuous distributions and not less than stated for others (timers have ticks). Runs of one
process are not independent: the binomial is taken at the effective number of samples, see `edgeprune.clustering`.

Sources: Conover 1999, "Practical Nonparametric Statistics", 3rd ed., section 3.2 (the quantile test and its
intervals); David & Nagaraja 2003, "Order Statistics", 3rd ed., section 7.1; the early stopping rule of MLPerf LoadGen,
Reddi et al. 2020, "MLPerf Inference Benchmark", arXiv:1911.02549, which certifies a tail latency in the same way.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np

from edgeprune.clustering import ProcessSamples, Samples, nearest_rank
from edgeprune.records.measurement import LatencySummary, Percentile
from edgeprune.records.verdict import Verdict
from edgeprune.units import ms_from_ns

PERCENTILE_RULE = "nearest rank on the pooled raw samples: x_(ceil(q n))"
BOUND_RULE = "exact binomial bound of an order statistic, at the effective number of samples over processes"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantileJudgement:
    """Whether a quantile is within a budget, and the numbers that say so.

    Attributes:
        value_ns: the nearest-rank quantile itself.
        lower_ns: one-sided lower bound at the confidence asked for; 0 when the samples are too few.
        upper_ns: one-sided upper bound at that confidence; infinite when the samples are too few.
    """

    verdict: Verdict
    value_ns: float
    lower_ns: float
    upper_ns: float

    @property
    def bound_ns(self) -> float:
        """The bound that decided: the lower one for FAIL, else the upper one."""
        return self.lower_ns if self.verdict is Verdict.FAIL else self.upper_ns


def quantile(samples: Samples, q: float) -> float:
    """The nearest-rank q-quantile of samples in any order.

    Args:
        samples: at least one.
        q: in (0, 1).
    """
    _check_share("q", q)
    if len(samples) == 0:
        raise ValueError("a quantile needs at least one sample")
    rank = nearest_rank(len(samples), q) - 1
    return float(np.partition(np.asarray(samples, dtype=np.float64), rank)[rank])


def upper_rank(samples: int, q: float, confidence: float, effective: float | None = None) -> int | None:
    """The smallest 1-based rank r with P(x_(r) >= the true q-quantile) >= confidence.

    x_(r) is under the quantile only if at most n - r samples are at or over it, so r is the smallest with
    P(Binomial(n, 1 - q) <= n - r) <= 1 - confidence. The incomplete beta function is that binomial's distribution,
    and goes on between whole numbers where the effective number of samples is none.

    Args:
        samples: n, how many there are.
        q: in (0, 1).
        confidence: in (0, 1).
        effective: how many independent ones they are worth; None for all.

    Returns:
        None where even the largest sample does not bound the quantile with that confidence.
    """
    over = _most_in_tail(samples, 1.0 - q, confidence, effective)
    return None if over is None else samples - over


def lower_rank(samples: int, q: float, confidence: float, effective: float | None = None) -> int | None:
    """The largest 1-based rank s with P(x_(s) <= the true q-quantile) >= confidence.

    x_(s) is over the quantile only if at most s - 1 samples are at or under it, so s is the largest with
    P(Binomial(n, q) <= s - 1) <= 1 - confidence. Arguments are those of `upper_rank`.

    Returns:
        None where even the smallest sample does not bound the quantile with that confidence.
    """
    under = _most_in_tail(samples, q, confidence, effective)
    return None if under is None else under + 1


def _most_in_tail(samples: int, share: float, confidence: float, effective: float | None) -> int | None:
    """The largest t with P(Binomial(n, share) <= t) <= 1 - confidence, t and n scaled to the effective number."""
    from scipy.special import betainc

    _check_share("q", share)
    _check_share("confidence", confidence)
    if samples <= 0:
        return None
    scale = 1.0 if effective is None else effective / samples

    def probability(tail: int) -> float:
        return float(betainc((samples - tail) * scale, tail * scale + 1.0, 1.0 - share))

    found = bisect.bisect_right(range(samples), 1.0 - confidence, key=probability)
    return found - 1 if found else None


def quantile_bounds(processes: ProcessSamples, q: float, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper confidence bounds of the true q-quantile of a latency.

    Args:
        processes: latencies, one group a process.
        q: in (0, 1).
        confidence: in (0, 1), of each bound by itself.

    Returns:
        Two order statistics; 0 (no latency is under it) and infinity where the samples are too few.
    """
    _check_share("q", q)
    _check_share("confidence", confidence)
    effective = processes.effective_samples(q, confidence)
    lower, upper = _order_statistics(processes, q, confidence, effective)
    margin = processes.unseen_factor(q, confidence)
    if margin is None:
        return lower, upper
    # Two bounds that each hold, of which the tighter counts: at the effective number of samples, or of all samples,
    # moved by as much as another process may differ. The first is the better one near the samples; the second does not
    # ask for 299 independent processes where the limit is far from all that was seen.
    pooled_lower, pooled_upper = _order_statistics(processes, q, confidence, None)
    return max(lower, pooled_lower / margin), min(upper, pooled_upper * margin)


def _order_statistics(
    processes: ProcessSamples, q: float, confidence: float, effective: float | None
) -> tuple[float, float]:
    lower = lower_rank(len(processes), q, confidence, effective)
    upper = upper_rank(len(processes), q, confidence, effective)
    return (
        0.0 if lower is None else float(processes.ordered[lower - 1]),
        math.inf if upper is None else float(processes.ordered[upper - 1]),
    )


def smallest_sample_count(q: float, confidence: float) -> int:
    """How many samples it takes until the largest one is an upper bound of the q-quantile.

    It is the smallest n with q^n <= 1 - confidence: 299 for p99 at 95 %, 459 at 99 %.
    """
    _check_share("q", q)
    _check_share("confidence", confidence)
    count = max(1, math.floor(math.log1p(-confidence) / math.log(q)) - 1)
    while upper_rank(count, q, confidence) is None:
        count += 1
    return count


def share_bounds(hits: int, trials: int, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper confidence bounds of a probability, exact for every share and every number of trials.

    Args:
        hits: of `trials`.
        trials: independent; 0 bounds nothing.
        confidence: of each bound by itself, in (0, 1).

    Source: Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26.
    """
    from scipy.special import betaincinv

    _check_share("confidence", confidence)
    error = 1.0 - confidence
    lower = float(betaincinv(hits, trials - hits + 1, error)) if hits else 0.0
    upper = float(betaincinv(hits + 1, trials - hits, confidence)) if hits < trials else 1.0
    return lower, upper


def mean_bounds(mean: float, error: float, examples: int, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper confidence bounds of a mean, near enough for means of some twenty values and more.

    Args:
        mean: of the values.
        error: its standard error over them.
        examples: how many values; fewer than two bound nothing.
        confidence: of each bound by itself, in (0, 1).

    Source: Student 1908, "The Probable Error of a Mean", Biometrika 6.
    """
    from scipy.special import stdtrit

    _check_share("confidence", confidence)
    if examples < 2:  # noqa: PLR2004
        return -math.inf, math.inf
    reach = float(stdtrit(examples - 1, confidence)) * error
    return mean - reach, mean + reach


def sign_test(losses: int, wins: int) -> float:
    """How likely at least so many of them are losses, were losses and wins equally likely; 1 where there is neither.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions", Psychometrika
    12, in its exact form.
    """
    from scipy.special import betainc

    return float(betainc(losses, wins + 1, 0.5)) if losses else 1.0


def percentile(processes: ProcessSamples, percent: float, confidence: float) -> Percentile:
    """A percentile with its two-sided bound: each side may be wrong with half of 1 - confidence.

    Args:
        processes: raw latencies in ns, one group a process.
        percent: in (0, 100).
        confidence: of both sides together.
    """
    one_sided = 1.0 - (1.0 - confidence) / 2.0
    q = percent / 100.0
    lower_ns, upper_ns = quantile_bounds(processes, q, one_sided)
    return Percentile(
        percent=percent,
        value_ms=ms_from_ns(quantile(processes.ordered, q)),
        lower_ms=ms_from_ns(lower_ns),
        upper_ms=ms_from_ns(upper_ns) if math.isfinite(upper_ns) else None,
        confidence=confidence,
        samples=len(processes),
        effective_samples=processes.effective_samples(q, one_sided),
    )


def summarise(processes: ProcessSamples) -> LatencySummary:
    """Least, mean, spread, and how much of the spread lies between processes.

    The two parts of the spread are the variance components of a one-way analysis of variance (moment estimates; the
    part between processes is 0 where the processes differ no more than their runs would make them).
    """
    groups, ordered = processes.processes, processes.ordered
    total, count = len(processes), len(groups)
    within = sum(float(np.square(g - g.mean()).sum()) for g in groups) / max(1, total - count)
    between = 0.0
    if count > 1:
        size = (total - sum(len(g) ** 2 for g in groups) / total) / (count - 1)
        square = sum(len(g) * (g.mean() - ordered.mean()) ** 2 for g in groups) / (count - 1)
        between = max(0.0, (square - within) / size)
    return LatencySummary(
        samples=total,
        processes=count,
        minimum_ms=ms_from_ns(float(ordered[0])),
        mean_ms=ms_from_ns(float(ordered.mean())),
        standard_deviation_ms=ms_from_ns(float(ordered.std(ddof=1))) if total > 1 else 0.0,
        within_process_ms=ms_from_ns(math.sqrt(within)),
        between_process_ms=ms_from_ns(math.sqrt(between)),
        process_p50_ms=tuple(ms_from_ns(quantile(g, 0.5)) for g in groups),
        correlation=processes.correlation,
        percentile_rule=PERCENTILE_RULE,
        bound_rule=BOUND_RULE,
    )


def confidence_per_look(confidence: float, looks: int) -> float:
    """The confidence of each of several looks at growing samples, so that the verdict keeps its own.

    The error 1 - confidence is split evenly over the planned looks. By Bonferroni's inequality the probability that
    any of them is wrong is then at most 1 - confidence, however the looks depend on one another.

    Source: Dunn 1961, "Multiple Comparisons Among Means", JASA 56.
    """
    return 1.0 - (1.0 - confidence) / max(1, looks)


def judge_quantile(processes: ProcessSamples, q: float, budget_ns: float, confidence: float) -> QuantileJudgement:
    """Whether the true q-quantile is at most the budget.

    PASS where the one-sided upper bound is at or under the budget, FAIL where the one-sided lower bound is over it,
    else INCONCLUSIVE. A PASS and a FAIL are each wrong with a probability of at most 1 - confidence.

    Args:
        processes: raw latencies in ns, one group a process.
        q: in (0, 1).
        budget_ns: the limit.
        confidence: of this one judgement; see `confidence_per_look`.
    """
    lower, upper = quantile_bounds(processes, q, confidence)
    verdict = Verdict.INCONCLUSIVE
    if upper <= budget_ns:
        verdict = Verdict.PASS
    elif lower > budget_ns:
        verdict = Verdict.FAIL
    return QuantileJudgement(verdict=verdict, value_ns=quantile(processes.ordered, q), lower_ns=lower, upper_ns=upper)


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name}: expected a number in (0, 1), got {value}")
