"""How much slower one campaign's candidate is than another's, each first divided by the dense model beside it.

Two campaigns at different times see a device that is warmer, or clocked otherwise. Where both measured the same dense
model block by block in turn with their candidate, the ratio of the ratios

    (candidate / dense) now  /  (candidate / dense) then

cancels what slowed both alike. `edgeprune.comparison` says how sure each of the two is.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.comparison import SEED, LogRatio, log_ratios
from edgeprune.records.measurement import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """The valid blocks of a candidate and of the dense model that was measured in turn with it."""

    candidate: tuple[Block, ...]
    dense: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RatioOfRatios:
    """With a two-sided confidence interval: 1.05 is five percent slower than the release."""

    percent: float
    value: float
    lower: float
    upper: float


def ratios_of_ratios(
    now: Campaign, then: Campaign, percents: tuple[float, ...], confidence: float
) -> tuple[RatioOfRatios, ...]:
    """The ratio of the two campaigns' ratios at each percentile.

    Args:
        now: the campaign that is judged; every side has at least two blocks.
        then: the one that it is compared with.
        percents: each in (0, 100).
        confidence: two-sided, of each ratio.
    """
    # Seeds of their own: the two campaigns are independent, and their resamples must be.
    estimates = zip(_log_ratios(now, percents, SEED), _log_ratios(then, percents, SEED + 1), strict=True)
    found = []
    for percent, (ours, theirs) in zip(percents, estimates, strict=True):
        difference = ours.minus(theirs)
        lower, upper = difference.interval(confidence)
        found.append(RatioOfRatios(percent=percent, value=difference.ratio, lower=lower, upper=upper))
    return tuple(found)


def _log_ratios(campaign: Campaign, percents: tuple[float, ...], seed: int) -> tuple[LogRatio, ...]:
    candidate, dense = ([b.samples_ns for b in blocks] for blocks in (campaign.candidate, campaign.dense))
    return log_ratios(candidate, dense, percents, seed)
