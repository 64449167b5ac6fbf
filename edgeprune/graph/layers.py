"""How many weights each layer has, and how many of them are zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.records.model_card import LayerWeights

if TYPE_CHECKING:
    from torch import nn


def layer_weights(model: nn.Module) -> tuple[LayerWeights, ...]:
    """Every module that holds weights of two dimensions or more itself, in the model's order.

    Biases and norms are left out: nothing prunes them by themselves. A tensor that two modules share counts with the
    first.
    """
    seen: set[int] = set()
    found = []
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.dim() > 1 and id(p) not in seen]
        seen.update(id(p) for p in own)
        if own:
            zeros = sum(int((p == 0).sum()) for p in own)
            found.append(
                LayerWeights(
                    layer=name or "(model)",
                    kind=type(module).__name__,
                    weights=sum(p.numel() for p in own),
                    zeros=zeros,
                )
            )
    return tuple(found)
