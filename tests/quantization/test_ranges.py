"""Ranges from histograms: cases worked by hand, and laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.quantization.ranges import (
    BINS,
    Histogram,
    clipped_range,
    entropy_range,
    histogram_of,
    percentile_range,
    squared_error_range,
)
from edgeprune.records.quantization import Calibration, QuantizationVariant

BY_HISTOGRAM = [Calibration.PERCENTILE, Calibration.ENTROPY, Calibration.SQUARED_ERROR]


def _with_outlier(outlier: float) -> Histogram:
    """20,000 values of a normal distribution, and one far out."""
    values = np.append(np.random.default_rng(0).normal(size=20_000), outlier)
    return histogram_of(values, float(values.min()), float(values.max()))


def test_percentile_cuts_half_of_the_rest_at_each_end() -> None:
    counts = np.zeros(10)
    counts[:] = [1, 2, 7, 15, 25, 25, 15, 7, 2, 1]
    histogram = Histogram(counts, -5.0, 5.0)
    # The first and the last bin are one percent each, the next ones two.
    assert percentile_range(histogram, 98.1) == (-5.0, 5.0)
    assert percentile_range(histogram, 98.0) == (-4.0, 4.0)
    assert percentile_range(histogram, 94.1) == (-4.0, 4.0)
    assert percentile_range(histogram, 94.0) == (-3.0, 3.0)
    assert percentile_range(histogram, 100.0) == (-5.0, 5.0)


def test_percentile_of_positive_values_keeps_zero_side() -> None:
    assert percentile_range(Histogram(np.array([1.0, 98.0, 1.0]), 0.0, 3.0), 90.0) == (0.0, 2.0)


@pytest.mark.parametrize("calibration", [Calibration.PERCENTILE, Calibration.ENTROPY])
def test_one_outlier_is_clipped(calibration: Calibration) -> None:
    low, high = clipped_range(_with_outlier(60.0), QuantizationVariant(calibration=calibration))
    assert low < -2.0
    assert 2.0 < high < 12.0


@pytest.mark.parametrize("calibration", [Calibration.DEFAULT, Calibration.MIN_MAX])
def test_other_calibrations_keep_every_value(calibration: Calibration) -> None:
    histogram = _with_outlier(60.0)
    assert clipped_range(histogram, QuantizationVariant(calibration=calibration)) == (histogram.low, histogram.high)


@pytest.mark.parametrize("find", [entropy_range, squared_error_range])
def test_evenly_spread_values_are_not_clipped(find: object) -> None:
    low, high = find(Histogram(np.full(BINS, 10.0), -1.0, 1.0))  # type: ignore[operator]
    assert low == pytest.approx(-1.0, abs=0.02)
    assert high == pytest.approx(1.0, abs=0.02)


def test_entropy_does_not_clip_because_of_many_zeros() -> None:
    counts = np.full(BINS, 10.0)
    counts[0] = 1e6
    assert entropy_range(Histogram(counts, 0.0, 6.0))[1] == pytest.approx(6.0, rel=0.02)


def test_squared_error_weighs_rounding_against_clipping() -> None:
    # 1000 values at 1 and one at 100: rounding costs (100 / 255)^2 / 12 a value unless the far one is clipped, which
    # costs up to 99^2: 1000 * 0.0128 = 12.8 is less than 9801, so nothing is clipped but the last hundredths.
    values = np.append(np.ones(1000), 100.0)
    assert squared_error_range(histogram_of(values, 0.0, 100.0))[1] > 95.0
    many = np.append(np.ones(10_000_000), 100.0)
    assert squared_error_range(histogram_of(many, 0.0, 100.0))[1] < 60.0


@given(
    values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=40),
    calibration=st.sampled_from(BY_HISTOGRAM),
)
@settings(max_examples=30, deadline=None)
def test_range_lies_within_that_of_the_values(values: list[float], calibration: Calibration) -> None:
    low, high = min(values), max(values)
    histogram = histogram_of(np.array(values), low, high) if high > low else Histogram(np.zeros(BINS), low, high)
    found = clipped_range(histogram, QuantizationVariant(calibration=calibration))
    assert low <= found[0] <= found[1] <= high
