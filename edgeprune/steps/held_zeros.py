"""Zeros of a masked model, put into another one and held there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgeprune.errors import BuildError

if TYPE_CHECKING:
    from torch import nn


class ZeroHolder:
    """Puts a model's masked weights back to zero when it is called, such as after each step of the optimizer.

    A class and not a closure: training in several processes hands it over to each of them.

    Args:
        model: changed in place, by calls only.
        like: a model of the same shape, with the zeros; it may be the same one.
        layers: that are masked. Zeros elsewhere, as of a position embedding that begins at zero, are left to learn.
    """

    def __init__(self, model: nn.Module, like: nn.Module, layers: Iterable[str]) -> None:
        theirs = dict(like.named_parameters())
        inside = tuple(f"{layer}." for layer in layers)
        # Only weights of two dimensions and more: nothing masks biases and norms.
        self._zeros = [
            (name.rpartition(".")[0], parameter, theirs[name].detach() == 0)
            for name, parameter in model.named_parameters()
            if parameter.dim() > 1 and name.startswith(inside)
        ]

    def __call__(self) -> None:
        """Set them to zero."""
        import torch

        with torch.no_grad():
            for _, parameter, is_zero in self._zeros:
                parameter.masked_fill_(is_zero, 0.0)

    def verify(self) -> None:
        """Make sure that they were held.

        Raises:
            BuildError: a masked weight is not zero.
        """
        for layer, parameter, is_zero in self._zeros:
            alive = int(parameter.detach()[is_zero].count_nonzero())
            if alive:
                raise BuildError(f"layer {layer!r}: {alive} masked weights are not zero", layer=layer)
