from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from records_for_tests import make_block

from edgeprune import comparison
from edgeprune.gating.ratio import Campaign, ratios_of_ratios
from edgeprune.records.measurement import Block
from edgeprune.statistics import quantile

PERCENTS = (50.0, 99.0)


def drawn(
    rng: np.random.Generator, rounds: int, *, slower: float = 1.0, between: float = 0.0, runs: int = 200
) -> Campaign:
    """Lognormal latencies; each process is off by `between`, and the device drifts by 2 % from round to round."""
    drift = 0.02 * np.cumsum(rng.standard_normal(rounds))

    def side(median_ns: float) -> tuple[Block, ...]:
        offsets = np.exp(between * rng.standard_normal(rounds) + drift)
        noise = np.exp(0.05 * rng.standard_normal((rounds, runs)))
        samples = (median_ns * offsets[:, None] * noise).astype(int)
        return tuple(make_block(tuple(row.tolist())) for row in samples)

    return Campaign(candidate=side(2e6 * slower), dense=side(6e6))


def test_the_value_is_the_ratio_of_the_pooled_percentiles() -> None:
    rng = np.random.default_rng(0)
    now, then = drawn(rng, 3), drawn(rng, 4)
    found = ratios_of_ratios(now, then, PERCENTS, 0.95)
    for one, q in zip(found, (0.5, 0.99), strict=True):
        pooled = [
            quantile([s for b in side for s in b.samples_ns], q)
            for side in (now.candidate, now.dense, then.candidate, then.dense)
        ]
        assert one.value == pytest.approx(pooled[0] / pooled[1] / (pooled[2] / pooled[3]), rel=1e-12)
        assert one.lower < one.value < one.upper


def test_equal_campaigns_are_equal_and_swapping_them_inverts_the_interval() -> None:
    rng = np.random.default_rng(0)
    now, then = drawn(rng, 5), drawn(rng, 5)
    assert all(r.value == 1.0 for r in ratios_of_ratios(now, now, PERCENTS, 0.95))
    forth, back = ratios_of_ratios(now, then, PERCENTS, 0.95), ratios_of_ratios(then, now, PERCENTS, 0.95)
    for a, b in zip(forth, back, strict=True):
        assert a.value * b.value == pytest.approx(1.0)
        # The two campaigns draw from seeds of their own, so the widths agree to the error of the bootstrap alone.
        assert a.upper * b.lower == pytest.approx(1.0, rel=0.01)


def test_the_same_evidence_gives_the_same_interval_and_more_confidence_a_wider_one() -> None:
    rng = np.random.default_rng(0)
    now, then = drawn(rng, 4), drawn(rng, 4)
    first = ratios_of_ratios(now, then, PERCENTS, 0.95)
    assert first == ratios_of_ratios(now, then, PERCENTS, 0.95)
    for wide, narrow in zip(ratios_of_ratios(now, then, PERCENTS, 0.99), first, strict=True):
        assert wide.lower < narrow.lower < narrow.upper < wide.upper


def test_a_device_that_is_slower_as_a_whole_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    now, then = drawn(rng, 4), drawn(rng, 4)

    def slowed(blocks: tuple[Block, ...]) -> tuple[Block, ...]:
        return tuple(replace(b, samples_ns=tuple(2 * s for s in b.samples_ns)) for b in blocks)

    hot = Campaign(candidate=slowed(now.candidate), dense=slowed(now.dense))
    for a, b in zip(*(ratios_of_ratios(c, then, PERCENTS, 0.95) for c in (now, hot)), strict=True):
        assert (a.value, a.lower, a.upper) == pytest.approx((b.value, b.lower, b.upper))


def test_samples_without_spread_have_no_interval() -> None:
    still = Campaign(candidate=(make_block((5,) * 300),) * 3, dense=(make_block((10,) * 300),) * 3)
    for found in ratios_of_ratios(still, still, PERCENTS, 0.95):
        assert (found.lower, found.value, found.upper) == pytest.approx((1.0, 1.0, 1.0), abs=1e-12)


def test_pairing_of_rounds_takes_the_drift_out() -> None:
    rng = np.random.default_rng(0)
    now, then = drawn(rng, 8), drawn(rng, 8)
    torn = replace(now, dense=now.dense[:-1])
    widths = [r.upper / r.lower for c in (now, torn) for r in ratios_of_ratios(c, then, PERCENTS[:1], 0.95)]
    assert widths[0] < widths[1]


def test_one_round_is_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        ratios_of_ratios(drawn(rng, 1), drawn(rng, 3), PERCENTS, 0.95)


@pytest.mark.parametrize(("rounds", "between"), [(3, 0.0), (3, 0.02), (6, 0.02), (12, 0.01)])
def test_the_interval_misses_the_truth_at_most_as_often_as_it_says(
    rounds: int, between: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "RESAMPLES", 200)
    rng, campaigns, slower = np.random.default_rng(7), 150, 1.05
    over, under = np.zeros(2), np.zeros(2)
    for _ in range(campaigns):
        now = drawn(rng, rounds, slower=slower, between=between)
        found = ratios_of_ratios(now, drawn(rng, rounds, between=between), PERCENTS, 0.9)
        over += [r.lower > slower for r in found]
        under += [r.upper < slower for r in found]
    most = 0.05 * campaigns + 3 * np.sqrt(0.05 * 0.95 * campaigns)
    assert max(*over, *under) <= most
