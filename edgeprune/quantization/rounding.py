"""Rounding as the runtimes' INT8 kernels have it, in torch: weights symmetric per channel, activations affine."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

WEIGHT_LIMIT = 127
"""Weights take [-127, 127]: symmetric, so that no zero point is multiplied; Jacob et al. 2018, arXiv:1712.05877."""

_LOW, _HIGH = -128, 127
_LEAST = torch.finfo(torch.float32).tiny


def channel_axis(layer: nn.Module) -> int:
    """The axis of a layer's weight that counts its output channels."""
    return 1 if isinstance(layer, _ConvTransposeNd) else 0


def weight_scales(weight: Tensor, axis: int = 0) -> Tensor:
    """The step of each output channel.

    Args:
        weight: [..., channels, ...], float32.
        axis: of the channels.

    Returns:
        [channels], float32, positive; without a gradient.
    """
    others = [a for a in range(weight.dim()) if a != axis]
    largest = weight.detach().abs().amax(dim=others) if others else weight.detach().abs()
    # A channel of zeros has any step.
    return torch.where(largest > 0, largest / WEIGHT_LIMIT, torch.ones_like(largest)).clamp(min=_LEAST)


def rounded_weight(weight: Tensor, axis: int = 0) -> Tensor:
    """The weight as INT8 holds it; its gradient passes as if nothing had been rounded, and zero stays zero.

    Args:
        weight: [..., channels, ...], float32.
        axis: of the channels.

    Source of the gradient: Bengio et al. 2013, "Estimating or Propagating Gradients", arXiv:1308.3432.
    """
    scales = weight_scales(weight, axis)
    zeros = torch.zeros(len(scales), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, zeros, axis, -WEIGHT_LIMIT, WEIGHT_LIMIT)


def activation_step(low: float, high: float) -> tuple[float, int]:
    """(scale, zero point) of the INT8 values that span a range and hold zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / (_HIGH - _LOW), _LEAST)
    return scale, round(_LOW - low / scale)


def rounded_activation(values: Tensor, low: float, high: float) -> Tensor:
    """Values as INT8 holds them, clipped to a range; no gradient passes where they are clipped."""
    scale, zero_point = activation_step(low, high)
    return torch.fake_quantize_per_tensor_affine(values, scale, zero_point, _LOW, _HIGH)
