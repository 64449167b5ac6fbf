"""Batch norms of several workers that normalise by the whole batch, as one process would.

`torch.nn.SyncBatchNorm` is for GPUs alone; this does the same over gloo, with one exchange of sums in each direction.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Summed = Callable[[Tensor], Tensor]
"""From a worker's tensor to the sum over all workers, the same in each."""


def summed_over_workers(mine: Tensor) -> Tensor:
    """The sum of all workers' tensors, in place."""
    torch.distributed.all_reduce(mine)
    return mine


def greatest_of_workers(mine: Tensor) -> Tensor:
    """The greatest of all workers' tensors, element by element, in place."""
    torch.distributed.all_reduce(mine, op=torch.distributed.ReduceOp.MAX)
    return mine


class SharedNorms:
    """While it is open, the batch norms of a model in training mode take mean and variance of all workers' examples.

    Norms with a forward pass of their own are left alone.

    Args:
        model: its norms are changed until `close`; each worker has a copy of it.
        summed: adds up over the workers; all must come to each norm in the same order.

    Attributes:
        is_shared: whether the workers have parts of a batch, rather than the whole one each.
    """

    def __init__(self, model: nn.Module, summed: Summed = summed_over_workers) -> None:
        self.is_shared = True
        self._summed = summed
        self._norms = [
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward
        ]
        for norm in self._norms:
            norm.forward = partial(self._forward, norm)  # type: ignore[method-assign]

    def close(self) -> None:
        """Give the norms their own forward pass back."""
        for norm in self._norms:
            del norm.forward
        self._norms = []

    def _forward(self, norm: _BatchNorm, inputs: Tensor) -> Tensor:
        if not (norm.training and self.is_shared):
            return _BatchNorm.forward(norm, inputs)
        mean, variance, count = self._statistics(inputs)
        if norm.track_running_stats:
            _follow_(norm, mean, variance * (count / (count - 1)))
        outputs: Tensor = _Normalized.apply(  # type: ignore[no-untyped-call]
            inputs, mean, variance, count, norm.weight, norm.bias, norm.eps, self._summed
        )
        return outputs

    @torch.no_grad()
    def _statistics(self, inputs: Tensor) -> tuple[Tensor, Tensor, float]:
        """Mean and variance of each channel over all workers, float32, and how many values they are of.

        Sums of squares lose what the variance is where the mean is large: they are added in float64.
        """
        values = _wide(inputs)
        mean, variance = (part.double() for part in torch.batch_norm_update_stats(values, None, None, 0.0))
        count = torch.full((1,), values.numel() / values.shape[1], dtype=torch.float64)
        sums = self._summed(torch.cat([count, count * mean, count * (variance + mean.square())]))
        total = float(sums[0])
        mean, squares = (sums[1:] / total).chunk(2)
        variance = (squares - mean.square()).clamp_min(0)
        return mean.to(values.dtype), variance.to(values.dtype), total


class _Normalized(torch.autograd.Function):
    """The normalisation by given statistics, whose gradient knows that all workers' inputs are in them.

    Source of the gradient: Ioffe and Szegedy 2015, "Batch Normalization", section 3, arXiv:1502.03167.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own type of it is not generic
        inputs: Tensor,
        mean: Tensor,
        variance: Tensor,
        count: float,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        summed: Summed,
    ) -> Tensor:
        ctx.save_for_backward(inputs, mean, variance, weight)
        ctx.count, ctx.eps, ctx.summed = count, eps, summed
        # As of a norm in eval mode: the statistics are given.
        return functional.batch_norm(inputs, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        inputs, mean, variance, weight = ctx.saved_tensors
        values = _wide(inputs)
        # As of a norm in eval mode: what comes through the statistics is still to be taken away. The workers' own
        # gradients of weight and bias are averaged with all others, afterwards.
        found, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            _wide(gradient), values, weight, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        shared_weight, shared_bias = (ctx.summed(torch.cat([of_weight, of_bias])) / ctx.count).chunk(2)
        scale = (variance + ctx.eps).rsqrt()
        slope = scale if weight is None else scale * weight
        of_value = slope * scale * shared_weight
        shape = [1, -1, *([1] * (values.dim() - 2))]
        found.addcmul_(values, of_value.view(shape), value=-1)
        found.sub_((slope * shared_bias - of_value * mean).view(shape))
        affine = (None, None) if weight is None else (of_weight, of_bias)
        return found.to(gradient.dtype), None, None, None, *affine, None, None


def _wide(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.float() if values.dtype in {torch.bfloat16, torch.float16} else values


@torch.no_grad()
def _follow_(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """One more step of the running statistics, as the norm itself would take it."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)
