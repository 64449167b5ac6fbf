"""Cross-layer equalization: channels of neighbouring layers are scaled against each other until their ranges are even.

A step per tensor, or one that a narrow accumulator or a zero point shares, no longer follows the widest channel alone.
Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1,
arXiv:1906.04721. ReLU6 is left as it is, and pairs with one between them with it: it does not scale.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from edgeprune.quantization.exported import Pair, exported, find_pairs

if TYPE_CHECKING:
    from torch import Tensor, nn

_SWEEPS = 40
_EVEN = 1e-3
"""Sweeps end when no factor is farther from 1 than this."""


def equalize(model: nn.Module, example: Tensor) -> tuple[nn.Module, int]:
    """A model that computes the same with evened-out weights.

    Args:
        model: left alone.
        example: one input, with its batch dimension.

    Returns:
        A copy in eval mode, and how many pairs of layers were scaled.

    Raises:
        BuildError: the model cannot be traced.
    """
    equalized = copy.deepcopy(model).cpu().eval()
    pairs = find_pairs(exported(equalized, example).graph)
    # Buffers come along for the variances of batch norms.
    tensors = {**dict(equalized.named_parameters()), **dict(equalized.named_buffers())}
    with torch.no_grad():
        pairs = tuple(pair for pair in pairs if _is_scalable(pair, tensors))
        for _ in range(_SWEEPS):
            changes = [_scale_(pair, tensors) for pair in pairs]
            if not any(changes):
                break
    return equalized, len(pairs)


def _is_scalable(pair: Pair, tensors: dict[str, Tensor]) -> bool:
    """Whether the second layer reads each channel of the first one by weights of its own."""
    channels = len(tensors[pair.first.weight])
    second = tensors[pair.second.weight]
    if pair.second.groups == 1:
        return second.shape[1] % channels == 0
    return pair.second.groups == channels and second.shape[1] == 1


def _scale_(pair: Pair, tensors: dict[str, Tensor]) -> bool:
    """Even out one pair; whether there was anything to do. Equations 10 and 11 of the paper."""
    first, second = tensors[pair.first.weight], tensors[pair.second.weight]
    channels = len(first)
    ranges = first.abs().flatten(1).amax(dim=1)
    if pair.norm is not None and pair.norm.variance is not None:
        deviation = torch.sqrt(tensors[pair.norm.variance] + pair.norm.epsilon)
        ranges = ranges * tensors[pair.norm.weight].abs() / deviation
    read = _by_channel(second, channels, depthwise=pair.second.groups > 1).abs().amax(dim=1)
    factors = torch.sqrt(ranges / read)
    # A channel that is zero on either side has no range to even out.
    factors = torch.where((ranges > 0) & (read > 0) & factors.isfinite(), factors, torch.ones_like(factors))
    weight, bias = (pair.norm.weight, pair.norm.bias) if pair.norm else (pair.first.weight, pair.first.bias)
    tensors[weight].div_(_along(factors, tensors[weight], axis=0))
    if bias is not None:
        tensors[bias].div_(factors)
    if pair.second.groups > 1:
        second.mul_(_along(factors, second, axis=0))
    else:
        # A flattened map has all pixels of a channel side by side.
        second.mul_(_along(factors.repeat_interleave(second.shape[1] // channels), second, axis=1))
    return bool(((factors - 1).abs() > _EVEN).any())


def _by_channel(second: Tensor, channels: int, *, depthwise: bool) -> Tensor:
    """[channels, ...]: all weights that read each channel of the layer before."""
    if depthwise:
        return second.flatten(1)
    return second.transpose(0, 1).reshape(channels, -1)


def _along(factors: Tensor, weight: Tensor, axis: int) -> Tensor:
    return factors.reshape([-1 if a == axis else 1 for a in range(weight.dim())])
