"""Channels or weights by lot: the control to hold others against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _Random:
    granularities: Final = frozenset(Granularity)
    needs_data: Final = False

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """Uniform in [0, 1), a function of the seed, the layer's name and its shape alone."""
        import zlib

        import torch

        from edgeprune.pruning.weights import input_width, output_weights

        found: dict[str, Tensor] = {}
        for name, weight in output_weights(task).items():
            generator = torch.Generator().manual_seed(task.seed ^ zlib.crc32(name.encode()))
            shape: tuple[int, ...] = tuple(weight.shape)
            if task.granularity is not Granularity.WEIGHT:
                outputs = task.granularity is Granularity.OUT_CHANNEL
                shape = (len(weight) if outputs else input_width(task, name),)
            found[name] = torch.rand(shape, generator=generator)
        return found


CRITERION: Final[Criterion] = _Random()
