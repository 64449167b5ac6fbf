"""The ratio of two percentiles with its confidence, by a bootstrap over rounds; and the trend of a series.

A round is one fresh process of each artifact, measured one after the other. Runs of one process resemble one another,
so rounds are drawn, not runs; and both blocks of a round are drawn together, since they share the device's drift.

The interval is Efron's percentile interval, widened for few rounds as Hesterberg does: plain percentile intervals are
too narrow by about sqrt((n - 1) / n) times a normal in place of a t quantile, so the tail share a / 2 is replaced by
Phi(-sqrt(n / (n - 1)) * t(n - 1; 1 - a / 2)).

Sources: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13; Hesterberg 2015, "What
Teachers Should Know About the Bootstrap", The American Statistician 69(4), section on expanded percentile intervals;
Clopper & Pearson 1934, Biometrika 26; Mann 1945, Econometrica 13, and Kendall 1975, "Rank Correlation Methods"; Sen
1968, JASA 63.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeprune.clustering import nearest_rank
from edgeprune.records.comparison import Ratio, Resolution
from edgeprune.records.paced import Trend
from edgeprune.statistics import quantile
from edgeprune.units import ms_from_ns

Series = Sequence[Sequence[int]]
"""The samples of one artifact, a sequence a round."""

LEAST_ROUNDS = 5
RESAMPLES = 4000
SEED = 0
_CHUNK = 250
_LEAST_POINTS = 5
_SIGNIFICANCE = 0.05


def percentile_ratio(first: Series, second: Series, percent: float, confidence: float) -> Ratio:
    """The percentile of the first's pooled samples over that of the second's, with its bootstrap interval.

    Args:
        first: in ns, by round.
        second: the same; round k of one was measured beside round k of the other.
        percent: in (0, 100).
        confidence: of the two-sided interval.

    Raises:
        ValueError: fewer than five rounds, or not as many in both.
    """
    rounds = len(first)
    if rounds != len(second) or rounds < LEAST_ROUNDS:
        raise ValueError(f"expected the same number of rounds, at least {LEAST_ROUNDS}, got {rounds} and {len(second)}")
    q = percent / 100.0
    values = [quantile([s for block in series for s in block], q) for series in (first, second)]
    # The same seed for every call: the interval is a function of the samples.
    drawn = np.random.default_rng(SEED).integers(0, rounds, size=(RESAMPLES, rounds))
    weights = np.stack([np.bincount(row, minlength=rounds) for row in drawn])
    ratios = np.sort(_quantiles(first, weights, q) / _quantiles(second, weights, q))
    tail = _expanded_tail(rounds, confidence)
    return Ratio(
        percent=percent,
        first_ms=ms_from_ns(values[0]),
        second_ms=ms_from_ns(values[1]),
        ratio=values[0] / values[1],
        lower=float(ratios[max(0, math.floor(tail * RESAMPLES) - 1)]),
        upper=float(ratios[min(RESAMPLES, math.ceil((1.0 - tail) * RESAMPLES) + 1) - 1]),
        confidence=confidence,
    )


def _quantiles(series: Series, weights: NDArray[np.int64], q: float) -> NDArray[np.float64]:
    """The nearest-rank quantile of each resample; a weight says how often a round was drawn into it."""
    samples = np.concatenate([np.asarray(block, dtype=np.float64) for block in series])
    rounds = np.repeat(np.arange(len(series)), [len(block) for block in series])
    order = np.argsort(samples, kind="stable")
    samples, rounds = samples[order], rounds[order]
    found = []
    for start in range(0, len(weights), _CHUNK):
        running = np.cumsum(weights[start : start + _CHUNK][:, rounds], axis=1)
        ranks = np.array([nearest_rank(int(total), q) for total in running[:, -1]])
        found.append(samples[(running >= ranks[:, None]).argmax(axis=1)])
    return np.concatenate(found)


def _expanded_tail(rounds: int, confidence: float) -> float:
    from scipy.stats import norm, t

    quantile_t = float(t.ppf(1.0 - (1.0 - confidence) / 2.0, rounds - 1))
    return float(norm.cdf(-math.sqrt(rounds / (rounds - 1)) * quantile_t))


def resolution(ratios: Sequence[Ratio]) -> Resolution:
    """What campaigns of an artifact against itself say, all of one percentile.

    The smallest difference is the 95th percentile of the intervals' reach: an unchanged model then stays within that
    margin in 95 of 100 campaigns, and a margin finer than that would refuse it more often.
    """
    from scipy.stats import beta

    campaigns, alarms = len(ratios), sum(r.differs for r in ratios)
    upper = 1.0 if alarms == campaigns else float(beta.ppf(0.95, alarms + 1, campaigns - alarms))
    return Resolution(
        percent=ratios[0].percent,
        campaigns=campaigns,
        false_alarms=alarms,
        false_alarm_upper=upper,
        smallest=quantile([r.reach for r in ratios], 0.95),
    )


def trend(starts_s: Sequence[float], values: Sequence[float]) -> Trend | None:
    """Whether values rise or fall with time; None for fewer than five, which can never be significant at 5 %.

    Kendall's tau against time is Mann's test; it assumes independent values, so drifts that come and go within a few
    stretches make its p-value too small.
    """
    from scipy.stats import kendalltau, theilslopes

    if len(values) < _LEAST_POINTS:
        return None
    middle = float(np.median(values))
    if min(values) == max(values):
        return Trend(points=len(values), tau=0.0, p_value=1.0, slope_percent_per_minute=0.0)
    test = kendalltau(starts_s, values)
    slope = float(theilslopes(values, starts_s).slope)
    return Trend(
        points=len(values),
        tau=float(test.statistic),
        p_value=float(test.pvalue),
        slope_percent_per_minute=100.0 * slope * 60.0 / middle,
    )


def significant(found: Trend) -> bool:
    """At 5 %, two-sided."""
    return found.p_value < _SIGNIFICANCE
