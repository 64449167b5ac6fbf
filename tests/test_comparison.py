from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.comparison import Series, percentile_ratios, resolution, significant, trend
from edgeprune.records.comparison import Ratio


def percentile_ratio(first: Series, second: Series, percent: float, confidence: float) -> Ratio:
    return percentile_ratios(first, second, (percent,), confidence)[0]


def _series(
    generator: np.random.Generator, *, rounds: int = 10, runs: int = 300, scale: float = 1.0, spread: float = 0.02
) -> list[list[int]]:
    """Rounds whose processes differ by `spread`, runs within them by 5 %."""
    levels = 1e6 * scale * np.exp(spread * generator.standard_normal(rounds))
    return [list((level * np.exp(0.05 * generator.standard_normal(runs))).astype(int)) for level in levels]


def test_ratio_of_equal_series_is_one_without_width() -> None:
    series = _series(np.random.default_rng(0))
    found = percentile_ratio(series, series, 50.0, 0.95)
    assert (found.ratio, found.lower, found.upper, found.differs, found.reach) == (1.0, 1.0, 1.0, False, 0.0)


def test_ratio_by_hand() -> None:
    # Constant blocks: every resample has the same medians.
    found = percentile_ratio([[300, 300]] * 5, [[200, 200]] * 5, 50.0, 0.95)
    assert (found.ratio, found.lower, found.upper) == pytest.approx((1.5, 1.5, 1.5))
    assert (found.first_ms, found.second_ms) == (0.0003, 0.0002)
    assert found.differs


def test_a_drift_that_both_share_cancels() -> None:
    drift = [1.0, 1.3, 1.6, 2.0, 2.5, 3.0]
    generator = np.random.default_rng(1)
    first = [[int(1.1e6 * d * x) for x in generator.uniform(0.999, 1.001, 200)] for d in drift]
    second = [[int(1e6 * d * x) for x in generator.uniform(0.999, 1.001, 200)] for d in drift]
    found = percentile_ratio(first, second, 99.0, 0.95)
    assert 1.09 < found.lower <= found.ratio <= found.upper < 1.11


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([50.0, 99.0]))
def test_turned_round_the_interval_is_the_reciprocal(seed: int, percent: float) -> None:
    generator = np.random.default_rng(seed)
    first, second = _series(generator, rounds=6, runs=50), _series(generator, rounds=6, runs=50, scale=1.2)
    there, back = (percentile_ratio(a, b, percent, 0.9) for a, b in ((first, second), (second, first)))
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.lower <= there.ratio <= there.upper
    assert there.lower == pytest.approx(1 / back.upper)


def test_same_samples_give_the_same_interval() -> None:
    generator = np.random.default_rng(5)
    first, second = _series(generator), _series(generator)
    assert percentile_ratio(first, second, 99.0, 0.95) == percentile_ratio(first, second, 99.0, 0.95)


@pytest.mark.parametrize("rounds", [5, 10])
def test_false_alarms_stay_near_five_in_a_hundred(rounds: int) -> None:
    generator = np.random.default_rng(7)
    campaigns = 120
    alarms = sum(
        percentile_ratio(
            _series(generator, rounds=rounds, runs=60), _series(generator, rounds=rounds, runs=60), 50.0, 0.95
        ).differs
        for _ in range(campaigns)
    )
    # Three standard deviations over 5 % of 120 is 13; percentile intervals of the bootstrap give 10 % and more.
    assert alarms <= 13


@pytest.mark.parametrize(("first", "second"), [(4, 4), (5, 6)])
def test_too_few_or_unpaired_rounds_are_refused(first: int, second: int) -> None:
    with pytest.raises(ValueError, match="at least 5"):
        percentile_ratio([[1]] * first, [[1]] * second, 50.0, 0.95)


def _ratio(lower: float, upper: float) -> Ratio:
    return Ratio(
        percent=50.0, first_ms=1.0, second_ms=1.0, ratio=(lower + upper) / 2, lower=lower, upper=upper, confidence=0.95
    )


def test_resolution_by_hand() -> None:
    campaigns = [_ratio(0.99, 1.01)] * 18 + [_ratio(0.98, 1.03), _ratio(1.01, 1.05)]
    found = resolution(campaigns)
    assert (found.campaigns, found.false_alarms, found.false_alarm_rate) == (20, 1, 0.05)
    # Nearest rank: the 19th of 20 in ascending order.
    assert found.smallest == pytest.approx(0.03)
    # Clopper-Pearson, one-sided 95 %: the share p with P(Binomial(20, p) <= 1) = 0.05.
    assert found.false_alarm_upper == pytest.approx(0.2161, abs=1e-4)


def test_resolution_when_every_campaign_cries() -> None:
    assert resolution([_ratio(1.01, 1.02)] * 3).false_alarm_upper == 1.0


def test_trend_of_a_rise_by_hand() -> None:
    # Five rising values: tau 1, and 2 of 5! = 120 orders are as extreme.
    found = trend([0, 60, 120, 180, 240], [100, 101, 102, 103, 104])
    assert found is not None
    assert found.tau == pytest.approx(1.0)
    assert found.p_value == pytest.approx(2 / 120)
    assert found.slope_percent_per_minute == pytest.approx(100 / 102)
    assert significant(found)


def test_no_trend_in_a_constant_or_in_noise() -> None:
    flat = trend(range(10), [5.0] * 10)
    assert flat is not None
    assert (flat.tau, flat.p_value) == (0.0, 1.0)
    generator = np.random.default_rng(3)
    alarms = [significant(t) for _ in range(400) if (t := trend(range(12), generator.normal(size=12))) is not None]
    assert len(alarms) == 400
    assert sum(alarms) <= 33


def test_four_points_are_too_few() -> None:
    assert trend(range(4), [1, 2, 3, 4]) is None
