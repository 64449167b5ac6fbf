"""The channel groups of a target's model that can be cut and scored; the others keep their width, and say why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.graph.groups import ChannelGraph, Groups, RefusedGroup, find_groups
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.scoring import groups_without_scores

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeprune.schema.compression import Pruning


def cuttable_groups(model: nn.Module, example: Tensor, pruning: Pruning) -> Groups:
    """Find the groups that can be cut, each proved by a trial cut and scored by the target's criterion.

    A group that the criterion has no score for stays as it is, so that the rest of the model can be cut all the same.

    Args:
        model: left alone.
        example: one input, with its batch dimension.
        pruning: what must be kept, and the criterion.

    Raises:
        InputError: `ignored` or the criterion names something that is not there, or the model does not run.
        BuildError: the model cannot be traced, or the criterion scores single weights only.
    """
    found = find_groups(model, example, pruning.ignored, embeddings=pruning.embeddings)
    if not found.groups:
        return found
    graph, names = ChannelGraph(model, example), [group.name for group in found.groups]
    missing = groups_without_scores(model, graph, names, CRITERIA.get(pruning.criterion))
    refused = (
        RefusedGroup(name=name, reason=f"the criterion {pruning.criterion!r} scores none of its layers")
        for name in missing
    )
    kept = tuple(group for group in found.groups if group.name not in missing)
    return Groups(groups=kept, refused=(*found.refused, *refused))
