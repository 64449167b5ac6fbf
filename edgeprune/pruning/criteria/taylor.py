"""What the loss would change by, to first order, squared, if a weight or a channel were zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _Taylor:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.OUT_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """(gradient x weight)^2, the mean over batches; of a channel, the square of the sum over its filter.

        Of a norm it is the sum over its scale and shift: a gate behind the norm.

        Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", section 3 (Taylor-FO, joint
        contribution of a set of parameters, and gates behind batch norms), arXiv:1906.10771.
        """
        from edgeprune.pruning.passes import batch_gradients
        from edgeprune.pruning.weights import by_layer

        total: dict[str, Tensor] = {}
        count = 0
        for batch in batch_gradients(task):
            count += 1
            for name, change in by_layer(task, {n: value * slope for n, (value, slope) in batch.items()}).items():
                total[name] = total.get(name, 0.0) + change.square()
        return {name: (squares / count).float() for name, squares in total.items()}


CRITERION: Final[Criterion] = _Taylor()
