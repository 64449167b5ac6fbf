"""The L1 norm of a channel's filter; a single weight's magnitude."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _L1Norm:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.OUT_CHANNEL})
    needs_data: Final = False

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """The L1 norm of each filter, or the magnitude of each weight.

        Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1, arXiv:1608.08710; Han et al.
        2015, "Learning both Weights and Connections for Efficient Neural Networks", section 3, arXiv:1506.02626.
        """
        import torch

        from edgeprune.pruning.weights import output_weights

        weights = output_weights(task)
        if task.granularity is Granularity.WEIGHT:
            return {name: w.abs() for name, w in weights.items()}
        return {name: torch.linalg.vector_norm(w.flatten(1), ord=1, dim=1) for name, w in weights.items()}


CRITERION: Final[Criterion] = _L1Norm()
