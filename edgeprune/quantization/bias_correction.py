"""Bias correction: what rounded weights shift on average is taken out of each layer's bias.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2,
arXiv:1906.04721, with means over calibration samples: its appendix D. Layer by layer, each fed by those that were
rounded and corrected before it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.quantization.rounding import channel_axis, rounded_weight

if TYPE_CHECKING:
    import numpy as np

_MOST_SAMPLES = 128


def correct_biases(model: nn.Module, calibration: np.ndarray) -> tuple[nn.Module, int]:
    """A model with its own weights and with biases for rounded ones; layers without a bias get one.

    Args:
        model: left alone.
        calibration: [samples, ...], float32, preprocessed; the first 128 are looked at.

    Returns:
        A copy in eval mode, and how many layers were corrected. Layers that run more than once, or that something else
        than their own `forward` runs, are left as they are.
    """
    corrected = copy.deepcopy(model).cpu().eval()
    samples = torch.from_numpy(calibration[:_MOST_SAMPLES])
    rounded = copy.deepcopy(corrected)
    with torch.no_grad():
        wanted = _means(corrected, samples, _layers(corrected))
        for name in wanted:
            layer = _layers(rounded)[name]
            layer.weight.copy_(rounded_weight(layer.weight, channel_axis(layer)))
            found = _means(rounded, samples, {name: layer})
            shift = found[name] - wanted[name]
            for net in (rounded, corrected):
                own = _layers(net)[name]
                own.bias = nn.Parameter((torch.zeros_like(shift) if own.bias is None else own.bias) - shift)
    return corrected, len(wanted)


def _layers(model: nn.Module) -> dict[str, _ConvNd | nn.Linear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, _ConvNd | nn.Linear)}


def _means(model: nn.Module, samples: Tensor, layers: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """[channels] for each layer that runs once, in the order in which they run: the mean of what it puts out."""
    means: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def hook(name: str) -> torch.utils.hooks.RemovableHandle:
        def note(module: nn.Module, _: object, output: Tensor) -> None:
            axis = 1 if isinstance(module, _ConvNd) and output.dim() > 1 else output.dim() - 1
            calls[name] = calls.get(name, 0) + 1
            means[name] = output.mean(dim=[a for a in range(output.dim()) if a != axis])

        return layers[name].register_forward_hook(note)

    handles = [hook(name) for name in layers]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # An encoder layer's fast path runs none of its layers.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        model(samples)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for handle in handles:
            handle.remove()
    return {name: mean for name, mean in means.items() if calls[name] == 1}
