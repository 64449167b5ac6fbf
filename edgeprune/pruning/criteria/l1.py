"""The L1 norm of a channel's filter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion

if TYPE_CHECKING:
    from torch import Tensor


class _L1Norm:
    def score(self, weight: Tensor, *, seed: int) -> Tensor:  # noqa: ARG002
        """The L1 norm of each filter.

        Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.1, arXiv:1608.08710.
        """
        import torch

        norms: Tensor = torch.linalg.vector_norm(weight.detach().float().flatten(1), ord=1, dim=1)
        return norms


CRITERION: Final[Criterion] = _L1Norm()
