"""Taking channels out of layers: the edits that a cut consists of, and how each kind of layer bears them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgeprune.errors import BuildError
from edgeprune.graph.attention import HeadwiseAttention

Recurrent = nn.RNNBase | nn.RNNCellBase
"""Recurrent layers, and single steps of them."""


class Side(StrEnum):
    """Which of a layer's channels an edit takes out."""

    OUT = "out"
    IN = "in"
    BOTH = "both"
    """Input and output channels are the same ones: norms, depthwise convolutions, embeddings."""
    PARAMETER = "parameter"
    """A bare parameter of the model, such as a learned scale; `layer` is the parameter's name."""
    ATTRIBUTE = "attribute"
    """A number that the module's code reads, such as its count of heads; it falls by as many as go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEdit:
    """Channels to take out of one layer.

    Attributes:
        indices: into the layer's channels as they are before the cut.
        roots: for each index, the channel of the group's root layer that it goes with.
        dimension: of the parameter, for `Side.PARAMETER`; for `Side.ATTRIBUTE`, where in a list or tuple of numbers.
        attribute: its name, for `Side.ATTRIBUTE`.
    """

    layer: str
    side: Side
    indices: tuple[int, ...]
    roots: tuple[int, ...] = ()
    dimension: int = 0
    attribute: str = ""


def remove_channels_(model: nn.Module, edits: Iterable[ChannelEdit]) -> None:
    """Apply edits to a model, all in the coordinates from before; edits of the same channels are merged.

    Raises:
        BuildError: a layer cannot be cut, or nothing would be left of it; the model may be half changed then.
    """
    merged: dict[tuple[str, Side, int, str], set[int]] = {}
    for edit in edits:
        merged.setdefault((edit.layer, edit.side, edit.dimension, edit.attribute), set()).update(edit.indices)
    for (layer, side, dimension, attribute), removed in merged.items():
        if side is Side.PARAMETER:
            parent, _, name = layer.rpartition(".")
            owner = model.get_submodule(parent)
            width = int(getattr(owner, name).shape[dimension])
            _keep_(owner, name, _kept(width, removed, layer), dimension)
        elif side is Side.ATTRIBUTE:
            _lower_(model.get_submodule(layer), attribute, dimension, len(removed))
        else:
            _cut_layer_(headwise_(model, layer), layer, side, removed)


def is_depthwise(layer: nn.Module) -> bool:
    """Whether each output channel of a convolution sees exactly the input channel of the same index."""
    return (
        isinstance(layer, _ConvNd)
        and layer.groups == layer.in_channels == layer.out_channels
        and layer.out_channels > 1
    )


def output_weight(layer: nn.Module) -> Tensor | None:
    """What makes each output channel of a layer: [out_channels, ...]; None for layers that only pass channels on.

    A convolution or linear layer gives its weight as [out_channels, in_channels, *kernel], attention its packed
    projection [3 * features, in_features], a recurrent layer [hidden, ...], all gates and layers of a hidden unit in
    one row.
    """
    if isinstance(layer, _ConvNd | nn.Linear):
        return output_first(layer, layer.weight.detach())
    if isinstance(layer, nn.MultiheadAttention | HeadwiseAttention):
        packed: Tensor | None = layer.in_proj_weight
        return None if packed is None else packed.detach()
    if isinstance(layer, Recurrent):
        hidden = int(layer.hidden_size)
        weights = [w.detach() for n, w in layer.named_parameters(recurse=False) if n.startswith("weight_")]
        return torch.cat([w.reshape(-1, hidden, w.shape[1]).transpose(0, 1).flatten(1) for w in weights], dim=1)
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


def switch_off_(layer: nn.Module, side: Side, indices: Iterable[int]) -> None:
    """Zero what a layer takes from input channels, or a recurrent layer from its own hidden units; in place."""
    channels = list(indices)
    with torch.no_grad():
        for weight in _reading(layer, side):
            weight[:, channels] = 0.0
        if side is Side.IN and isinstance(layer, _ConvNd):
            weight = layer.weight
            if layer.transposed:
                weight[channels] = 0.0
                return
            inner = weight.shape[1]
            grouped = weight.view(layer.groups, -1, *weight.shape[1:])
            for channel in channels:
                grouped[channel // inner, :, channel % inner] = 0.0


def _reading(layer: nn.Module, side: Side) -> list[Tensor]:
    """Weights whose second dimension is what is read."""
    if side is Side.IN and isinstance(layer, nn.Linear):
        return [layer.weight]
    if side is Side.IN and isinstance(layer, nn.MultiheadAttention | HeadwiseAttention):
        return [layer.in_proj_weight]
    if isinstance(layer, Recurrent):
        own = dict(layer.named_parameters(recurse=False))
        if side is Side.IN:
            return [w for n, w in own.items() if n.startswith("weight_ih") and _level(n) == 0]
        # Both directions of a layer feed the next one.
        hidden = int(layer.hidden_size)
        inner = [w for n, w in own.items() if n.startswith("weight_hh")]
        deeper = [w for n, w in own.items() if n.startswith("weight_ih") and _level(n) > 0]
        return [*inner, *(part for w in deeper for part in torch.split(w, hidden, dim=1))]
    return []


def _level(name: str) -> int:
    """Of `weight_ih_l1_reverse` it is 1; cells have one level."""
    _, mark, rest = name.partition("_l")
    return int(rest.split("_")[0]) if mark else 0


def headwise_(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name, or what takes the place of torch's attention, whose heads cannot be fewer.

    Raises:
        BuildError: an attention that cannot be replaced.
    """
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.MultiheadAttention):
        return layer
    if not name or not is_replaceable(layer):
        raise BuildError(
            f"layer {name!r}: torch's MultiheadAttention can only be cut inside a model, with one width for query, key "
            "and value, and without bias_k and add_zero_attn",
            layer=name,
        )
    headwise = HeadwiseAttention(layer)
    model.set_submodule(name, headwise)
    return headwise


def all_headwise_(model: nn.Module) -> None:
    """Put headwise attention in the place of torch's, which calls none of its layers, wherever it does the same.

    Attention that is the model itself, or has a forward pass of its own, stays.
    """
    replaced: dict[int, HeadwiseAttention] = {}
    for name, layer in [*model.named_modules(remove_duplicate=False)]:
        plain = isinstance(layer, nn.MultiheadAttention) and type(layer).forward is nn.MultiheadAttention.forward
        if name and plain and is_replaceable(layer):
            if id(layer) not in replaced:
                replaced[id(layer)] = HeadwiseAttention(layer)
            model.set_submodule(name, replaced[id(layer)])


def is_replaceable(layer: nn.MultiheadAttention) -> bool:
    """Whether `HeadwiseAttention` can do what the layer does."""
    return layer.in_proj_weight is not None and layer.bias_k is None and not layer.add_zero_attn


def _lower_(layer: nn.Module, attribute: str, position: int, count: int) -> None:
    old = getattr(layer, attribute)
    if isinstance(old, int):
        setattr(layer, attribute, old - count)
    else:
        setattr(layer, attribute, type(old)(v - count if i == position else v for i, v in enumerate(old)))


def _cut_layer_(layer: nn.Module, name: str, side: Side, removed: set[int]) -> None:
    if isinstance(layer, _ConvNd):
        _cut_convolution_(layer, name, side, removed)
    elif isinstance(layer, HeadwiseAttention):
        _cut_attention_(layer, name, side, removed)
    elif isinstance(layer, Recurrent):
        _cut_recurrent_(layer, name, side, removed)
    elif isinstance(layer, nn.Linear):
        _cut_linear_(layer, name, side, removed)
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
        _cut_norm_(layer, name, removed)


def _cut_norm_(layer: nn.Module, name: str, removed: set[int]) -> None:
    if isinstance(layer, _NormBase):
        keep = _kept(layer.num_features, removed, name)
        _keep_all_(layer, ("weight", "bias", "running_mean", "running_var"), keep)
        layer.num_features = len(keep)
    elif isinstance(layer, nn.LayerNorm | nn.RMSNorm) and len(layer.normalized_shape) == 1:
        keep = _kept(layer.normalized_shape[0], removed, name)
        _keep_all_(layer, ("weight", "bias"), keep)
        layer.normalized_shape = (len(keep),)
    elif isinstance(layer, nn.GroupNorm):
        keep = _kept(layer.num_channels, removed, name)
        if layer.num_groups == layer.num_channels:
            layer.num_groups = len(keep)
        else:
            _same_in_each(keep, layer.num_channels, layer.num_groups, name)
        _keep_all_(layer, ("weight", "bias"), keep)
        layer.num_channels = len(keep)
    else:
        raise BuildError(f"layer {name!r}: channels of a {type(layer).__name__} cannot be cut", layer=name)


def _cut_convolution_(layer: _ConvNd, name: str, side: Side, removed: set[int]) -> None:
    if is_depthwise(layer):
        keep = _kept(layer.out_channels, removed, name)
        _keep_all_(layer, ("weight", "bias"), keep)
        layer.in_channels = layer.out_channels = layer.groups = len(keep)
        return
    if side is Side.BOTH:
        raise BuildError(f"layer {name!r} is no depthwise convolution", layer=name)
    inner, outer = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    width = layer.out_channels if side is Side.OUT else layer.in_channels
    keep = _kept(width, removed, name)
    if layer.groups > 1 and inner == 1 and set((keep % outer).tolist()) == set(range(outer)):
        _cut_whole_groups_(layer, name, removed, outer)
        return
    # Weights are [out, in / groups, *kernel], or [in, out / groups, *kernel] where transposed.
    whole = (side is Side.OUT) is not layer.transposed
    _keep_(layer, "weight", keep if whole else _same_in_each(keep, width, layer.groups, name), 0 if whole else 1)
    _same_in_each(keep, width, layer.groups, name)
    if side is Side.OUT:
        _keep_(layer, "bias", keep, 0)
        layer.out_channels = len(keep)
    else:
        layer.in_channels = len(keep)


def _cut_whole_groups_(layer: _ConvNd, name: str, removed: set[int], outer: int) -> None:
    """Each input channel makes several outputs, which go with it."""
    keep = _kept(layer.out_channels, removed, name)
    groups = torch.unique(keep // outer)
    if len(groups) * outer != len(keep):
        raise BuildError(f"layer {name!r}: expected whole groups of {outer} outputs", layer=name)
    _keep_(layer, "weight", groups if layer.transposed else keep, 0)
    _keep_(layer, "bias", keep, 0)
    layer.out_channels, layer.in_channels, layer.groups = len(keep), len(groups), len(groups)


def _same_in_each(keep: Tensor, width: int, groups: int, name: str) -> Tensor:
    """What stays of the first group; every group must keep the same."""
    size = width // groups
    kept = keep[keep < size]
    if len(kept) == 0 or not torch.equal(keep, (kept + size * torch.arange(groups)[:, None]).reshape(-1)):
        raise BuildError(f"layer {name!r}: expected the same channels to go from each of {groups} groups", layer=name)
    return kept


def _cut_attention_(layer: HeadwiseAttention, name: str, side: Side, removed: set[int]) -> None:
    if side is Side.IN:
        _keep_(layer, "in_proj_weight", _kept(layer.embed_dim, removed, name), 1)
        return
    keep = _kept(layer.in_proj_weight.shape[0], removed, name)
    kept = _same_in_each(keep, layer.in_proj_weight.shape[0], 3, name)
    _keep_all_(layer, ("in_proj_weight", "in_proj_bias"), keep)
    layer.num_heads = len(kept) // layer.head_dim


def _cut_recurrent_(layer: Recurrent, name: str, side: Side, removed: set[int]) -> None:
    """Input features, or hidden units from every gate, layer and direction."""
    hidden = int(layer.hidden_size)
    if side is Side.IN:
        keep = _kept(int(layer.input_size), removed, name)
        for parameter in [n for n, _ in layer.named_parameters(recurse=False) if n.startswith("weight_ih")]:
            if _level(parameter) == 0:
                _keep_(layer, parameter, keep, 1)
        layer.input_size = len(keep)
        return
    keep = _kept(hidden, removed, name)
    for parameter, values in [*layer.named_parameters(recurse=False)]:
        _keep_(layer, parameter, _repeated(keep, hidden, values.shape[0]), 0)
        if parameter.startswith("weight_hh") or (parameter.startswith("weight_ih") and _level(parameter) > 0):
            _keep_(layer, parameter, _repeated(keep, hidden, values.shape[1]), 1)
    layer.hidden_size = len(keep)


def _repeated(keep: Tensor, width: int, whole: int) -> Tensor:
    """The same channels in each gate or direction."""
    return (keep + width * torch.arange(whole // width)[:, None]).reshape(-1)


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
