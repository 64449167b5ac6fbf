"""Which scores stay, by pattern: single ones, N of M, blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def highest(scores: Tensor, sparsity: float) -> Tensor:
    """True for all but the lowest `sparsity` share of [count] scores; of equal ones the later stay."""
    zeros = round(sparsity * scores.numel())
    if zeros == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    # Not a sort: of 25 million weights it takes ten times as long.
    limit = torch.kthvalue(scores, zeros).values
    kept = scores >= limit
    equal = (scores == limit).nonzero().flatten()
    kept[equal[: zeros - int((~kept).count_nonzero())]] = False
    return kept


def n_of_m(scores: Tensor, n: int, m: int) -> Tensor:
    """True for the n highest of every m along [*kernel, in_channels]."""
    channels_last = scores.movedim(1, -1)
    fours = channels_last.reshape(-1, m)
    order = torch.argsort(fours, dim=1, descending=True, stable=True)[:, :n]
    kept = torch.zeros_like(fours, dtype=torch.bool).scatter_(1, order, value=True)
    return kept.reshape(channels_last.shape).movedim(-1, 1)


def block_sums(scores: Tensor, shape: tuple[int, int]) -> Tensor:
    """[blocks along the outputs, blocks along the inputs], float64."""
    rows = scores.movedim(1, -1).flatten(1).double()
    return torch.unflatten(torch.unflatten(rows, 1, (-1, shape[1])), 0, (-1, shape[0])).sum(dim=(1, 3))


def of_blocks(kept: Tensor, weight: torch.Size, shape: tuple[int, int]) -> Tensor:
    """A mask of blocks, flat, as one of weights [out_channels, in_channels, *kernel]."""
    blocks = kept.reshape(weight[0] // shape[0], -1)
    rows = blocks.repeat_interleave(shape[0], dim=0).repeat_interleave(shape[1], dim=1)
    return rows.reshape(weight[0], *weight[2:], weight[1]).movedim(-1, 1)
