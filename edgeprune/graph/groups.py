"""Channel groups: which output channels must be cut together.

They are found by following the slices of all weights through one run of the model (`graph/tracing.py`), and each is
proved by a trial cut (`graph/trial.py`). torch-pruning's dependency graph guesses the shapes of operations, so that
attention heads, shuffles, paddings and groups of channels are lost on it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import BuildError
from edgeprune.graph.attention import HeadwiseAttention
from edgeprune.graph.attributes import attribute_edits
from edgeprune.graph.labels import Axis
from edgeprune.graph.names import match_layers
from edgeprune.graph.slicing import ChannelEdit, Recurrent, Side
from edgeprune.graph.tracing import trace
from edgeprune.graph.trial import TrialBench, TrialVerdict
from edgeprune.registry import suggest

_Root = _ConvNd | nn.Linear | nn.MultiheadAttention | HeadwiseAttention | Recurrent


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Output channels that are cut together, proved by a trial cut.

    Attributes:
        name: of the group's root layer, as `named_modules` has it.
        width: channels of the root layer.
        unit: channels of the root layer that only go together: those of an attention head, or one in each group of a
            grouped convolution. Its width is always a multiple of it.
        layers: the layers whose output channels go with the root's, the root first: convolutions, linears, norms.
        consumers: the layers that take these channels as input.
        kernel: of the root convolution; empty for other kinds.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    consumers: tuple[str, ...]
    kind: Literal["conv", "linear", "attention", "recurrent"]
    kernel: tuple[int, ...]
    unit: int = 1

    def at_least(self, width: int) -> int:
        """The smallest width of whole units that is no less than this one; at most the full one."""
        return min(self.width, -(-width // self.unit) * self.unit)


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedGroup:
    """Channels that cannot be cut, with the reason in a sentence."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """All channel groups of a model, in the model's order.

    Groups that make the model's output, and those that the caller told to keep, are in neither tuple.
    """

    groups: tuple[ChannelGroup, ...]
    refused: tuple[RefusedGroup, ...]


def find_groups(model: nn.Module, example: Tensor, ignored: Sequence[str] = (), *, embeddings: bool = False) -> Groups:
    """Find the channels that can be cut; every group found has passed a trial cut on a copy.

    Args:
        model: left alone.
        example: one input, with its batch dimension.
        ignored: layers that must keep their width; `*` is a wildcard.
        embeddings: whether the features of embeddings may be cut, with all that is added to them.

    Raises:
        InputError: a name in `ignored` matches no layer, or the model does not run on the example.
        BuildError: the model cannot be traced.
    """
    kept = match_layers(model, ignored, key="pruning.ignored")
    graph = ChannelGraph(model, example)
    reasons: dict[str, str] = {}
    candidates: dict[str, tuple[ChannelEdit, ...]] = {}
    for name in graph.roots():
        edits = graph.edits(name)
        if kept & {e.layer for e in edits if e.side is not Side.IN} or graph.makes_output(name):
            continue
        reasons[name] = graph.obstacle(name, edits, embeddings=embeddings)
        if not reasons[name]:
            candidates[name] = edits
    bench = TrialBench(model, example)
    parts = {name: bench.removed_part(graph.units(name)) for name in candidates}
    trials = bench.try_cuts({name: graph.edits(name, part) for name, part in parts.items()})
    rest = {n: sorted(set(range(graph.width(n))) - set(parts[n])) for n, t in trials.items() if not t.reason}
    trials |= bench.try_cuts({name: graph.edits(name, other) for name, other in rest.items()})
    gone = {name for name, trial in trials.items() if trial.verdict is TrialVerdict.CHANGES_OUTPUT}
    reasons |= {name: trial.reason for name, trial in trials.items()}
    reasons |= graph.unknown()
    return Groups(
        groups=tuple(
            graph.describe(name, edits) for name, edits in candidates.items() if not reasons[name] and name not in gone
        ),
        refused=tuple(RefusedGroup(name=name, reason=reason) for name, reason in reasons.items() if reason),
    )


class ChannelGraph:
    """How the channels of one model hang together, at its present widths. The model is copied, then left alone.

    Raises:
        InputError: the model does not run on the example.
        BuildError: the model cannot be traced.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        # The tensors are shared: nothing writes into them.
        shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
        self._model = copy.deepcopy(model, shared).eval()
        self._layers = dict(self._model.named_modules())
        self._labels = trace(self._model, example)
        self._parts = self._labels.components()
        self._reasons = self._labels.reasons(self._parts)
        # Axes are numbered one after the other.
        self._offsets = np.array([axis.offset for axis in self._labels.axes], np.int64)
        self._owners = _parameter_owners(self._model)
        self._embeddings = self._looked_up()

    def roots(self) -> tuple[str, ...]:
        """One layer for each set of channels that hang together, in the model's order."""
        seen: set[int] = set()
        roots: list[str] = []
        for name, layer in self._layers.items():
            if not isinstance(layer, _Root) or self._outputs(name) is None:
                continue
            parts = set(self._root_parts(name).tolist())
            if not parts & seen:
                roots.append(name)
            seen |= parts
        return tuple(roots)

    def width(self, name: str) -> int:
        """Output channels of a layer: of attention, rows of its packed projection; of a recurrent one, hidden units.

        Raises:
            BuildError: there is no such layer in the trace.
        """
        axis = self._outputs(name)
        if axis is None or not isinstance(self._layers.get(name), _Root):
            known = tuple(n for n, m in self._layers.items() if isinstance(m, _Root))
            raise BuildError(
                f"no convolution, linear, attention or recurrent layer {name!r} in the model{suggest(name, known)}",
                layer=name,
            )
        return axis.size

    def units(self, name: str) -> tuple[tuple[int, ...], ...]:
        """The layer's output channels by what can only go together, in the order of the first channel of each."""
        self.width(name)
        found: dict[int, list[int]] = {}
        for channel, part in enumerate(self._root_parts(name).tolist()):
            found.setdefault(part, []).append(channel)
        return tuple(map(tuple, found.values()))

    def needed(self, name: str) -> tuple[frozenset[int], ...]:
        """Of each set of units one must stay, or a layer would be left with nothing; units by their place."""
        places: dict[int, int] = {}
        for part in self._root_parts(name).tolist():
            places.setdefault(part, len(places))
        numbers = np.full(int(self._parts.max()) + 1, -1)
        numbers[list(places)] = list(places.values())
        units = numbers[self._parts]
        least = np.minimum.reduceat(units, self._offsets)
        whole = (self._labels.axes[i] for i in np.nonzero(least >= 0)[0])
        return tuple({frozenset(units[axis.offset : axis.offset + axis.size].tolist()) for axis in whole})

    def edits(self, name: str, removed: Sequence[int] | None = None) -> tuple[ChannelEdit, ...]:
        """All that must be cut when these output channels of a layer go; every channel when `removed` is None.

        Raises:
            BuildError: no such layer, an index out of range, a part of a unit, or no channel would be left.
        """
        width = self.width(name)
        indices = range(width) if removed is None else sorted(set(removed))
        outside = [i for i in indices if not 0 <= i < width]
        if outside:
            raise BuildError(f"layer {name!r}: expected channels from 0 to {width - 1}, got {outside[0]}", layer=name)
        if removed is not None and len(indices) >= width:
            raise BuildError(f"layer {name!r}: no channel would be left of {width}", layer=name)
        parts = self._root_parts(name)
        gone = np.zeros(len(self._parts), bool)
        gone[parts[list(indices)]] = True
        missing = set(np.nonzero(gone[parts])[0].tolist()).difference(indices)
        if missing:
            raise BuildError(
                f"layer {name!r}: channel {min(missing)} only goes together with others that are cut", layer=name
            )
        return self._edits(name, parts, gone[self._parts])

    def describe(self, name: str, edits: Sequence[ChannelEdit]) -> ChannelGroup:
        """The record of a group from its full edits."""
        layer = self._layers[name]
        members = (e.layer for e in edits if e.side in {Side.OUT, Side.BOTH})
        consumers = (e.layer for e in edits if e.side is Side.IN)
        return ChannelGroup(
            name=name,
            width=self.width(name),
            layers=tuple(dict.fromkeys((name, *members))),
            consumers=tuple(dict.fromkeys(consumers)),
            kind=_kind(layer),
            kernel=tuple(layer.kernel_size) if isinstance(layer, _ConvNd) else (),
            unit=len(self.units(name)[0]),
        )

    def makes_output(self, name: str) -> bool:
        """Whether any of the channels is a feature of the model's output."""
        return any(self._reasons.get(part) == "" for part in self._root_parts(name).tolist())

    def unknown(self) -> dict[str, str]:
        """Layers whose weights no edit knows, by name, with the reason why they stay."""
        owners = {a.layer.rpartition(".")[0]: a for a in self._labels.axes if a.layer.endswith(".weight")}
        return {
            name: f"no cut is known for a {type(self._layers[name]).__name__}"
            for name, axis in owners.items()
            if axis.side is Side.PARAMETER and axis.dimension > 0
        }

    def obstacle(self, name: str, edits: Sequence[ChannelEdit], *, embeddings: bool = False) -> str:
        """Why a group cannot be cut, as far as that can be told without trying; else empty."""
        if self.width(name) == 1:
            return "it has a single channel"
        return self._held_by_layers(edits, embeddings=embeddings) or self._held_by_units(name)

    def _held_by_layers(self, edits: Sequence[ChannelEdit], *, embeddings: bool) -> str:
        for edit in edits:
            layer = self._layers.get(edit.layer)
            embeds = isinstance(layer, nn.Embedding) and edit.side is Side.BOTH
            embeds |= (edit.layer, edit.side, edit.dimension) in self._embeddings
            if embeds and not embeddings:
                return f"embedding {edit.layer!r} has the same features, and embeddings are kept unless asked for"
            for parameter in layer.parameters(recurse=False) if layer is not None else ():
                owners = self._owners[id(parameter)]
                if len(owners) > 1:
                    return f"a weight is shared between {' and '.join(owners)}"
        return ""

    def _looked_up(self) -> frozenset[tuple[str, Side, int]]:
        """The slices of weights that serve as embeddings, whatever class their layer has, and of bare parameters."""
        labels = np.concatenate([np.zeros(0, np.int64), *self._labels.looked_up])
        places = np.unique(np.searchsorted(self._offsets, labels, side="right") - 1)
        axes = (self._labels.axes[i] for i in places)
        return frozenset((axis.layer, axis.side, axis.dimension) for axis in axes)

    def _held_by_units(self, name: str) -> str:
        reasons = [self._reasons[p] for p in self._root_parts(name).tolist() if self._reasons.get(p)]
        if reasons:
            return f"some of its channels must stay: {reasons[0]}"
        units = self.units(name)
        if len(units) == 1:
            return "all its channels hang together, so that none can go alone"
        if len({len(unit) for unit in units}) > 1:
            return "its channels hang together in parts of different sizes"
        return ""

    def _outputs(self, name: str) -> Axis | None:
        return self._labels.find(name, Side.OUT) or self._labels.find(name, Side.BOTH)

    def _root_parts(self, name: str) -> np.ndarray:
        """[width]: the unit of each output channel."""
        axis = self._outputs(name)
        if axis is None:
            return np.zeros(0, np.int64)
        return self._parts[axis.offset : axis.offset + axis.size]

    def _edits(self, name: str, parts: np.ndarray, gone: np.ndarray) -> tuple[ChannelEdit, ...]:
        root = self._outputs(name)
        found = []
        touched = np.nonzero(np.logical_or.reduceat(gone, self._offsets))[0]
        for axis in sorted((self._labels.axes[i] for i in touched), key=lambda a: a is not root):
            indices = np.nonzero(gone[axis.offset : axis.offset + axis.size])[0]
            found.append(
                ChannelEdit(
                    layer=axis.layer,
                    side=axis.side,
                    indices=tuple(indices.tolist()),
                    roots=_spread(self._parts[axis.offset + indices], parts),
                    dimension=axis.dimension,
                )
            )
        changed = [e for p in self._labels.partitions for e in attribute_edits(self._model, p, gone)]
        return (*found, *dict.fromkeys(changed))


def _spread(parts: np.ndarray, roots: np.ndarray) -> tuple[int, ...]:
    """The root's channel that each index goes with: in a unit of several, the one at the same place of it.

    Args:
        parts: the unit of each index.
        roots: the unit of each of the root's channels.
    """
    units, unit, counts = np.unique(parts, return_inverse=True, return_counts=True)
    order = np.argsort(unit, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(parts)) - np.repeat(np.cumsum(counts) - counts, counts)
    by_unit = np.argsort(roots, kind="stable")
    first = np.searchsorted(roots[by_unit], units)
    size = np.searchsorted(roots[by_unit], units, side="right") - first
    return tuple(by_unit[first[unit] + place * size[unit] // counts[unit]].tolist())


def _kind(layer: nn.Module) -> Literal["conv", "linear", "attention", "recurrent"]:
    if isinstance(layer, _ConvNd):
        return "conv"
    if isinstance(layer, Recurrent):
        return "recurrent"
    return "linear" if isinstance(layer, nn.Linear) else "attention"


def _parameter_owners(model: nn.Module) -> dict[int, list[str]]:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return owners
