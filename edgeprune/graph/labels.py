"""Slices of weights that must go together: a number for each slice, edges between them, and what keeps a slice.

A slice is one index of one dimension of a weight: an output channel of a layer, an input feature, an entry of a learned
scale. Whatever computation brings two slices to the same place of the same tensor makes an edge between them. The
connected parts are the units that can only be cut whole: a channel, an attention head with its query, key, value and
output columns, a pair of gated channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from edgeprune.graph.slicing import Side

NOTHING = 0
"""The label of what no weight makes: a constant, a padding, the model's input."""

_MOST = 2**31
"""No model has so many slices."""

_FIXED_PARTNER = "they meet a tensor whose width is fixed: padding, a constant or the model's input"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Slices of one layer, numbered from `offset` on; `dimension` counts only for `Side.PARAMETER`."""

    layer: str
    side: Side
    dimension: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A dimension that the model's code takes apart: heads out of features, chunks out of channels.

    Attributes:
        labels: one dimension for each axis of the parts.
        modules: that were running, the outermost first.
        adapting: axes whose size the code leaves open (-1).
        pieces: how many pieces a split made; 0 where the parts may be cut along any of the axes. Of equal pieces the
            first axis counts them, and they stay as many as they are.
        piece: which one it is, where they are not equal; the first axis has size 1 then.
    """

    labels: Tensor
    modules: tuple[str, ...]
    adapting: frozenset[int] = frozenset()
    pieces: int = 0
    piece: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Slices that cannot go; `reason` is empty where they make the model's output."""

    labels: np.ndarray
    reason: str


class Labels:
    """All slices of a model, filled while the model runs."""

    def __init__(self) -> None:
        self.axes: list[Axis] = []
        self.partitions: list[Partition] = []
        self.kept: list[Kept] = []
        self.looked_up: list[np.ndarray] = []
        self._by_key: dict[tuple[str, Side, int], Axis] = {}
        self._edges: list[np.ndarray] = []
        self._count = 1

    def axis(self, layer: str, side: Side, size: int, dimension: int = 0) -> Tensor:
        """[size], int64: the labels of a layer's slices, the same ones whenever they are asked for."""
        key = (layer, side, dimension)
        if key not in self._by_key:
            found = Axis(layer=layer, side=side, dimension=dimension, offset=self._count, size=size)
            self._by_key[key] = found
            self.axes.append(found)
            self._count += size
        found = self._by_key[key]
        return torch.arange(found.offset, found.offset + found.size)

    def find(self, layer: str, side: Side) -> Axis | None:
        """The slices of a layer that were met while the model ran."""
        return self._by_key.get((layer, side, 0))

    def keep(self, labels: Tensor, reason: str) -> None:
        """These slices cannot go, for a reason in a sentence; an empty one for the model's output."""
        found = torch.unique(labels)
        if len(found):
            self.kept.append(Kept(labels=found[found != NOTHING].numpy(), reason=reason))

    def look_up(self, labels: Tensor) -> None:
        """These slices are the features of a table that the model's input picks rows of: an embedding."""
        found = torch.unique(labels)
        self.looked_up.append(found[found != NOTHING].numpy())

    def join(self, left: Tensor, right: Tensor) -> None:
        """Slices at the same place go together; what meets nothing that can be cut is kept."""
        first, second = left + torch.zeros_like(right), right + torch.zeros_like(left)
        # Both in one number, which sorts much faster than pairs do.
        packed = torch.unique(first.reshape(-1) * _MOST + second.reshape(-1))
        pairs = torch.stack([packed // _MOST, packed % _MOST])
        bare = (pairs == NOTHING).any(dim=0)
        if bool(bare.any()):
            self.keep(pairs[:, bare], _FIXED_PARTNER)
            pairs = pairs[:, ~bare]
        pairs = pairs[:, pairs[0] != pairs[1]]
        if pairs.numel():
            self._edges.append(pairs.numpy())

    def together(self, track: Tensor, dimensions: Iterable[int]) -> Tensor:
        """Join all along some dimensions; what is left has size 1 there."""
        first = track
        for dimension in dimensions:
            first = first.narrow(dimension, 0, 1)
        if first.shape != track.shape:
            self.join(track, first)
        return first

    def components(self) -> np.ndarray:
        """[labels]: the number of the unit that each slice belongs to, with every partition in order."""
        parts = self._connected()
        while True:
            joined = [self._settle(partition, parts) for partition in self.partitions]
            if not any(joined):
                return parts
            parts = self._connected()

    def reasons(self, parts: np.ndarray) -> dict[int, str]:
        """Why a unit is kept, by its number; that it makes the output counts more than other reasons."""
        found: dict[int, str] = {}
        for kept in self.kept:
            for part in np.unique(parts[kept.labels]).tolist():
                found[part] = kept.reason and found.get(part, kept.reason)
        return found

    def _connected(self) -> np.ndarray:
        edges = np.concatenate([np.zeros((2, 0), np.int64), *self._edges], axis=1)
        graph = coo_array((np.ones(edges.shape[1], np.int8), (edges[0], edges[1])), shape=(self._count, self._count))
        return np.asarray(connected_components(graph, directed=False)[1])

    def _settle(self, partition: Partition, parts: np.ndarray) -> bool:
        """Whether something had to be joined: along one axis each slice must go as a whole, to stay rectangular."""
        found = parts[partition.labels.numpy()]
        axes = range(1 if partition.pieces else 0, found.ndim)
        if any(_whole(found, axis) for axis in axes):
            return False
        # The same index in each part, as channels in the groups of a shuffle.
        last = partition.labels.dim() - 1
        self.together(partition.labels, range(last))
        return True


def _whole(parts: np.ndarray, axis: int) -> bool:
    rows = np.moveaxis(parts, axis, 0).reshape(parts.shape[axis], -1)
    return bool((rows == rows[:, :1]).all())


def compact(track: Tensor) -> Tensor:
    """Size 1 along every dimension in which the labels do not change."""
    for dimension in range(track.dim()):
        if track.shape[dimension] < 2:  # noqa: PLR2004
            continue
        first = track.narrow(dimension, 0, 1)
        if track.stride(dimension) == 0 or bool((track == first).all()):
            track = first
    return track


def active(track: Tensor) -> tuple[int, ...]:
    """The dimensions along which the labels change."""
    return tuple(d for d, size in enumerate(track.shape) if size > 1)


def padded(track: Tensor, dimensions: int) -> Tensor:
    """With dimensions of size 1 in front, as broadcasting adds them."""
    return track.reshape((1,) * (dimensions - track.dim()) + tuple(track.shape))


def meet(labels: Labels, operands: Sequence[tuple[Sequence[Tensor], Sequence[int]]]) -> tuple[Tensor, ...]:
    """The tracks of what several tensors make element by element.

    Args:
        labels: gets the edges.
        operands: tracks and shape of each.
    """
    most = max(len(shape) for _, shape in operands)
    found: list[Tensor] = []
    for tracks, _ in operands:
        for track in tracks:
            found = _added(labels, found, padded(track, most))
    for tracks, shape in operands:
        covered = {d for t in tracks for d in active(padded(t, most))}
        sizes = (1,) * (most - len(shape)) + tuple(shape)
        bare = {d for d, size in enumerate(sizes) if size > 1} - covered
        found = [_freed(labels, track, bare) for track in found]
    return tuple(found)


def _added(labels: Labels, found: list[Tensor], track: Tensor) -> list[Tensor]:
    result: list[Tensor] = []
    own: Tensor | None = track
    for other in found:
        mine, theirs = set(active(own)) if own is not None else set(), set(active(other))
        if own is None or not mine & theirs:
            result.append(other)
            continue
        shared = other
        if mine <= theirs or theirs <= mine:
            shared = labels.together(other, sorted(theirs - mine))
            labels.join(shared, labels.together(own, sorted(mine - theirs)))
        else:
            labels.keep(other, "they are laid out in two ways that do not fit")
            labels.keep(own, "they are laid out in two ways that do not fit")
        result.append(shared)
        own = None
    return [*result, own] if own is not None and active(own) else result


def _freed(labels: Labels, track: Tensor, bare: set[int]) -> Tensor:
    """Along dimensions where another tensor has a fixed width nothing can be cut."""
    hit = [d for d in active(track) if d in bare]
    if hit and len(hit) == len(active(track)):
        labels.keep(track, _FIXED_PARTNER)
        return track
    return labels.together(track, hit)


def contract(
    labels: Labels,
    left: Sequence[Tensor],
    left_shape: Sequence[int],
    right: Sequence[Tensor],
    right_shape: Sequence[int],
) -> tuple[Tensor, ...]:
    """The tracks of a matrix product [..., m, k] x [..., k, n], of as many dimensions both."""
    last = len(left_shape) - 1
    left_inner = [t for t in left if last in active(t)]
    right_inner = [t for t in right if last - 1 in active(t)]
    outer_left, pure_left = _inner(labels, left_inner, last, right_inner, last - 1)
    outer_right, pure_right = _inner(labels, right_inner, last - 1, left_inner, last)
    for one, others in ((pure_left, pure_right), (pure_right, pure_left)):
        for track in one:
            if others:
                labels.join(track.reshape(-1), others[0].reshape(-1))
            elif left_shape[-1] > 1:
                labels.keep(track, _FIXED_PARTNER)
    outer_left += [t for t in left if last not in active(t)]
    outer_right += [t for t in right if last - 1 not in active(t)]
    sizes_left, sizes_right = [*left_shape[:-1], 1], [*right_shape[:-2], 1, right_shape[-1]]
    return meet(labels, [(outer_left, sizes_left), (outer_right, sizes_right)])


def _inner(
    labels: Labels, tracks: Sequence[Tensor], summed: int, partners: Sequence[Tensor], partners_summed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Tracks that go on in the product, and those that end in its sum.

    A head's features are summed with those of another head: what goes on is the head. Features that a weight of their
    own sums end there, the same for all places.
    """
    going_on, ending = [], []
    weighed = any(active(p) == (partners_summed,) for p in partners)
    for track in tracks:
        others = [d for d in active(track) if d != summed]
        if others and not weighed:
            going_on.append(labels.together(track, [summed]))
        else:
            ending.append(labels.together(track, others))
    return going_on, ending
