"""How far training moves a weight away from zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _Movement:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.OUT_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """Less the sum of gradient x weight over steps of SGD on a copy, one a batch; summed over a filter.

        Positive for a weight that moves away from zero. Norms keep their statistics, and only the scored weights learn.

        Source: Sanh et al. 2020, "Movement Pruning: Adaptive Sparsity by Fine-Tuning", section 4 (without masks while
        the scores are gathered), arXiv:2005.07683.
        """
        import torch

        from edgeprune.pruning.passes import data_of, gradients, scored_parameters, working_copy
        from edgeprune.pruning.weights import by_layer

        data, model = data_of(task), working_copy(task.model)
        # Of one dimension are biases, and scales and shifts of norms.
        parameters = {n: p for n, p in scored_parameters(model, task).items() if p.dim() > 1}
        moved = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for inputs, labels in data.batches:
            slopes = gradients(model, parameters, data.loss, inputs, labels)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    moved[name] -= data.learning_rate * slopes[name] * parameter
                    parameter.sub_(data.learning_rate * slopes[name])
        return {name: scores.float() for name, scores in by_layer(task, moved).items()}


CRITERION: Final[Criterion] = _Movement()
