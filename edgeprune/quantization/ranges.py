"""From a histogram of an activation's values to the range that eight bits shall span.

A value outside is clipped, one inside is rounded by a step that grows with the range: what clips little may round less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgeprune.records.quantization import Calibration, QuantizationVariant

BINS = 2048
"""Of a histogram, as in NNCF and in TensorRT's calibration."""

_LEVELS = 256
_ENTROPY_STEP = 8
_SHRINKINGS = 100
_LEAST = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Values of one tensor over all calibration samples.

    Attributes:
        counts: [bins], how many values fell into each bin; all bins are of equal width.
        low: the least value.
        high: the largest value.
    """

    counts: np.ndarray
    low: float
    high: float

    @property
    def edges(self) -> np.ndarray:
        """[bins + 1], ascending."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)

    @property
    def centres(self) -> np.ndarray:
        """[bins], the middle of each bin."""
        edges = self.edges
        centres: np.ndarray = (edges[:-1] + edges[1:]) / 2
        return centres


def histogram_of(values: np.ndarray, low: float, high: float) -> Histogram:
    """Count values between two bounds, which lie apart."""
    return Histogram(np.histogram(values, bins=BINS, range=(low, high))[0].astype(np.float64), low, high)


def clipped_range(histogram: Histogram, variant: QuantizationVariant) -> tuple[float, float]:
    """The range that a variant's calibration takes, within that of the values.

    Returns:
        (low, high). All values' range where the calibration is not by histogram, or the values are all the same.
    """
    finders: dict[Calibration, Callable[[Histogram], tuple[float, float]]] = {
        Calibration.PERCENTILE: lambda h: percentile_range(h, variant.percentile),
        Calibration.ENTROPY: entropy_range,
        Calibration.SQUARED_ERROR: squared_error_range,
    }
    finder = finders.get(variant.calibration)
    if finder is None or histogram.high <= histogram.low or not histogram.counts.any():
        return histogram.low, histogram.high
    low, high = finder(histogram)
    return max(low, histogram.low), min(high, histogram.high)


def percentile_range(histogram: Histogram, percent: float) -> tuple[float, float]:
    """The narrowest range with so many percent of the values between its ends, the same share cut off at each.

    A side where all values lie on one side of zero is not cut towards zero: nothing would be won.
    """
    outside = (1 - percent / 100) / 2
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    # Rounding of the sums must not count a bin as outside.
    first = int(np.searchsorted(share, outside + _LEAST, side="left"))
    last = int(np.searchsorted(share, 1 - outside - _LEAST, side="left"))
    edges = histogram.edges
    low = histogram.low if histogram.low >= 0 else float(edges[first])
    high = histogram.high if histogram.high <= 0 else float(edges[min(last + 1, len(edges) - 1)])
    return low, high


def entropy_range(histogram: Histogram) -> tuple[float, float]:
    """The range whose rounded values tell the least from the real ones, by Kullback-Leibler divergence.

    Source: Migacz 2017, "8-bit Inference with TensorRT", GTC; values are taken without their sign, so that both sides
    are clipped at the same distance from zero. Each eighth bin is a candidate.
    """
    distances, edge = _without_sign(histogram)
    one_sided = histogram.low >= 0 or histogram.high <= 0
    levels = _LEVELS if one_sided else _LEVELS // 2
    candidates = range(levels, len(distances) + 1, _ENTROPY_STEP)
    best = min(candidates, key=lambda bins: (_divergence(distances, bins, levels), -bins))
    limit = edge * best / len(distances)
    return max(histogram.low, -limit), min(histogram.high, limit)


def squared_error_range(histogram: Histogram) -> tuple[float, float]:
    """The range with the least expected squared error of rounding inside and clipping outside.

    Both ends are drawn towards zero by the same factor. Rounding by a step s costs s^2 / 12 a value: Gray and Neuhoff
    1998, "Quantization", section III.
    """
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    centres, counts = histogram.centres, histogram.counts

    def error(factor: float) -> float:
        step = factor * (high - low) / (_LEVELS - 1)
        beyond = np.maximum(centres - factor * high, 0.0) + np.maximum(factor * low - centres, 0.0)
        inside = beyond == 0
        return float((counts * (inside * step**2 / 12 + beyond**2)).sum())

    factor = min((k / _SHRINKINGS for k in range(_SHRINKINGS, 0, -1)), key=error)
    return factor * low, factor * high


def _without_sign(histogram: Histogram) -> tuple[np.ndarray, float]:
    """Counts by distance from zero, in bins from zero to the farthest value."""
    edge = max(abs(histogram.low), abs(histogram.high))
    counts = np.histogram(np.abs(histogram.centres), bins=BINS, range=(0.0, edge), weights=histogram.counts)[0]
    # Half of what a ReLU lets through is zero, which any range holds exactly: it would outweigh all that is clipped.
    counts[0] = counts[1]
    return counts, edge


def _divergence(counts: np.ndarray, bins: int, levels: int) -> float:
    """Of the values clipped at so many bins from the same in that many levels; Migacz 2017, slides 37 to 39."""
    clipped = counts[:bins].copy()
    clipped[-1] += counts[bins:].sum()
    level_of = np.arange(bins) * levels // bins
    filled = counts[:bins] > 0
    sums = np.bincount(level_of, weights=counts[:bins], minlength=levels)
    sizes = np.bincount(level_of, weights=filled, minlength=levels)
    rounded = np.where(filled, sums[level_of] / np.maximum(sizes[level_of], 1), 0.0)
    if not rounded.any():
        return float("inf")
    real, told = clipped / clipped.sum(), rounded / rounded.sum()
    there = real > 0
    return float((real[there] * np.log(real[there] / np.maximum(told[there], _LEAST))).sum())
