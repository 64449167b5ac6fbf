"""Batch norm statistics measured anew: after a cut they are those of another model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.errors import InputError
from edgeprune.graph.modes import evaluating

if TYPE_CHECKING:
    from torch import Tensor, nn

_FEWEST = 2
"""Examples in a batch that has a variance."""


@torch.no_grad()
def reestimate_(model: nn.Module, inputs: Tensor, batch_size: int = 256) -> None:
    """Replace all running means and variances by averages over some data; no weight changes.

    Args:
        model: its batch norms are changed in place; a model without any is left alone.
        inputs: [examples, ...], preprocessed; a last batch of a single example is left out.
        batch_size: each batch counts alike.

    Raises:
        InputError: there are norms, and no batch has more than one example: it would tell of no variance.

    Source: Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", section 3.3,
    arXiv:2007.02491.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    if min(len(inputs), batch_size) < _FEWEST:
        raise InputError(
            f"batch norms: expected batches of at least {_FEWEST} examples to take statistics of, "
            f"got {len(inputs)} examples in batches of {batch_size}"
        )
    momenta = [norm.momentum for norm in norms]
    with evaluating(model):  # Dropout and the like stay off: only the norms learn.
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # A plain average over the batches.
                norm.train()
            for part in torch.split(inputs, batch_size):
                if len(part) >= _FEWEST:
                    model(part)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
