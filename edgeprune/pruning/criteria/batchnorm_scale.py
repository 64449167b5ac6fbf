"""The scale that a norm after the layer gives to a channel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _BatchNormScale:
    granularities: Final = frozenset({Granularity.OUT_CHANNEL})
    needs_data: Final = False

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """The magnitude of each channel's scale in the task's batch norms; layers that are none are left out.

        Source: Liu et al. 2017, "Learning Efficient Convolutional Networks through Network Slimming", section 3,
        arXiv:1708.06519.
        """
        from torch.nn.modules.batchnorm import _BatchNorm

        layers = {name: task.model.get_submodule(name) for name in task.layers}
        norms = {n: m for n, m in layers.items() if isinstance(m, _BatchNorm) and m.weight is not None}
        return {name: norm.weight.detach().float().abs() for name, norm in norms.items()}


CRITERION: Final[Criterion] = _BatchNormScale()
