"""What a layer multiplies its weights by: its inputs as rows, one for each place where its kernel is laid on them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd

if TYPE_CHECKING:
    from torch import Tensor, nn


def input_rows(
    layer: _ConvNd | torch.nn.Linear, given: Tensor, outputs: Tensor, chosen: Tensor | None = None
) -> Tensor:
    """The inputs of a convolution or linear layer, laid out so that its outputs are products of rows and weights.

    Args:
        layer: a transposed convolution is one with a stride of 1 of its inputs with zeros between them.
        given: [examples, channels, *positions] for a convolution, [examples, ..., channels] for a linear layer.
        outputs: what the layer made of it.
        chosen: numbers of the rows to make, counted over examples and output positions; None for all.

    Returns:
        [rows, groups, inputs]: `inputs` are the channels of a group times the kernel, as in the weight laid out by
        `output_first`, flattened from its second dimension on.
    """
    if isinstance(layer, torch.nn.Linear):
        rows = given.flatten(0, -2)
        return (rows if chosen is None else rows[chosen]).unsqueeze(1)
    windows = _windows(layer, given, tuple(outputs.shape[2:]))
    places = windows.shape[: windows.dim() - 1 - len(layer.kernel_size)]
    if chosen is None:
        picked = windows.reshape(prod(places), layer.in_channels, *layer.kernel_size)
    else:
        picked = windows[torch.unravel_index(chosen, places)]
    if layer.transposed:
        picked = picked.flip(tuple(range(2, picked.dim())))
    return torch.unflatten(picked, 1, (layer.groups, -1)).flatten(2)


def output_rows(layer: nn.Module, outputs: Tensor, chosen: Tensor | None = None) -> Tensor:
    """The outputs of a layer, [rows, out_channels], in the order of `input_rows`."""
    last = outputs if isinstance(layer, torch.nn.Linear) else outputs.movedim(1, -1)
    rows = last.flatten(0, -2)
    return rows if chosen is None else rows[chosen]


def row_count(layer: nn.Module, outputs: Tensor) -> int:
    """How many rows there are."""
    return outputs.numel() // outputs.shape[-1 if isinstance(layer, torch.nn.Linear) else 1]


def _windows(layer: _ConvNd, given: Tensor, positions: tuple[int, ...]) -> Tensor:
    """[examples, *output positions, channels, *kernel], a view of the padded inputs; of a transposed one, backwards."""
    view = _spread(layer, given, positions) if layer.transposed else padded(layer, given)
    strides = (1,) * len(positions) if layer.transposed else layer.stride
    for axis, (size, stride, dilation) in enumerate(
        zip(layer.kernel_size, strides, layer.dilation, strict=True), start=2
    ):
        view = view.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
    return view.movedim(1, view.dim() - 1 - len(layer.kernel_size))


def _spread(layer: _ConvNd, given: Tensor, positions: tuple[int, ...]) -> Tensor:
    """The inputs of a transposed convolution a stride apart, with zeros between and around them.

    Output p is the sum over places k of a kernel of K of the input at (p + padding - k * dilation) / stride, where that
    is a whole number: with dilation * (K - 1) - padding zeros before, what the window at p holds at place K - 1 - k.
    """
    sizes = [(n - 1) * stride + 1 for n, stride in zip(given.shape[2:], layer.stride, strict=True)]
    apart = given.new_zeros(*given.shape[:2], *sizes)
    apart[(slice(None), slice(None), *(slice(None, None, stride) for stride in layer.stride))] = given
    sides: list[int] = []
    for axis in reversed(range(len(sizes))):
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        before = reach - int(layer.padding[axis])
        sides += [before, positions[axis] + reach - before - sizes[axis]]
    return functional.pad(apart, sides)


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
