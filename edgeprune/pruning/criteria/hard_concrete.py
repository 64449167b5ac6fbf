"""Masks that are learned with a penalty on how many are open (L0), the weights held."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _HardConcrete:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.IN_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """How likely each gate is open after at least 100 steps of Adam on the loss and the share of open gates.

        A gate of an input channel is before all weights that read it.

        Source: Louizos, Welling and Kingma 2018, "Learning Sparse Neural Networks through L0 Regularization", equations
        10 to 12, arXiv:1712.01312.
        """
        from edgeprune.pruning.gates import learned_gates

        return learned_gates(task)


CRITERION: Final[Criterion] = _HardConcrete()
