"""How seldom a channel's activation is zero on real inputs (APoZ): for networks with rectifiers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _ActivationZeros:
    granularities: Final = frozenset({Granularity.IN_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """One less the average percentage of zeros, as a share: of examples and positions where it is not zero.

        Source: Hu et al. 2016, "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
        Architectures", equation 1, arXiv:1607.03250.
        """
        from edgeprune.pruning.passes import mean_inputs

        return mean_inputs(task, lambda values: (values != 0).to(values.dtype))


CRITERION: Final[Criterion] = _ActivationZeros()
