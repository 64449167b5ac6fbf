"""Channels by lot: the baseline that every other criterion must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion

if TYPE_CHECKING:
    from torch import Tensor


class _Random:
    def score(self, weight: Tensor, *, seed: int) -> Tensor:
        """Uniform in [0, 1), a function of the seed and the number of channels alone."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.rand(weight.shape[0], generator=generator).to(weight.device)


CRITERION: Final[Criterion] = _Random()
