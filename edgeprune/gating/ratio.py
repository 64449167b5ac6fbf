"""How much slower one campaign's candidate is than another's, each first divided by the dense model beside it.

Two campaigns at different times see a device that is warmer, or clocked otherwise. Where both measured the same dense
model block by block in turn with their candidate, the ratio of the ratios

    (candidate / dense) now  /  (candidate / dense) then

cancels what slowed both alike. Its interval comes from a bootstrap over rounds: a round is one process of each side,
measured one after the other, so runs of one process stay together and a drift within a campaign stays paired.

The standard error of each campaign's log ratio is that of the bootstrap, times sqrt(n / (n - 1)) for n rounds, since a
bootstrap over few clusters is too narrow by that factor. The two are combined with a Student quantile at Welch's
degrees of freedom. Percentile intervals of the bootstrap would be far too narrow with three to six processes.

Sources: Davison & Hinkley 1997, "Bootstrap Methods and their Application", section 3.8 (clusters); Hesterberg 2015,
"What Teachers Should Know About the Bootstrap", The American Statistician 69, section 4.1 (the narrowness bias and
the t quantile); Welch 1947, Biometrika 34. `tests/gating/test_ratio.py` shows how often the interval misses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeprune.clustering import nearest_rank
from edgeprune.records.measurement import Block

RESAMPLES = 1000
"""The standard error is then known to 2 %, which is little beside what few processes leave open."""
SEED = 20_260_101
"""Fixed: the same evidence gives the same verdict."""
_LEAST_ROUNDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """The valid blocks of a candidate and of the dense model that was measured in turn with it."""

    candidate: tuple[Block, ...]
    dense: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """A ratio with a two-sided confidence interval: 1.05 is five percent slower than the release."""

    percent: float
    value: float
    lower: float
    upper: float


def ratios_of_ratios(
    now: Campaign, then: Campaign, percents: tuple[float, ...], confidence: float
) -> tuple[Ratio, ...]:
    """The ratio of the two campaigns' ratios at each percentile.

    Args:
        now: the campaign that is judged; every side has at least two blocks.
        then: the one that it is compared with.
        percents: each in (0, 100).
        confidence: two-sided, of each ratio.
    """
    found = [_log_ratios(campaign, percents, seed) for campaign, seed in ((now, SEED), (then, SEED + 1))]
    return tuple(_combine(percent, (found[0][k], found[1][k]), confidence) for k, percent in enumerate(percents))


@dataclass(frozen=True, slots=True)
class _LogRatio:
    value: float
    variance: float
    degrees: int


def _combine(percent: float, campaigns: tuple[_LogRatio, _LogRatio], confidence: float) -> Ratio:
    from scipy.stats import t as student

    now, then = campaigns
    value, variance = now.value - then.value, now.variance + then.variance
    half = 0.0
    if variance > 0:
        degrees = variance**2 / sum(c.variance**2 / c.degrees for c in campaigns)
        half = float(student.ppf(1.0 - (1.0 - confidence) / 2.0, degrees)) * math.sqrt(variance)
    return Ratio(
        percent=percent, value=math.exp(value), lower=math.exp(value - half), upper=_exp_or_infinity(value + half)
    )


def _exp_or_infinity(value: float) -> float:
    return math.exp(value) if value < math.log(np.finfo(np.float64).max) else math.inf


def _log_ratios(campaign: Campaign, percents: tuple[float, ...], seed: int) -> list[_LogRatio]:
    sides = (campaign.candidate, campaign.dense)
    rounds = min(len(blocks) for blocks in sides)
    if rounds < _LEAST_ROUNDS:
        raise ValueError(f"a bootstrap over rounds needs at least {_LEAST_ROUNDS}, got {rounds}")
    random = np.random.default_rng(seed)
    draws = [_draw(random, len(sides[0]))]
    # Rounds are paired: a round counts only where both its blocks do. Counts that differ were not taken in rounds.
    draws.append(draws[0] if len(sides[0]) == len(sides[1]) else _draw(random, len(sides[1])))
    whole = [_quantiles(blocks, percents, np.ones((1, len(blocks)), dtype=np.int64)) for blocks in sides]
    drawn = [_quantiles(blocks, percents, draw) for blocks, draw in zip(sides, draws, strict=True)]
    values = np.log(whole[0]) - np.log(whole[1])
    spreads = np.var(np.log(drawn[0]) - np.log(drawn[1]), axis=0, ddof=1) * rounds / (rounds - 1)
    return [_LogRatio(float(v), float(s), rounds - 1) for v, s in zip(values[0], spreads, strict=True)]


def _draw(random: np.random.Generator, blocks: int) -> NDArray[np.int64]:
    """[RESAMPLES, blocks]: how often each block is in each resample."""
    return random.multinomial(blocks, np.full(blocks, 1.0 / blocks), size=RESAMPLES)


def _quantiles(blocks: Sequence[Block], percents: tuple[float, ...], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """[draws, percents]: nearest-rank percentiles of the pooled samples, each block counted as often as drawn."""
    samples = np.concatenate([np.asarray(b.samples_ns, dtype=np.float64) for b in blocks])
    owner = np.repeat(np.arange(len(blocks)), [len(b.samples_ns) for b in blocks])
    order = np.argsort(samples, kind="stable")
    ordered, owner = samples[order], owner[order]
    found = np.empty((len(draws), len(percents)))
    for row, draw in enumerate(draws):
        seen = np.cumsum(draw[owner])
        ranks = [nearest_rank(int(seen[-1]), p / 100.0) for p in percents]
        found[row] = ordered[np.searchsorted(seen, ranks)]
    return found
