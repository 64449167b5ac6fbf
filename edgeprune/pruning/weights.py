"""The weights that a criterion scores, laid out alike."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn import Linear
from torch.nn.modules.conv import _ConvNd

from edgeprune.graph.slicing import output_first, output_weight
from edgeprune.protocols import Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor, nn


def weighted_layers(model: nn.Module, names: tuple[str, ...]) -> dict[str, _ConvNd | Linear]:
    """Those of some layers that are convolutions or linear layers, by name; norms are left out."""
    layers = {name: model.get_submodule(name) for name in names}
    return {name: layer for name, layer in layers.items() if isinstance(layer, _ConvNd | Linear)}


def output_weights(task: ScoringTask) -> dict[str, Tensor]:
    """By layer, float32 without a gradient, [out_channels, in_channels of a group, *kernel].

    Where output channels are scored, attention and recurrent layers are among them, as `output_weight` lays them out.
    """
    names = task.layers if task.granularity is Granularity.OUT_CHANNEL else weighted_layers(task.model, task.layers)
    weights = {name: output_weight(task.model.get_submodule(name)) for name in names}
    return {name: weight.float() for name, weight in weights.items() if weight is not None}


def input_width(task: ScoringTask, name: str) -> int:
    """How many channels a convolution or linear layer reads."""
    layer = weighted_layers(task.model, (name,))[name]
    return layer.in_channels if isinstance(layer, _ConvNd) else layer.in_features


def by_layer(task: ScoringTask, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is known of each parameter as what it means for a layer's weights or channels.

    Args:
        task: what to score: its weights, or its output channels.
        values: by full name of the parameter, of the parameter's shape. Biases are left out; those of norms count
            with the scale.

    Returns:
        By layer: [out_channels, in_channels, *kernel] for weights of convolutions and linear layers; else
        [out_channels], the sum over all weights of the channel.
    """
    weighted = weighted_layers(task.model, task.layers)
    found: dict[str, Tensor] = {}
    for name in task.layers:
        layer, own = task.model.get_submodule(name), values.get(f"{name}.weight")
        if name in weighted and own is not None:
            weight = output_first(layer, own)
            found[name] = weight if task.granularity is Granularity.WEIGHT else weight.flatten(1).sum(dim=1)
        elif task.granularity is Granularity.OUT_CHANNEL and own is not None and own.dim() == 1:
            found[name] = own + values.get(f"{name}.bias", 0.0)
        elif task.granularity is Granularity.OUT_CHANNEL and (rows := _laid_out(name, layer, values)) is not None:
            found[name] = rows.flatten(1).sum(dim=1)
    return found


def _laid_out(name: str, layer: nn.Module, values: Mapping[str, Tensor]) -> Tensor | None:
    """Values of the parameters of an attention or recurrent layer, laid out as its weights are; None for others."""
    with_values = copy.deepcopy(layer)
    with torch.no_grad():
        for own, parameter in with_values.named_parameters(recurse=False):
            if f"{name}.{own}" in values:
                parameter.copy_(values[f"{name}.{own}"])
    return output_weight(with_values)
