"""The L2 norm of a channel's filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion

if TYPE_CHECKING:
    from torch import Tensor


class _L2Norm:
    def score(self, weight: Tensor, *, seed: int) -> Tensor:  # noqa: ARG002
        """The L2 norm of each filter.

        Source: He et al. 2018, "Soft Filter Pruning for Accelerating Deep CNNs", section 3.2, arXiv:1808.06866.
        """
        import torch

        norms: Tensor = torch.linalg.vector_norm(weight.detach().float().flatten(1), ord=2, dim=1)
        return norms


CRITERION: Final[Criterion] = _L2Norm()
