"""The L2 norm of a channel's filter; a single weight's square."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _L2Norm:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.OUT_CHANNEL})
    needs_data: Final = False

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """The L2 norm of each filter, or the square of each weight: its share of that norm.

        Source: He et al. 2018, "Soft Filter Pruning for Accelerating Deep CNNs", section 3.2, arXiv:1808.06866.
        """
        import torch

        from edgeprune.pruning.weights import output_weights

        weights = output_weights(task)
        if task.granularity is Granularity.WEIGHT:
            return {name: w.square() for name, w in weights.items()}
        return {name: torch.linalg.vector_norm(w.flatten(1), ord=2, dim=1) for name, w in weights.items()}


CRITERION: Final[Criterion] = _L2Norm()
