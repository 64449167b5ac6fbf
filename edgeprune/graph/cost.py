"""What a model costs on paper. Latency is measured, never derived from these."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgeprune.graph.attention import HeadwiseAttention, attended
from edgeprune.graph.slicing import headwise_, is_replaceable
from edgeprune.graph.trial import run

if TYPE_CHECKING:
    from torch import Tensor, nn


def count_macs(model: nn.Module, example: Tensor) -> int:
    """Multiply-accumulates of one forward pass in convolutions and linear layers, over the whole example batch.

    Matrix products outside of layers (attention scores, say), norms, activations and biases are not counted.

    Raises:
        InputError: the model does not run on the example.
    """
    counted = copy.deepcopy(model).eval()  # Hooks and mode stay off the caller's model.
    total = 0

    def count(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight: Tensor = layer.weight  # type: ignore[assignment]
        # Each output element (each input element of a transposed convolution) meets one filter.
        meeting = arguments[0] if isinstance(layer, _ConvTransposeNd) else output
        total += meeting.numel() * (weight.numel() // weight.shape[0])

    def count_projection(layer: HeadwiseAttention, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        nonlocal total
        features = layer.in_proj_weight.numel() // 3
        total += sum(given.numel() // layer.embed_dim * features for given in attended(arguments, named))

    for name, layer in list(counted.named_modules()):
        if isinstance(layer, torch.nn.MultiheadAttention) and is_replaceable(layer):
            # torch's own attention calls none of its layers.
            headwise_(counted, name)
    for layer in counted.modules():
        if isinstance(layer, _ConvNd | torch.nn.Linear):
            layer.register_forward_hook(count)
        elif isinstance(layer, HeadwiseAttention):
            layer.register_forward_pre_hook(count_projection, with_kwargs=True)
    run(counted, example)
    return total


def count_parameters(model: nn.Module) -> int:
    """Number of weights, shared ones once, buffers not counted."""
    return sum(p.numel() for p in model.parameters())
