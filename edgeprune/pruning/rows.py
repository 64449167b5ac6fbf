"""What a layer multiplies its weights by: its inputs as rows, one for each place where its kernel is laid on them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import BuildError

if TYPE_CHECKING:
    from torch import Tensor, nn


def input_rows(name: str, layer: nn.Module, given: Tensor, chosen: Tensor | None = None) -> Tensor:
    """The inputs of a convolution or linear layer, laid out so that its outputs are products of rows and weights.

    Args:
        name: of the layer, for the message.
        layer: not a transposed convolution.
        given: [examples, channels, *positions] for a convolution, [examples, ..., channels] for a linear layer.
        chosen: numbers of the rows to make, counted over examples and output positions; None for all.

    Returns:
        [rows, groups, inputs]: `inputs` are the channels of a group times the kernel, as in `weight.flatten(1)`.

    Raises:
        BuildError: it is another kind of layer.
    """
    if isinstance(layer, torch.nn.Linear):
        rows = given.flatten(0, -2)
        return (rows if chosen is None else rows[chosen]).unsqueeze(1)
    if not isinstance(layer, _ConvNd) or layer.transposed:
        raise BuildError(
            f"layer {name!r}: the inputs of a {type(layer).__name__} cannot be laid out as rows", layer=name
        )
    windows = _windows(layer, given)
    places = windows.shape[: windows.dim() - 1 - len(layer.kernel_size)]
    if chosen is None:
        picked = windows.reshape(prod(places), layer.in_channels, *layer.kernel_size)
    else:
        picked = windows[torch.unravel_index(chosen, places)]
    return torch.unflatten(picked, 1, (layer.groups, -1)).flatten(2)


def output_rows(layer: nn.Module, outputs: Tensor, chosen: Tensor | None = None) -> Tensor:
    """The outputs of a layer, [rows, out_channels], in the order of `input_rows`."""
    last = outputs if isinstance(layer, torch.nn.Linear) else outputs.movedim(1, -1)
    rows = last.flatten(0, -2)
    return rows if chosen is None else rows[chosen]


def row_count(layer: nn.Module, outputs: Tensor) -> int:
    """How many rows there are."""
    return outputs.numel() // outputs.shape[-1 if isinstance(layer, torch.nn.Linear) else 1]


def _windows(layer: _ConvNd, given: Tensor) -> Tensor:
    """[examples, *output positions, channels, *kernel], a view of the padded inputs."""
    view = padded(layer, given)
    for axis, (size, stride, dilation) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=2
    ):
        view = view.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return view.movedim(1, view.dim() - 1 - len(layer.kernel_size))


def padded(layer: _ConvNd, given: Tensor) -> Tensor:
    """The inputs of a convolution with what it pads them by."""
    sides: list[int] = []
    for axis in reversed(range(len(layer.kernel_size))):
        if layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            sides += [total // 2, total - total // 2]
        elif not isinstance(layer.padding, str):
            sides += [layer.padding[axis]] * 2
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(given, sides, mode=mode) if any(sides) else given
