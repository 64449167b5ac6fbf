"""What is done to a torch model before it is compiled, so that it bears rounding better. It computes the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.errors import BuildError
from edgeprune.records.quantization import SMOOTHING, Preparation, QuantizationVariant

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


def prepared(
    model: nn.Module, variant: QuantizationVariant, needs: frozenset[Preparation], calibration: np.ndarray
) -> nn.Module:
    """A copy as a variant wants it; the model itself where nothing is needed.

    Args:
        model: left alone; in eval mode.
        variant: how it will be quantized.
        needs: what the scheme does not do by itself.
        calibration: [samples, ...], float32, preprocessed, from the training split.

    Raises:
        BuildError: the model cannot be traced, or has nothing that a preparation applies to.
    """
    import torch

    from edgeprune.quantization.bias_correction import correct_biases
    from edgeprune.quantization.equalization import equalize
    from edgeprune.quantization.smoothing import smooth

    if Preparation.EQUALIZE in needs:
        model, pairs = equalize(model, torch.from_numpy(calibration[:1]))
        _require(pairs, variant, "no two layers whose channels could be scaled against each other")
    if Preparation.SMOOTH in needs:
        alpha = SMOOTHING if variant.smoothing is None else variant.smoothing
        model, norms = smooth(model, calibration, alpha)
        _require(norms, variant, "no layer norm whose output only linear layers read")
    if Preparation.CORRECT_BIAS in needs:
        model, layers = correct_biases(model, calibration)
        _require(layers, variant, "no convolution or linear layer that runs once")
    return model


def _require(count: int, variant: QuantizationVariant, otherwise: str) -> None:
    if not count:
        raise BuildError(f"{variant.name}: the model has {otherwise}")
