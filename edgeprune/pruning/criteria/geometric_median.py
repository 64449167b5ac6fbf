"""Distance of a channel's filter to all the others: what is near the middle can be replaced by its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion

if TYPE_CHECKING:
    from torch import Tensor


class _GeometricMedian:
    def score(self, weight: Tensor, *, seed: int) -> Tensor:  # noqa: ARG002
        """Sum of the Euclidean distances from each filter to every filter of the layer.

        Source: He et al. 2019, "Filter Pruning via Geometric Median for Deep CNNs Acceleration" (FPGM), equation 7,
        arXiv:1811.00250.
        """
        import torch

        filters = weight.detach().float().flatten(1)
        # The quick way by matrix products loses the small distances, which are the ones that matter here.
        distances = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.sum(dim=1)


CRITERION: Final[Criterion] = _GeometricMedian()
