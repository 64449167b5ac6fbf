"""Taking channels out of layers: the edits that a cut consists of, and how each kind of layer bears them.

torch-pruning has functions for this too; they are not used because its LayerNorm slice keeps channels in the order of
a Python set, and its convolution slice cuts grouped convolutions without looking at the groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgeprune.errors import BuildError


class Side(StrEnum):
    """Which of a layer's channels an edit takes out."""

    OUT = "out"
    IN = "in"
    BOTH = "both"
    """Input and output channels are the same ones: norms, depthwise convolutions, embeddings."""
    PARAMETER = "parameter"
    """A bare parameter of the model, such as a learned scale; `layer` is the parameter's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEdit:
    """Channels to take out of one layer.

    Attributes:
        indices: into the layer's channels as they are before the cut.
        roots: for each index, the channel of the group's root layer that it goes with.
        dimension: of the parameter, for `Side.PARAMETER`.
    """

    layer: str
    side: Side
    indices: tuple[int, ...]
    roots: tuple[int, ...] = ()
    dimension: int = 0


def remove_channels_(model: nn.Module, edits: Iterable[ChannelEdit]) -> None:
    """Apply edits to a model, all in the coordinates from before; edits of the same channels are merged.

    Raises:
        BuildError: a layer cannot be cut, or nothing would be left of it; the model may be half changed then.
    """
    merged: dict[tuple[str, Side, int], set[int]] = {}
    for edit in edits:
        merged.setdefault((edit.layer, edit.side, edit.dimension), set()).update(edit.indices)
    for (layer, side, dimension), removed in merged.items():
        if side is Side.PARAMETER:
            parent, _, attribute = layer.rpartition(".")
            owner = model.get_submodule(parent)
            width = int(getattr(owner, attribute).shape[dimension])
            _keep_(owner, attribute, _kept(width, removed, layer), dimension)
        else:
            _cut_layer_(model.get_submodule(layer), layer, side, removed)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each output channel of a convolution sees exactly the input channel of the same index."""
    return (
        isinstance(layer, _ConvNd)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.out_channels > 1
    )


def output_weight(layer: nn.Module) -> Tensor | None:
    """The weight of a convolution or linear layer as [out_channels, in_channels, *kernel]; None for other layers."""
    if isinstance(layer, _ConvNd | nn.Linear):
        return output_first(layer, layer.weight.detach())
    return None


def output_first(layer: nn.Module, stored: Tensor) -> Tensor:
    """What is shaped like a layer's stored weight as [out_channels, in_channels of a group, *kernel].

    Only transposed convolutions are stored otherwise: as [in_channels, out_channels of a group, *kernel]. Done twice,
    it gives what it was given.
    """
    if not isinstance(layer, _ConvTransposeNd):
        return stored
    grouped = torch.unflatten(stored, 0, (layer.groups, -1))
    return grouped.transpose(1, 2).flatten(0, 1)


def _cut_layer_(layer: nn.Module, name: str, side: Side, removed: set[int]) -> None:
    if isinstance(layer, _ConvNd):
        _cut_convolution_(layer, name, side, removed)
    elif isinstance(layer, nn.Linear):
        _cut_linear_(layer, name, side, removed)
    elif isinstance(layer, _NormBase):
        keep = _kept(layer.num_features, removed, name)
        _keep_all_(layer, ("weight", "bias", "running_mean", "running_var"), keep)
        layer.num_features = len(keep)
    elif isinstance(layer, nn.LayerNorm) and len(layer.normalized_shape) == 1:
        keep = _kept(layer.normalized_shape[0], removed, name)
        _keep_all_(layer, ("weight", "bias"), keep)
        layer.normalized_shape = (len(keep),)
    elif isinstance(layer, nn.GroupNorm) and layer.num_groups in {1, layer.num_channels}:
        keep = _kept(layer.num_channels, removed, name)
        _keep_all_(layer, ("weight", "bias"), keep)
        layer.num_groups = 1 if layer.num_groups == 1 else len(keep)
        layer.num_channels = len(keep)
    elif isinstance(layer, nn.PReLU):
        if layer.num_parameters > 1:
            keep = _kept(layer.num_parameters, removed, name)
            _keep_(layer, "weight", keep, 0)
            layer.num_parameters = len(keep)
    elif isinstance(layer, nn.Embedding):
        keep = _kept(layer.embedding_dim, removed, name)
        _keep_(layer, "weight", keep, 1)
        layer.embedding_dim = len(keep)
    else:
        raise BuildError(f"layer {name!r}: channels of a {type(layer).__name__} cannot be cut", layer=name)


def _cut_convolution_(layer: _ConvNd, name: str, side: Side, removed: set[int]) -> None:
    if is_depthwise(layer):
        keep = _kept(layer.out_channels, removed, name)
        _keep_all_(layer, ("weight", "bias"), keep)
        layer.in_channels = layer.out_channels = layer.groups = len(keep)
        return
    if layer.groups > 1 or side is Side.BOTH:
        raise BuildError(
            f"layer {name!r}: a grouped convolution ({layer.groups} groups of {layer.in_channels} to "
            f"{layer.out_channels} channels) cannot be cut channel by channel",
            layer=name,
        )
    if side is Side.OUT:
        keep = _kept(layer.out_channels, removed, name)
        _keep_(layer, "weight", keep, 1 if layer.transposed else 0)
        _keep_(layer, "bias", keep, 0)
        layer.out_channels = len(keep)
    else:
        keep = _kept(layer.in_channels, removed, name)
        _keep_(layer, "weight", keep, 0 if layer.transposed else 1)
        layer.in_channels = len(keep)


def _cut_linear_(layer: nn.Linear, name: str, side: Side, removed: set[int]) -> None:
    if side is Side.OUT:
        keep = _kept(layer.out_features, removed, name)
        _keep_all_(layer, ("weight", "bias"), keep)
        layer.out_features = len(keep)
    else:
        keep = _kept(layer.in_features, removed, name)
        _keep_(layer, "weight", keep, 1)
        layer.in_features = len(keep)


def _kept(width: int, removed: set[int], name: str) -> Tensor:
    """Indices that stay, ascending."""
    outside = [i for i in removed if not 0 <= i < width]
    if outside:
        raise BuildError(f"layer {name!r}: expected channels from 0 to {width - 1}, got {outside[0]}", layer=name)
    keep = [i for i in range(width) if i not in removed]
    if not keep:
        raise BuildError(f"layer {name!r}: no channel would be left of {width}", layer=name)
    return torch.tensor(keep, dtype=torch.long)


def _keep_all_(layer: nn.Module, attributes: tuple[str, ...], keep: Tensor) -> None:
    for attribute in attributes:
        _keep_(layer, attribute, keep, 0)


def _keep_(layer: nn.Module, attribute: str, keep: Tensor, dimension: int) -> None:
    """Replace a parameter or buffer by its kept slices; whether it is trained stays as it was."""
    old = getattr(layer, attribute, None)
    if old is None:
        return
    new = old.detach().index_select(dimension, keep.to(old.device))
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    setattr(layer, attribute, new)
