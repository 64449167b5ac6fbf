"""Channels or weights by lot: the control that every other criterion must beat."""

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

        from edgeprune.pruning.weights import channel_weights, input_width, output_weights

        shapes: dict[str, tuple[int, ...]]
        match task.granularity:
            case Granularity.WEIGHT:
                shapes = {name: tuple(weight.shape) for name, weight in output_weights(task).items()}
            case Granularity.OUT_CHANNEL:
                shapes = {name: (len(weight),) for name, weight in channel_weights(task).items()}
            case Granularity.IN_CHANNEL:
                shapes = {name: (input_width(task, name),) for name in output_weights(task)}
        return {
            name: torch.rand(shape, generator=torch.Generator().manual_seed(task.seed ^ zlib.crc32(name.encode())))
            for name, shape in shapes.items()
        }


CRITERION: Final[Criterion] = _Random()
