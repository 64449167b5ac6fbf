"""Quantiles of latency without assuming a distribution: one percentile rule and exact binomial bounds.

Two stages need the same arithmetic (benchmarking to know when to stop, gating to judge), so it lies under both.

The rule for a percentile, everywhere: nearest rank. With n samples in ascending order, 1-based, the q-quantile is
x_(ceil(q n)). It is always a latency that was measured, never an interpolation between two.

The rule for a bound: the number of samples at or under the true q-quantile is binomial (n, q), whatever the
distribution, as long as the samples are independent. So an order statistic bounds the quantile with a probability
that is known exactly for continuous distributions and not less than stated for others (timers have ticks).

Sources: Conover 1999, "Practical Nonparametric Statistics", 3rd ed., section 3.2 (the quantile test and its
intervals); David & Nagaraja 2003, "Order Statistics", 3rd ed., section 7.1; the early stopping rule of MLPerf LoadGen,
Reddi et al. 2020, "MLPerf Inference Benchmark", arXiv:1911.02549, which certifies a tail latency in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.records.measurement import Percentile
from edgeprune.records.verdict import Verdict
from edgeprune.units import ms_from_ns

Samples = Sequence[int] | Sequence[float] | NDArray[np.int64] | NDArray[np.float64]

# 0.07 * 100 is 7.000000000000001: without this slack the rank would be 8.
_RANK_SLACK = 1e-9


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


def nearest_rank(samples: int, q: float) -> int:
    """The 1-based rank ceil(q n) of the q-quantile among that many samples, at least 1."""
    return max(1, math.ceil(q * samples - _RANK_SLACK))


def quantile(samples: Samples, q: float) -> float:
    """The nearest-rank q-quantile of samples in any order.

    Args:
        samples: at least one.
        q: in (0, 1).
    """
    _check_share("q", q)
    ordered = _ordered(samples)
    return float(ordered[nearest_rank(len(ordered), q) - 1])


def upper_rank(samples: int, q: float, confidence: float) -> int | None:
    """The smallest 1-based rank r with P(x_(r) >= the true q-quantile) >= confidence.

    x_(r) is under the quantile only if r or more samples are, so r is the smallest with
    P(Binomial(n, q) <= r - 1) >= confidence.

    Returns:
        None where even the largest sample does not bound the quantile with that confidence.
    """
    from scipy.stats import binom

    _check_share("q", q)
    _check_share("confidence", confidence)
    if samples <= 0:
        return None
    rank = int(binom.ppf(confidence, samples, q)) + 1
    return rank if rank <= samples else None


def lower_rank(samples: int, q: float, confidence: float) -> int | None:
    """The largest 1-based rank s with P(x_(s) <= the true q-quantile) >= confidence.

    x_(s) is at or under the quantile if s or more samples are, so s is the largest with
    P(Binomial(n, q) <= s - 1) <= 1 - confidence.

    Returns:
        None where even the smallest sample does not bound the quantile with that confidence.
    """
    from scipy.stats import binom

    _check_share("q", q)
    _check_share("confidence", confidence)
    if samples <= 0:
        return None
    rank = int(binom.ppf(1.0 - confidence, samples, q))
    return rank if rank >= 1 else None


def quantile_upper_bound(ordered: Samples, q: float, confidence: float) -> float:
    """A one-sided upper confidence bound of the true q-quantile.

    Args:
        ordered: samples in ascending order.
        q: in (0, 1).
        confidence: in (0, 1).

    Returns:
        An order statistic, or infinity where the samples are too few.
    """
    rank = upper_rank(len(ordered), q, confidence)
    return math.inf if rank is None else float(ordered[rank - 1])


def quantile_lower_bound(ordered: Samples, q: float, confidence: float) -> float:
    """A one-sided lower confidence bound of the true q-quantile of a latency.

    Returns:
        An order statistic of the ascending samples, or 0 (no latency is under it) where they are too few.
    """
    rank = lower_rank(len(ordered), q, confidence)
    return 0.0 if rank is None else float(ordered[rank - 1])


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


def percentile(samples_ns: Samples, percent: float, confidence: float) -> Percentile:
    """A percentile with its two-sided bound: each side may be wrong with half of 1 - confidence.

    Args:
        samples_ns: raw latencies in any order, at least one.
        percent: in (0, 100).
        confidence: of both sides together.
    """
    ordered = _ordered(samples_ns)
    one_sided = 1.0 - (1.0 - confidence) / 2.0
    q = percent / 100.0
    upper_ns = quantile_upper_bound(ordered, q, one_sided)
    return Percentile(
        percent=percent,
        value_ms=ms_from_ns(quantile(ordered, q)),
        lower_ms=ms_from_ns(quantile_lower_bound(ordered, q, one_sided)),
        upper_ms=ms_from_ns(upper_ns) if math.isfinite(upper_ns) else None,
        confidence=confidence,
        samples=len(ordered),
    )


def confidence_per_look(confidence: float, looks: int) -> float:
    """The confidence of each of several looks at growing samples, so that the verdict keeps its own.

    The error 1 - confidence is split evenly over the planned looks. By Bonferroni's inequality the probability that
    any of them is wrong is then at most 1 - confidence, however the looks depend on one another.

    Source: Dunn 1961, "Multiple Comparisons Among Means", JASA 56.
    """
    return 1.0 - (1.0 - confidence) / max(1, looks)


def judge_quantile(samples_ns: Samples, q: float, budget_ns: float, confidence: float) -> QuantileJudgement:
    """Whether the true q-quantile is at most the budget.

    PASS where the one-sided upper bound is at or under the budget, FAIL where the one-sided lower bound is over it,
    else INCONCLUSIVE. A PASS and a FAIL are each wrong with a probability of at most 1 - confidence.

    Args:
        samples_ns: raw latencies in any order, at least one.
        q: in (0, 1).
        budget_ns: the limit.
        confidence: of this one judgement; see `confidence_per_look`.
    """
    ordered = _ordered(samples_ns)
    lower = quantile_lower_bound(ordered, q, confidence)
    upper = quantile_upper_bound(ordered, q, confidence)
    verdict = Verdict.INCONCLUSIVE
    if upper <= budget_ns:
        verdict = Verdict.PASS
    elif lower > budget_ns:
        verdict = Verdict.FAIL
    return QuantileJudgement(verdict=verdict, value_ns=quantile(ordered, q), lower_ns=lower, upper_ns=upper)


def _ordered(samples: Samples) -> NDArray[np.float64]:
    if len(samples) == 0:
        raise ValueError("a quantile needs at least one sample")
    return np.sort(np.asarray(samples, dtype=np.float64))


def _check_share(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name}: expected a number in (0, 1), got {value}")
