"""What the loss would rise by, to second order (OBD), with the empirical Fisher as the Hessian's diagonal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _Fisher:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.IN_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """Half of weight^2 times the mean square of the examples' gradients; of a channel, by a gate before it.

        Source: LeCun, Denker and Solla 1990, "Optimal Brain Damage", section 2; for channels Theis et al. 2018, "Faster
        gaze prediction with dense networks and Fisher pruning", arXiv:1801.05787.
        """
        from edgeprune.pruning.passes import input_contributions, squared_gradients
        from edgeprune.pruning.weights import output_weights

        if task.granularity is Granularity.IN_CHANNEL:
            return {name: each.square().mean(dim=0) / 2 for name, each in input_contributions(task).items()}
        weights = output_weights(task)
        return {name: (weights[name].square() * h / 2).float() for name, h in squared_gradients(task).items()}


CRITERION: Final[Criterion] = _Fisher()
