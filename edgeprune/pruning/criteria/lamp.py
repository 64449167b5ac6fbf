"""A weight's square over what is left of its layer when all smaller ones are gone: layers compare at any scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _Lamp:
    granularities: Final = frozenset({Granularity.WEIGHT})
    needs_data: Final = False

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """Each weight's square over the sum of the squares that are not smaller, in its own layer; 1 for the largest.

        The scale of a layer, which a norm behind it undoes, does not count, and no layer loses all.

        Source: Lee et al. 2021, "Layer-adaptive sparsity for the Magnitude-based Pruning" (the LAMP score),
        arXiv:2010.07611.
        """
        from edgeprune.pruning.weights import output_weights

        return {name: _scores(w) for name, w in output_weights(task).items()}


def _scores(weight: Tensor) -> Tensor:
    import torch

    squares = weight.double().flatten().square()
    ascending, order = torch.sort(squares, stable=True)
    not_smaller = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squares)
    scores[order] = ascending / not_smaller.clamp_min(torch.finfo(torch.float64).tiny)
    return scores.reshape(weight.shape).float()


CRITERION: Final[Criterion] = _Lamp()
