"""From a criterion's scores of layers to scores of channel groups and of single weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import BuildError
from edgeprune.graph.slicing import ChannelEdit, Side, output_weight
from edgeprune.protocols import Criterion, Granularity, ScoringData, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor

    from edgeprune.graph.groups import ChannelGraph

_SIDES = {
    Granularity.OUT_CHANNEL: frozenset({Side.OUT, Side.BOTH}),
    Granularity.IN_CHANNEL: frozenset({Side.IN}),
}


def channel_scores(
    model: nn.Module,
    graph: ChannelGraph,
    groups: Iterable[str],
    criterion: Criterion,
    *,
    seed: int = 0,
    data: ScoringData | None = None,
) -> dict[str, Tensor]:
    """Score the channels of groups: over all layers that a channel couples, so that none outvotes the others.

    A criterion that scores output channels is asked about the layers that make the group's channels, one that scores
    input channels about those that read them. The scores of each layer are divided by their mean magnitude in the
    group, so that layers compare, and averaged. Of a unit of channels that go together, those that no layer has a score
    for, such as queries and keys of a packed attention, have the mean of the others'.

    Args:
        model: left alone.
        graph: of the model.
        groups: by name of their root layer.
        criterion: asked once for all groups.
        seed: for criteria that draw at random.
        data: for criteria that look at data.

    Returns:
        By group, [width of its root], float64.

    Raises:
        BuildError: no such group, the criterion scores no channels or none of a group's layers, or scores are not
            finite.
        InputError: the criterion needs data and has none.
    """
    granularity = channel_granularity(criterion)
    members = {g: [e for e in graph.edits(g) if e.side in _SIDES[granularity]] for g in groups}
    named = dict.fromkeys(e.layer for edits in members.values() for e in edits)
    layers = tuple(n for n in named if _can_be_scored(model.get_submodule(n)))
    if not members:
        return {}
    heads = tuple(head for g, edits in members.items() for head in _heads(graph.units(g), edits))
    task = ScoringTask(model=model, layers=layers, granularity=granularity, data=data, seed=seed, heads=heads)
    scores = criterion.score(task)
    return {group: _aggregated(group, graph.units(group), edits, scores) for group, edits in members.items()}


def _heads(units: Sequence[Sequence[int]], edits: Sequence[ChannelEdit]) -> Iterator[tuple[str, int]]:
    """(layer, heads) of the layers that read units of several channels one after the other, such as attention heads."""
    if len(units) == sum(map(len, units)):
        return
    unit_of = {channel: number for number, unit in enumerate(units) for channel in unit}
    for edit in edits:
        read = [unit_of[root] for root in edit.roots]
        runs = [number for number, _ in groupby(read)]
        if edit.indices == tuple(range(len(read))) and len(runs) == len(units) and len(read) % len(runs) == 0:
            yield edit.layer, len(runs)


def _can_be_scored(layer: nn.Module) -> bool:
    return isinstance(layer, _BatchNorm) or output_weight(layer) is not None


def groups_without_scores(
    model: nn.Module, graph: ChannelGraph, groups: Iterable[str], criterion: Criterion
) -> tuple[str, ...]:
    """The groups that a criterion has no score for, such as a recurrent layer's for one that looks at gradients.

    Args:
        model: left alone.
        graph: of the model.
        groups: by name of their root layer.
        criterion: one that looks at weights alone is asked; another one scores by its data the weights that make
            channels, and what convolutions and linear layers read.

    Raises:
        BuildError: no such group, or the criterion scores single weights only.
    """
    granularity = channel_granularity(criterion)
    found = []
    for group in groups:
        if criterion.needs_data:
            members = [e for e in graph.edits(group) if e.side in _SIDES[granularity]]
            scored = [e for e in members if _is_scored_by_data(model.get_submodule(e.layer), granularity)]
            roots = {root for edit in scored for root in edit.roots}
            if any(roots.isdisjoint(unit) for unit in graph.units(group)):
                found.append(group)
            continue
        try:
            channel_scores(model, graph, (group,), criterion)
        except BuildError:
            found.append(group)
    return tuple(found)


def _is_scored_by_data(layer: nn.Module, granularity: Granularity) -> bool:
    """Norms are left out: not all such criteria look at them, and never without the layer before."""
    if granularity is Granularity.IN_CHANNEL:
        return isinstance(layer, _ConvNd | nn.Linear)
    return output_weight(layer) is not None


def channel_granularity(criterion: Criterion) -> Granularity:
    """How a criterion scores channels: by what makes them, or else by what reads them.

    Raises:
        BuildError: it scores single weights only.
    """
    for granularity in _SIDES:
        if granularity in criterion.granularities:
            return granularity
    raise BuildError("this criterion scores single weights, not channels; take it for pruning.weight_criterion")


def weight_scores(
    model: nn.Module,
    layers: Sequence[str],
    criterion: Criterion,
    *,
    seed: int = 0,
    data: ScoringData | None = None,
) -> Mapping[str, Tensor]:
    """Score single weights of some layers, each [out_channels, in_channels, *kernel], float32.

    Layers that the model never calls are left out by criteria that look at what layers read and make; masks leave them
    dense.

    Raises:
        BuildError: the criterion scores channels only.
        InputError: the criterion needs data and has none.
    """
    if Granularity.WEIGHT not in criterion.granularities:
        raise BuildError("this criterion scores channels, not single weights; take it for pruning.criterion")
    if not layers:
        return {}
    return criterion.score(
        ScoringTask(model=model, layers=tuple(layers), granularity=Granularity.WEIGHT, data=data, seed=seed)
    )


def _aggregated(
    group: str, units: Sequence[Sequence[int]], edits: Sequence[ChannelEdit], scores: Mapping[str, Tensor]
) -> Tensor:
    """[width], float64: the mean over the scored layers of a group."""
    width = sum(map(len, units))
    totals, layers = torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for name in dict.fromkeys(e.layer for e in edits if e.layer in scores):
        own = [e for e in edits if e.layer == name]
        roots = torch.tensor([r for e in own for r in e.roots])
        values = scores[name].double()[torch.tensor([i for e in own for i in e.indices])]
        size = values.abs().mean()
        counts = torch.zeros_like(totals).index_add_(0, roots, torch.ones_like(values))
        sums = torch.zeros_like(totals).index_add_(0, roots, values / size if size > 0 else values)
        # A channel that a layer sees at many places, such as the pixels of a flattened map, counts once.
        totals += sums / counts.clamp_min(1)
        layers += counts > 0
    known = layers > 0
    found = totals / layers.clamp_min(1)
    for unit in map(list, units):
        if not bool(known[unit].any()):
            raise BuildError(
                f"group {group!r}: the criterion scores none of its layers; take another one, or name the group in "
                "pruning.ignored",
                group=group,
            )
        found[unit] = torch.where(known[unit], found[unit], found[unit].sum() / known[unit].sum())
    if not bool(found.isfinite().all()):
        raise BuildError(f"group {group!r}: the importance of its channels is not finite", group=group)
    return found
