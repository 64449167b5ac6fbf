"""Attention whose heads may be fewer than torch's own layer can have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class HeadwiseAttention(nn.Module):
    """`torch.nn.MultiheadAttention` after a cut: its heads keep their width when others go.

    torch's layer takes the width of a head to be that of the input divided by the number of heads, so it cannot have
    fewer. This one has the same parameters under the same names, and the same arguments and results.

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.2.2, arXiv:1706.03762; that heads can go: Michel
    et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv:1905.10650.
    """

    def __init__(self, whole: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads = whole.num_heads
        self.head_dim = whole.head_dim
        self.batch_first = whole.batch_first
        self.dropout = whole.dropout
        self.in_proj_weight = whole.in_proj_weight
        self.in_proj_bias = whole.in_proj_bias
        self.out_proj = whole.out_proj
        # An encoder layer looks at this before it computes attention by itself, with torch's idea of a head.
        self._qkv_same_embed_dim = False
        self.train(whole.training)

    @property
    def embed_dim(self) -> int:
        """Features of the input."""
        return int(self.in_proj_weight.shape[1])

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002 - as torch has it
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002
        is_causal: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[Tensor, Tensor | None]:
        """As `torch.nn.MultiheadAttention`: [batch, tokens, features] with `batch_first`, else tokens first."""
        if is_causal and attn_mask is None:
            raise ValueError("expected an attn_mask with is_causal, as torch asks for")
        batched = query.dim() == 3  # noqa: PLR2004
        first = batched and not self.batch_first
        parts = [t.transpose(0, 1) if first else (t if batched else t[None]) for t in (query, key, value)]
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (self._by_head(functional.linear(x, w, b)) for x, w, b in zip(parts, weights, biases, strict=True))
        scores = q @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
        scores = _masked(scores, attn_mask, key_padding_mask)
        shares = functional.dropout(torch.softmax(scores, dim=-1), self.dropout, self.training)
        output = self.out_proj((shares @ v).transpose(1, 2).flatten(2))
        if average_attn_weights:
            shares = shares.mean(dim=1)
        if not batched:
            output, shares = output[0], shares[0]
        return output.transpose(0, 1) if first else output, shares if need_weights else None

    def _by_head(self, features: Tensor) -> Tensor:
        """[batch, tokens, features] as [batch, heads, tokens, head_dim]."""
        return features.reshape(*features.shape[:2], -1, self.head_dim).transpose(1, 2)


def attended(arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Query, key and value of a call, however they were given."""
    return (*arguments, *(named[name] for name in ("query", "key", "value") if name in named))[:3]


def _masked(scores: Tensor, mask: Tensor | None, padding: Tensor | None) -> Tensor:
    """Masks are added; of those that are true or false, what is true is hidden."""
    if mask is not None:
        if mask.dim() == 3:  # noqa: PLR2004
            # One for each head and example: [batch * heads, tokens, tokens].
            mask = mask.reshape(scores.shape[0], -1, *mask.shape[1:])
        scores = scores + _added(mask, scores)
    if padding is not None:
        padding = padding if padding.dim() == 2 else padding[None]  # noqa: PLR2004
        scores = scores + _added(padding, scores)[:, None, None, :]
    return scores


def _added(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype is not torch.bool:
        return mask.to(like.dtype)
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
