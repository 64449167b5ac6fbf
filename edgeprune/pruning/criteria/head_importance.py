"""How much an attention head's gate matters to each example's loss; of other layers, a channel's gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _HeadImportance:
    granularities: Final = frozenset({Granularity.IN_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """The mean over examples of the magnitude of the loss's gradient with respect to a gate before each head.

        All channels of a head that `ScoringTask.heads` tells of have the head's score; elsewhere a channel is a head.

        Source: Michel, Levy and Neubig 2019, "Are Sixteen Heads Really Better than One?", equation 2, arXiv:1905.10650.
        """
        import torch

        from edgeprune.pruning.passes import input_contributions

        heads = dict(task.heads)
        found: dict[str, Tensor] = {}
        for name, each in input_contributions(task).items():
            gates = torch.unflatten(each, 1, (heads.get(name, each.shape[1]), -1))
            found[name] = gates.sum(dim=2).abs().mean(dim=0).repeat_interleave(gates.shape[2])
        return found


CRITERION: Final[Criterion] = _HeadImportance()
