"""Distance of a channel's filter to all the others: what is near the middle can be replaced by its neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _GeometricMedian:
    granularities: Final = frozenset({Granularity.OUT_CHANNEL})
    needs_data: Final = False

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """Sum of the Euclidean distances from each filter to every filter of the layer.

        Source: He et al. 2019, "Filter Pruning via Geometric Median for Deep CNNs Acceleration" (FPGM), equation 7,
        arXiv:1811.00250.
        """
        from edgeprune.pruning.weights import output_weights

        return {name: _distances(w.flatten(1)).sum(dim=1).float() for name, w in output_weights(task).items()}


def _distances(filters: Tensor) -> Tensor:
    """[filters, filters], float64: by matrix products, which in float32 lose the small distances that matter here."""
    exact = filters.double()
    squares = exact.square().sum(dim=1)
    distances = (squares[:, None] + squares[None, :] - 2 * exact @ exact.T).clamp_min(0).sqrt()
    return distances.fill_diagonal_(0)


CRITERION: Final[Criterion] = _GeometricMedian()
