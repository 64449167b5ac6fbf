"""Samples that come in processes: how many independent samples they are worth.

Runs of one process share its memory layout, its place in the caches and whatever happened beside it, so 1000 runs in
5 processes say less about the next process than 1000 runs in 1000 would. A bound that ignores it is wrong far more
often than it says. The design effect tells how many times less; `edgeprune.statistics` takes its bounds from the
samples divided by it.

It is estimated twice from the data, and the larger of the two counts:

1. What is seen at the quantile itself: how much the share of a process's runs that lie within the pooled quantile
   differs between processes, against what independent runs would differ. Taken at the estimated quantile as Woodruff
   does, it needs no budget and covers any dependence within a process (drift, bursts, autocorrelation). Few processes
   estimate it badly, so it is widened by the ratio of Student's t to the normal quantile, as Korn & Graubard do.
2. What is seen in all runs and carried out to the quantile: the correlation of two runs of one process, by analysis of
   variance of the normal scores, then read at q under a Gaussian copula. In 5 processes a p99 has only a handful of
   runs above it; the slow process that is still missing shows in the medians first.

Neither can see a kind of process that has not occurred: where a share f of all processes is slow, m processes contain
none with probability (1 - f)**m. See `unseen_share`.

Sources: Kish 1965, "Survey Sampling", section 8.2 (the design effect); Woodruff 1952, "Confidence Intervals for
Medians and Other Position Measures", JASA 47; Korn & Graubard 1998, "Confidence Intervals for Proportions with Small
Expected Number of Positive Counts Estimated from Survey Data", Survey Methodology 24 (exact binomial bounds at the
effective sample size, with the t correction); Rao & Scott 1992, "A Simple Method for the Analysis of Clustered Binary
Data", Biometrics 48; Donner 1986, "A Review of Inference Procedures for the Intraclass Correlation Coefficient",
International Statistical Review 54.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

Samples = Sequence[int] | Sequence[float] | NDArray[np.int64] | NDArray[np.float64]

# 0.07 * 100 is 7.000000000000001: without this slack the rank would be 8.
_RANK_SLACK = 1e-9
# Two runs of one process are never taken for the same run.
_MOST_CORRELATION = 0.95
# Under this the ratio of the t to the normal quantile is 0 / 0; nobody asks for less.
_LEAST_CONFIDENCE = 0.51
_LEAST_PROCESSES = 3
# Nodes of the Gauss-Hermite quadrature: p99.9 is exact to three digits.
_NODES = 80


def nearest_rank(samples: int, q: float) -> int:
    """The 1-based rank ceil(q n) of the q-quantile among that many samples, at least 1."""
    return max(1, math.ceil(q * samples - _RANK_SLACK))


class ProcessSamples:
    """Latencies, one group a process.

    Args:
        processes: at least one sample in all; processes without any are left out. With a single process nothing
            can be told of the others, and its samples are taken as independent.

    Raises:
        ValueError: no sample at all.
    """

    def __init__(self, processes: Sequence[Samples]) -> None:
        self.processes = tuple(np.asarray(p, dtype=np.float64) for p in processes if len(p))
        if not self.processes:
            raise ValueError("a quantile needs at least one sample")

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.ordered)

    @cached_property
    def ordered(self) -> NDArray[np.float64]:
        """All samples, ascending."""
        return np.sort(np.concatenate(self.processes))

    def effective_samples(self, q: float, confidence: float) -> float:
        """How many independent samples bound the q-quantile as well as these do; at most as many as there are.

        Args:
            q: in (0, 1).
            confidence: one-sided, of the bound that will be taken.
        """
        if len(self.processes) == 1:
            return float(len(self))
        return len(self) / max(1.0, self._seen_effect(q, confidence), self._carried_effect(q))

    def unseen_factor(self, q: float, confidence: float) -> float | None:
        """By what factor the latencies of one more process may lie over or under those of these processes.

        A prediction interval: Student's t times the spread of the logarithms between processes times sqrt(1 + 1 / m),
        of the medians or of the q-quantiles, whichever spread more. None for fewer than three processes.

        Source: Hahn and Meeker 1991, "Statistical Intervals", section 4.7 (prediction of a future observation).
        """
        from scipy.special import stdtrit

        count = len(self.processes)
        if count < _LEAST_PROCESSES or float(self.ordered[0]) <= 0.0:
            return None
        sure = max(confidence, _LEAST_CONFIDENCE)
        spreads = [
            np.log([float(np.quantile(p, level, method="inverted_cdf")) for p in self.processes]).std(ddof=1)
            for level in (0.5, q)
        ]
        return math.exp(float(stdtrit(count - 1, sure)) * float(max(spreads)) * math.sqrt(1.0 + 1.0 / count))

    def _seen_effect(self, q: float, confidence: float) -> float:
        """The design effect of the share within the pooled quantile (1. above), widened for few processes."""
        from scipy.special import ndtri, stdtrit

        limit = self.ordered[nearest_rank(len(self), q) - 1]
        # Where nothing lies over the quantile (too few runs, or ties), it is the runs under it that can differ.
        compare = np.less_equal if limit < self.ordered[-1] else np.less
        share = float(compare(self.ordered, limit).mean())
        if not 0.0 < share < 1.0:
            return 1.0
        surplus = [compare(p, limit).sum() - share * len(p) for p in self.processes]
        count = len(self.processes)
        variance = count / (count - 1) * float(np.square(surplus).sum()) / len(self) ** 2
        effect = variance / (share * (1.0 - share) / len(self))
        sure = max(confidence, _LEAST_CONFIDENCE)
        return float(effect * (stdtrit(count - 1, sure) / ndtri(sure)) ** 2)

    def _carried_effect(self, q: float) -> float:
        """The design effect that the correlation of all runs has at the quantile (2. above)."""
        return 1.0 + (self._typical_size - 1.0) * _correlation_of_shares(self.correlation, q)

    @cached_property
    def _typical_size(self) -> float:
        """Runs of a process, as Kish averages them where they differ."""
        return sum(len(p) ** 2 for p in self.processes) / len(self)

    @cached_property
    def correlation(self) -> float:
        """Of the normal scores of two runs of one process: the median-unbiased estimate, in [0, 0.95]."""
        from scipy.special import fdtri

        count, total = len(self.processes), len(self)
        if count == 1 or total <= count:
            return 0.0
        scores = self._normal_scores()
        between = sum(len(s) * s.mean() ** 2 for s in scores) / (count - 1)
        within = sum(float(np.square(s - s.mean()).sum()) for s in scores) / (total - count)
        if within <= 0.0:
            return _MOST_CORRELATION if between > 0.0 else 0.0
        excess = between / within / fdtri(count - 1, total - count, 0.5) - 1.0
        return float(min(max(excess / (excess + self._typical_size), 0.0), _MOST_CORRELATION)) if excess > 0 else 0.0

    def _normal_scores(self) -> list[NDArray[np.float64]]:
        """Each sample's normal quantile by its rank among all; equal samples share their mean rank."""
        from scipy.special import ndtri

        first = [np.searchsorted(self.ordered, p, side="left") for p in self.processes]
        last = [np.searchsorted(self.ordered, p, side="right") for p in self.processes]
        return [ndtri((low + high) / 2.0 / len(self)) for low, high in zip(first, last, strict=True)]


def unseen_share(processes: int, confidence: float) -> float:
    """The share of all processes that may be of a kind which that many processes did not show.

    A kind with a larger share would have occurred with the confidence: 45 % for 5 processes at 95 %, 14 % for 20. No
    bound from these samples covers it.
    """
    return float(1.0 - (1.0 - confidence) ** (1.0 / processes))


def _correlation_of_shares(correlation: float, q: float) -> float:
    """The correlation of "is within the q-quantile" for two normal variables of that correlation.

    Given the process's share z of the variable, a run lies over the quantile with a probability e(z); the variance of
    e over the normal z, against q (1 - q), is the correlation.
    """
    from scipy.special import ndtr, ndtri

    nodes, weights = _normal_quadrature()
    over = ndtr((math.sqrt(correlation) * nodes - ndtri(q)) / math.sqrt(1.0 - correlation))
    return float(weights @ np.square(over - weights @ over) / (q * (1.0 - q)))


@cache
def _normal_quadrature() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights that turn a mean over a standard normal variable into a sum."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return nodes, weights / weights.sum()
