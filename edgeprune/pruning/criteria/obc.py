"""What a layer's outputs would change by without a weight or input channel, the others made to make up for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _Obc:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.IN_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """weight^2 over twice its entry in the inverse of the layer's Hessian, which is the inputs' second moment.

        Of an input channel c it is the half of tr(W_c [H^-1]_cc^-1 W_c^T), all weights that read the channel together.
        So that layers compare, all is told as a share of the layer's outputs, the half of tr(W H W^T): by itself it has
        the scale of the layer. To go with `pruning.reconstruction`, which makes the weights that are left make up for
        the others. Layers that are never called are left out.

        Source: Hassibi and Stork 1993, "Second order derivatives for network pruning: Optimal Brain Surgeon", equation
        5; by layers Frantar and Alistarh 2022, "Optimal Brain Compression", section 4, arXiv:2208.11580; all weights at
        once and damped by a hundredth of the mean, Frantar and Alistarh 2023, "SparseGPT", section 3, arXiv:2301.00774.
        """
        from edgeprune.pruning.passes import second_moments
        from edgeprune.pruning.weights import output_weights

        weights = output_weights(task)
        score = _of_weights if task.granularity is Granularity.WEIGHT else _of_channels
        return {
            name: (score(weights[name], _inverse(moment)) / _power(weights[name], moment)).float()
            for name, moment in second_moments(task).items()
        }


_DAMPING = 0.01


def _inverse(moment: Tensor) -> Tensor:
    """[groups, inputs, inputs] of the damped Hessian, float64; an input that is always zero has a 1 in it."""
    import torch

    # Half the squared change of the outputs has the second moment itself as its Hessian.
    mean = moment.diagonal(dim1=1, dim2=2).mean(dim=1)
    damping = torch.where(mean > 0, _DAMPING * mean, torch.ones_like(mean))
    damped = moment + torch.diag_embed(damping[:, None].expand(moment.shape[:2]))
    return torch.cholesky_inverse(torch.linalg.cholesky(damped))


def _power(weight: Tensor, moment: Tensor) -> Tensor:
    """Half the mean square of the layer's outputs, summed over its channels; 1 where they are all zero."""
    import torch

    rows = torch.unflatten(weight.double().flatten(1), 0, (len(moment), -1))
    power = ((rows @ moment) * rows).sum() / 2
    return torch.where(power > 0, power, torch.ones_like(power))


def _of_weights(weight: Tensor, inverse: Tensor) -> Tensor:
    import torch

    diagonal = inverse.diagonal(dim1=1, dim2=2)
    squares = torch.unflatten(weight.double().flatten(1).square(), 0, (len(inverse), -1))
    return (squares / (2 * diagonal[:, None, :])).flatten(0, 1).reshape(weight.shape)


def _of_channels(weight: Tensor, inverse: Tensor) -> Tensor:
    import torch

    groups, channels, kernel = len(inverse), weight.shape[1], weight[0, 0].numel()
    # [groups, channels, kernel, kernel]: the part of the inverse that belongs to each channel.
    own = inverse.reshape(groups, channels, kernel, channels, kernel).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    reading = weight.double().reshape(groups, -1, channels, kernel).permute(0, 2, 3, 1)
    scores: Tensor = (reading * torch.linalg.solve(own, reading)).sum(dim=(2, 3)).flatten() / 2
    return scores


CRITERION: Final[Criterion] = _Obc()
