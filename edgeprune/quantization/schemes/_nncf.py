"""What the two NNCF schemes share: from a variant to NNCF's arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from edgeprune.quantization.ranges import Histogram, clipped_range
from edgeprune.records.quantization import BiasCorrection, Calibration, Preparation, QuantizationVariant

_BY_HISTOGRAM = {Calibration.PERCENTILE, Calibration.ENTROPY, Calibration.SQUARED_ERROR}
INT4_GROUP = 32
"""Weights of a row that share a scale when they have four bits."""


def refusal(variant: QuantizationVariant) -> str | None:
    """Why NNCF cannot make the variant; None where it can."""
    if variant.dynamic:
        return "NNCF makes no files whose activations are quantized while they run"
    return None


def needs(variant: QuantizationVariant) -> frozenset[Preparation]:
    """Equalization, which NNCF has not, and smoothing: it smooths transformers alone, and all others not at all."""
    wanted = {Preparation.EQUALIZE: variant.equalized, Preparation.SMOOTH: variant.smoothing is not None}
    return frozenset(preparation for preparation, is_wanted in wanted.items() if is_wanted)


@contextmanager
def post_training(
    variant: QuantizationVariant, calibration: np.ndarray, *, transformer: bool, corrects: bool
) -> Iterator[dict[str, Any]]:
    """Arguments of `nncf.quantize` but for the model and the data; it is to be called inside.

    Args:
        variant: how to quantize.
        calibration: [samples, ...], what the model reads.
        transformer: whether attention was found in the model.
        corrects: whether NNCF corrects biases.

    NNCF's search on a histogram minimizes the squared error by 1e-5 of the values a step, and knows no entropy. Ours
    stands in its place meanwhile, so that the same words mean the same ranges on every runtime and biases are corrected
    for the ranges that ship. What the model reads keeps its whole range, as with TFLite: what no layer has squeezed
    yet has long tails that mean something. A model that was smoothed is not smoothed again.
    """
    import nncf
    from nncf.quantization.algorithms.min_max import algorithm
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

    ranges = RangeEstimatorParameters()
    if variant.calibration is Calibration.MIN_MAX:
        ranges = RangeEstimatorParametersSet.MINMAX
    elif variant.calibration in _BY_HISTOGRAM:
        ranges = RangeEstimatorParametersSet.HISTOGRAM
    advanced = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=ranges,
        disable_bias_correction=not corrects,
    )
    if variant.smoothing is not None:
        advanced.smooth_quant_alphas = nncf.AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    entry = (float(calibration.min()), float(calibration.max()))

    def choose(histogram: Histogram) -> tuple[float, float]:
        found = (histogram.low, histogram.high)
        return found if found == entry else clipped_range(histogram, variant)

    original = algorithm.HistogramAggregator
    vars(algorithm)["HistogramAggregator"] = _aggregator(original, choose)
    try:
        yield {
            "subset_size": len(calibration),
            "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
            "fast_bias_correction": variant.bias_correction is not BiasCorrection.SEQUENTIAL,
            "ignored_scope": nncf.IgnoredScope(names=list(variant.float_layers)) if variant.float_layers else None,
            "advanced_parameters": advanced,
        }
    finally:
        vars(algorithm)["HistogramAggregator"] = original


def weights_alone(variant: QuantizationVariant, ignored_types: tuple[str, ...] = ()) -> dict[str, Any]:
    """Arguments of `nncf.compress_weights` but for the model. Four bits go to linear layers; the rest has eight."""
    import nncf

    ignored = nncf.IgnoredScope(names=list(variant.float_layers), types=list(ignored_types), validate=False)
    if variant.weight_only_bits == 8:  # noqa: PLR2004
        return {"mode": nncf.CompressWeightsMode.INT8_SYM, "ignored_scope": ignored}
    return {
        "mode": nncf.CompressWeightsMode.INT4_SYM,
        "group_size": INT4_GROUP,
        "all_layers": True,
        "ignored_scope": ignored,
        "advanced_parameters": nncf.AdvancedCompressionParameters(
            group_size_fallback_mode=nncf.GroupSizeFallbackMode.IGNORE
        ),
    }


def _aggregator(base: Any, choose: Callable[[Histogram], tuple[float, float]]) -> Any:  # noqa: ANN401
    """NNCF's histogram over all samples, with our choice of the range at the end."""

    class Clipping(base):  # type: ignore[misc]
        def _non_linear_param_search(self) -> tuple[float, float]:
            counts = np.asarray(self.histogram.data, dtype=np.float64)
            return choose(Histogram(counts, float(self.min_val), float(self.max_val)))

    return Clipping
