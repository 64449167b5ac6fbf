"""How large a channel's activation is on real inputs, as those see it who read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _ActivationMean:
    granularities: Final = frozenset({Granularity.IN_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """The mean magnitude of what each input channel holds, over examples and positions.

        Source: Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference", section
        2.2 ("Activation"), arXiv:1611.06440.
        """
        import torch

        from edgeprune.pruning.passes import mean_inputs

        return mean_inputs(task, torch.abs)


CRITERION: Final[Criterion] = _ActivationMean()
