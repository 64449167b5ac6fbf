from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from edgeprune import statistics
from edgeprune.clustering import ProcessSamples
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.measurement import Percentile
from edgeprune.records.verdict import Verdict

latencies = st.lists(st.integers(min_value=1, max_value=10**10), min_size=1, max_size=400)
shares = st.floats(min_value=0.01, max_value=0.99)
confidences = st.floats(min_value=0.5, max_value=0.999)


def bounds(samples: Sequence[int], q: float, confidence: float) -> tuple[float, float]:
    return statistics.quantile_bounds(ProcessSamples([samples]), q, confidence)


def judge(samples: Sequence[int], q: float, budget_ns: float, confidence: float) -> statistics.QuantileJudgement:
    return statistics.judge_quantile(ProcessSamples([samples]), q, budget_ns, confidence)


@pytest.mark.parametrize(
    ("count", "q", "rank"),
    [(1, 0.5, 1), (2, 0.5, 1), (3, 0.5, 2), (4, 0.5, 2), (100, 0.99, 99), (101, 0.99, 100), (300, 0.99, 297)],
)
def test_nearest_rank_by_hand(count: int, q: float, rank: int) -> None:
    assert statistics.nearest_rank(count, q) == rank


def test_nearest_rank_is_not_misled_by_rounding() -> None:
    assert 0.07 * 100 > 7
    assert statistics.nearest_rank(100, 0.07) == 7


def test_quantile_of_an_unsorted_list() -> None:
    assert statistics.quantile([5, 1, 4, 2, 3], 0.5) == 3
    assert statistics.quantile([5, 1, 4, 2, 3], 0.99) == 5


@pytest.mark.parametrize(("q", "confidence", "count"), [(0.99, 0.95, 299), (0.99, 0.99, 459), (0.5, 0.95, 5)])
def test_smallest_sample_count(q: float, confidence: float, count: int) -> None:
    assert statistics.smallest_sample_count(q, confidence) == count
    assert statistics.upper_rank(count, q, confidence) == count
    assert statistics.upper_rank(count - 1, q, confidence) is None


def test_median_bounds_of_ten_samples_by_hand() -> None:
    # P(Bin(10, 1/2) <= 7) = 968/1024 = 0.945; <= 8: 1013/1024 = 0.989: so x_(9) at 95 %, and x_(2) by symmetry.
    ordered = list(range(1, 11))
    assert bounds(ordered, 0.5, 0.95)[1] == 9
    assert bounds(ordered, 0.5, 0.95)[0] == 2
    assert bounds(ordered, 0.5, 0.94)[1] == 8


def test_too_few_samples_bound_nothing() -> None:
    assert bounds([1, 2, 3], 0.99, 0.95)[1] == math.inf
    assert bounds([1, 2, 3], 0.01, 0.95)[0] == 0.0
    assert statistics.upper_rank(0, 0.5, 0.9) is None
    assert statistics.lower_rank(0, 0.5, 0.9) is None


@pytest.mark.parametrize("bad", [0.0, 1.0, 99.0, float("nan")])
def test_shares_out_of_range_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="expected a number in"):
        statistics.quantile([1, 2], bad)
    with pytest.raises(ValueError, match="expected a number in"):
        statistics.upper_rank(10, 0.5, bad)


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        ProcessSamples([[], []])
    with pytest.raises(ValueError, match="at least one sample"):
        statistics.quantile([], 0.5)


@given(latencies, shares)
@settings(max_examples=50, deadline=None)
def test_quantile_is_the_order_statistic(samples: list[int], q: float) -> None:
    value = statistics.quantile(samples, q)
    at_or_under = sum(s <= value for s in samples)
    under = sum(s < value for s in samples)
    assert value in samples
    assert at_or_under >= q * len(samples) - 1e-6
    assert under < q * len(samples)


@given(latencies, confidences)
@settings(max_examples=50, deadline=None)
def test_p50_is_at_most_p99_and_bounds_contain_the_point(samples: list[int], confidence: float) -> None:
    p50, p99 = (statistics.percentile(ProcessSamples([samples]), p, confidence) for p in (50.0, 99.0))
    assert p50.value_ms <= p99.value_ms
    for found in (p50, p99):
        assert found.lower_ms <= found.value_ms
        assert found.upper_ms is None or found.value_ms <= found.upper_ms


@given(st.integers(min_value=1, max_value=5000), shares, confidences)
@settings(max_examples=100, deadline=None)
def test_ranks_are_the_tightest_that_keep_the_confidence(count: int, q: float, confidence: float) -> None:
    upper, lower = (
        statistics.upper_rank(count, q, confidence),
        statistics.lower_rank(count, q, confidence),
    )
    if upper is not None:
        assert binom.cdf(upper - 1, count, q) >= confidence - 1e-12
        assert binom.cdf(upper - 2, count, q) < confidence + 1e-12
    if lower is not None:
        assert binom.sf(lower - 1, count, q) >= confidence - 1e-12
        assert binom.sf(lower, count, q) <= confidence + 1e-12


@given(latencies, shares, confidences, confidences)
@settings(max_examples=50, deadline=None)
def test_more_confidence_gives_wider_bounds(samples: list[int], q: float, one: float, other: float) -> None:
    less, more = sorted((one, other))
    narrow, wide = bounds(samples, q, less), bounds(samples, q, more)
    assert narrow[0] >= wide[0]
    assert narrow[1] <= wide[1]


@given(latencies, shares, st.integers(min_value=2, max_value=1000))
@settings(max_examples=50, deadline=None)
def test_bounds_scale_with_the_samples(samples: list[int], q: float, factor: int) -> None:
    lower, upper = bounds(samples, q, 0.9)
    assert bounds([factor * s for s in samples], q, 0.9) == (factor * lower, factor * upper)


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_bounds_cover_the_true_quantile_as_often_as_they_say(q: float) -> None:
    campaigns, confidence = 4000, 0.95
    ordered = np.sort(np.random.default_rng(5).exponential(size=(campaigns, 600)), axis=1)
    true = -math.log(1 - q)
    upper, lower = statistics.upper_rank(600, q, confidence), statistics.lower_rank(600, q, confidence)
    assert upper is not None
    assert lower is not None
    least = confidence - 3 * math.sqrt(confidence * (1 - confidence) / campaigns)
    assert np.mean(ordered[:, upper - 1] >= true) >= least
    assert np.mean(ordered[:, lower - 1] <= true) >= least


def test_judgement_by_the_bound_that_decides() -> None:
    samples = list(range(1, 1001))
    passed = judge(samples, 0.99, 1000, 0.95)
    failed = judge(samples, 0.99, 900, 0.95)
    open_ = judge(samples, 0.99, 990, 0.95)
    assert (passed.verdict, passed.bound_ns) == (Verdict.PASS, passed.upper_ns)
    assert (failed.verdict, failed.bound_ns) == (Verdict.FAIL, failed.lower_ns)
    assert open_.verdict is Verdict.INCONCLUSIVE
    assert passed.value_ns == 990
    assert failed.lower_ns > 900
    assert passed.upper_ns <= 1000


def test_a_budget_that_equals_the_bound_passes() -> None:
    samples = list(range(1, 1001))
    upper = bounds(samples, 0.99, 0.95)[1]
    assert judge(samples, 0.99, upper, 0.95).verdict is Verdict.PASS
    assert judge(samples, 0.99, upper - 0.5, 0.95).verdict is Verdict.INCONCLUSIVE


def test_too_few_samples_are_inconclusive_however_fast() -> None:
    assert judge([1] * 298, 0.99, 100, 0.95).verdict is Verdict.INCONCLUSIVE
    assert judge([1] * 299, 0.99, 100, 0.95).verdict is Verdict.PASS


def test_error_is_split_over_the_looks() -> None:
    assert statistics.confidence_per_look(0.95, 1) == pytest.approx(0.95)
    assert statistics.confidence_per_look(0.95, 5) == pytest.approx(0.99)


def test_percentile_in_milliseconds_survives_json() -> None:
    found = statistics.percentile(ProcessSamples([[1_000_000, 2_000_000, 3_000_000]]), 50.0, 0.95)
    assert found == Percentile(
        percent=50.0, value_ms=2.0, lower_ms=0.0, upper_ms=None, confidence=0.95, samples=3, effective_samples=3.0
    )
    assert from_json(Percentile, to_json(found)) == found


def test_fewer_effective_samples_move_the_ranks_out() -> None:
    assert statistics.upper_rank(1000, 0.5, 0.95, 1000.0) == statistics.upper_rank(1000, 0.5, 0.95)
    # 250 of 1000: the standard error of the share doubles, and so does the distance from the middle.
    assert statistics.upper_rank(1000, 0.5, 0.95) == 527
    assert statistics.upper_rank(1000, 0.5, 0.95, 250.0) == pytest.approx(500 + 2 * 27, abs=3)
    assert statistics.upper_rank(1000, 0.99, 0.95, 298.0) is None
    assert statistics.upper_rank(1000, 0.99, 0.95, 299.0) == 1000


def test_summary_by_hand() -> None:
    found = statistics.summarise(ProcessSamples([[1_000_000, 3_000_000], [5_000_000, 7_000_000]]))
    assert (found.samples, found.processes, found.minimum_ms, found.mean_ms) == (4, 2, 1.0, 4.0)
    assert found.standard_deviation_ms == pytest.approx(math.sqrt(20 / 3))
    # Within: (1 + 1 + 1 + 1) / 2 = 2. Between: (2 (2 - 4)^2 + 2 (6 - 4)^2 - 2) / 2 = 7.
    assert found.within_process_ms == pytest.approx(math.sqrt(2))
    assert found.between_process_ms == pytest.approx(math.sqrt(7))
    assert found.process_p50_ms == (1.0, 5.0)
    assert "nearest rank" in found.percentile_rule


def test_summary_of_one_sample() -> None:
    found = statistics.summarise(ProcessSamples([[2_000_000]]))
    assert (found.mean_ms, found.standard_deviation_ms, found.between_process_ms) == (2.0, 0.0, 0.0)


def test_bounds_of_a_mean_by_hand() -> None:
    # One-sided 95 % of Student's t with 9 degrees of freedom is 1.833.
    lower, upper = statistics.mean_bounds(5.0, 0.1, 10, 0.95)
    assert (lower, upper) == pytest.approx((4.8167, 5.1833), abs=1e-4)
    assert statistics.mean_bounds(5.0, 0.0, 1, 0.95) == (-math.inf, math.inf)
    assert statistics.mean_bounds(5.0, 0.0, 7, 0.95) == (5.0, 5.0)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(2, 500), st.floats(0.51, 0.999))
def test_bounds_of_a_mean_narrow_with_examples_and_widen_with_confidence(
    mean: float, error: float, examples: int, confidence: float
) -> None:
    lower, upper = statistics.mean_bounds(mean, error, examples, confidence)
    assert lower <= mean <= upper
    assert upper - mean == pytest.approx(mean - lower, rel=1e-6, abs=1e-9)
    assert statistics.mean_bounds(mean, error, examples + 1, confidence)[1] <= upper
    assert statistics.mean_bounds(mean, error, examples, min(0.9999, confidence + 0.0005))[1] >= upper
