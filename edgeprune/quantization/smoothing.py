"""SmoothQuant: what is hard to quantize in the activations of a transformer moves into the weights that read them.

Source: Xiao et al. 2023, "SmoothQuant", section 4, arXiv:2211.10438. The factors go into the layer norm before, so
nothing is computed that was not computed before; where there is no layer norm, nothing is smoothed.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from edgeprune.quantization.exported import exported, find_smoothable

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

_MOST_SAMPLES = 64


def smooth(model: nn.Module, calibration: np.ndarray, alpha: float) -> tuple[nn.Module, int]:
    """A model that computes the same with smoother activations.

    Args:
        model: left alone.
        calibration: [samples, ...], float32, preprocessed; the first 64 are looked at.
        alpha: 0 leaves the difficulty with the activations, 1 moves all of it into the weights.

    Returns:
        A copy in eval mode, and how many layer norms were scaled.

    Raises:
        BuildError: the model cannot be traced.
    """
    smoothed = copy.deepcopy(model).cpu().eval()
    samples = torch.from_numpy(calibration[:_MOST_SAMPLES])
    graph_module = exported(smoothed, samples[:1])
    found = find_smoothable(graph_module.graph)
    watch = _Watch(graph_module, {place.node for place in found})
    with torch.no_grad():
        for sample in samples:
            watch.run(sample[None])
        parameters = dict(smoothed.named_parameters())
        for place in found:
            weights: list[Tensor] = [parameters[reader.weight] for reader in place.readers]
            factors = smoothing_factors(watch.largest[place.node], torch.cat(weights), alpha)
            for weight in weights:
                weight.mul_(factors)
            parameters[place.norm.weight].div_(factors)
            parameters[place.norm.bias].div_(factors)
    return smoothed, len(found)


def smoothing_factors(activations: Tensor, weights: Tensor, alpha: float) -> Tensor:
    """What each input channel's activations are divided by, and its weights multiplied with. Equation 4 of the paper.

    Args:
        activations: [channels], the largest magnitude of each.
        weights: [rows, channels], of all layers that read them.
        alpha: in [0, 1].

    Returns:
        [channels], positive; 1 where a channel is zero on either side.
    """
    largest = weights.abs().amax(dim=0)
    factors = activations**alpha / largest ** (1 - alpha)
    is_used = (activations > 0) & (largest > 0) & factors.isfinite()
    return torch.where(is_used, factors, torch.ones_like(factors))


class _Watch(fx.Interpreter):
    """Runs a graph and keeps the largest magnitude of each channel of some nodes."""

    def __init__(self, module: fx.GraphModule, names: set[str]) -> None:
        super().__init__(module)
        self._names = names
        self.largest: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:  # noqa: ANN401
        """As without us, but looked at."""
        value = super().run_node(n)
        if n.name in self._names:
            seen = value.abs().flatten(0, -2).amax(dim=0)
            self.largest[n.name] = torch.maximum(self.largest.get(n.name, seen), seen)
        return value
