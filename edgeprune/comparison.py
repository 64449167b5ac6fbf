"""The ratio of two percentiles with its confidence, by a bootstrap over rounds; and the trend of a series.

A round is one fresh process of each artifact, measured one after the other. Runs of one process resemble one another,
so rounds are drawn, not runs; and both blocks of a round are drawn together, since they share the device's drift.

The standard error of the log ratio is that of the bootstrap, times sqrt(n / (n - 1)) for n rounds, since a bootstrap
over few clusters is too narrow by that factor; the interval is that many Student quantiles wide. Percentile intervals
of the bootstrap would be far too narrow with the three to ten processes that a campaign has.

Sources: Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8 (clusters); Hesterberg 2015,
"What Teachers Should Know About the Bootstrap", The American Statistician 69, section 4.1 (the narrowness bias and
the t quantile); Welch 1947, Biometrika 34; Clopper & Pearson 1934, Biometrika 26; Mann 1945, Econometrica 13, and
Kendall 1975, "Rank Correlation Methods"; Sen 1968, JASA 63. `tests/test_comparison.py` and `tests/gating/test_ratio.py`
show how often the intervals miss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
RESAMPLES = 1000
"""The standard error is then known to 2 %, which is little beside what few processes leave open."""
SEED = 20_260_101
"""Fixed: the same evidence gives the same verdict."""
_LEAST_ROUNDS_TO_DRAW = 2
_LEAST_POINTS = 5
_SIGNIFICANCE = 0.05
_LARGEST_LOG = math.log(np.finfo(np.float64).max)


@dataclass(frozen=True, slots=True)
class LogRatio:
    """The logarithm of a ratio as an estimate: its variance, and the degrees of freedom that this is known with."""

    value: float
    variance: float
    degrees: float

    def minus(self, other: LogRatio) -> LogRatio:
        """The logarithm of the ratio of two independent ratios, with Welch's degrees of freedom."""
        variance = self.variance + other.variance
        parts = sum(r.variance**2 / r.degrees for r in (self, other))
        degrees = variance**2 / parts if parts > 0 else self.degrees + other.degrees
        return LogRatio(self.value - other.value, variance, degrees)

    @property
    def ratio(self) -> float:
        """The ratio itself."""
        return math.exp(self.value)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Two-sided, of the ratio itself; infinite where the variance says nothing."""
        from scipy.stats import t as student

        half = float(student.ppf(0.5 + confidence / 2.0, self.degrees)) * math.sqrt(self.variance)
        upper = self.value + half
        return math.exp(self.value - half), math.exp(upper) if upper < _LARGEST_LOG else math.inf


def log_ratios(first: Series, second: Series, percents: Sequence[float], seed: int = SEED) -> tuple[LogRatio, ...]:
    """The ratio of two artifacts' pooled percentiles, at each of `percents` in (0, 100).

    Args:
        first: in ns, by round.
        second: the same. As many rounds as `first` are pairs; another number was not taken in rounds.
        percents: of the percentiles.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two rounds.
    """
    sides, rounds = (first, second), min(len(first), len(second))
    if rounds < _LEAST_ROUNDS_TO_DRAW:
        raise ValueError(f"a bootstrap over rounds needs at least {_LEAST_ROUNDS_TO_DRAW}, got {rounds}")
    random = np.random.default_rng(seed)
    draws = [_draw(random, len(first))]
    draws.append(draws[0] if len(first) == len(second) else _draw(random, len(second)))
    whole = [_quantiles(side, percents, np.ones((1, len(side)), dtype=np.int64)) for side in sides]
    drawn = [_quantiles(side, percents, draw) for side, draw in zip(sides, draws, strict=True)]
    values = np.log(whole[0]) - np.log(whole[1])
    spreads = np.var(np.log(drawn[0]) - np.log(drawn[1]), axis=0, ddof=1) * rounds / (rounds - 1)
    return tuple(LogRatio(float(v), float(s), rounds - 1) for v, s in zip(values[0], spreads, strict=True))


def _draw(random: np.random.Generator, rounds: int) -> NDArray[np.int64]:
    """[RESAMPLES, rounds]: how often each round is in each resample."""
    return random.multinomial(rounds, np.full(rounds, 1.0 / rounds), size=RESAMPLES)


def _quantiles(series: Series, percents: Sequence[float], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """[draws, percents]: nearest-rank percentiles of the pooled samples, each round counted as often as drawn."""
    samples = np.concatenate([np.asarray(part, dtype=np.float64) for part in series])
    owner = np.repeat(np.arange(len(series)), [len(part) for part in series])
    order = np.argsort(samples, kind="stable")
    ordered, owner = samples[order], owner[order]
    found = np.empty((len(draws), len(percents)))
    for row, draw in enumerate(draws):
        seen = np.cumsum(draw[owner])
        ranks = [nearest_rank(int(seen[-1]), p / 100.0) for p in percents]
        found[row] = ordered[np.searchsorted(seen, ranks)]
    return found


def percentile_ratios(first: Series, second: Series, percents: Sequence[float], confidence: float) -> tuple[Ratio, ...]:
    """The percentiles of the first's pooled samples over those of the second's, with two-sided intervals.

    Args:
        first: in ns, by round.
        second: the same; round k of one was measured beside round k of the other.
        percents: each in (0, 100).
        confidence: of each interval.

    Raises:
        ValueError: fewer than five rounds, or not as many in both.
    """
    rounds = len(first)
    if rounds != len(second) or rounds < LEAST_ROUNDS:
        raise ValueError(f"expected the same number of rounds, at least {LEAST_ROUNDS}, got {rounds} and {len(second)}")
    return tuple(
        _ratio(first, second, percent, estimate, confidence)
        for percent, estimate in zip(percents, log_ratios(first, second, percents), strict=True)
    )


def _ratio(first: Series, second: Series, percent: float, estimate: LogRatio, confidence: float) -> Ratio:
    values = [quantile([s for part in series for s in part], percent / 100.0) for series in (first, second)]
    lower, upper = estimate.interval(confidence)
    return Ratio(
        percent=percent,
        first_ms=ms_from_ns(values[0]),
        second_ms=ms_from_ns(values[1]),
        ratio=values[0] / values[1],
        lower=lower,
        upper=upper,
        confidence=confidence,
    )


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
