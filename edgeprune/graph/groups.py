"""Channel groups: which output channels must be cut together. The only file that imports torch_pruning."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import BuildError
from edgeprune.graph.names import match_layers
from edgeprune.graph.slicing import ChannelEdit, Side, is_depthwise, remove_channels_
from edgeprune.graph.trial import TrialBench, TrialVerdict, run
from edgeprune.registry import suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Output channels that are cut together, proved by a trial cut.

    Attributes:
        name: of the group's root layer, as `named_modules` has it.
        width: channels of the root layer.
        layers: the layers whose output channels go with the root's, the root first: convolutions, linears, norms.
        consumers: the layers that take these channels as input.
        kernel: of the root convolution; empty for a linear one.
    """

    name: str
    width: int
    layers: tuple[str, ...]
    consumers: tuple[str, ...]
    kind: Literal["conv", "linear"]
    kernel: tuple[int, ...]


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


def find_groups(model: nn.Module, example: Tensor, ignored: Sequence[str] = ()) -> Groups:
    """Find the channels that can be cut; every group found has passed a trial cut on a copy.

    Args:
        model: left alone.
        example: one input, with its batch dimension.
        ignored: layers that must keep their width; `*` is a wildcard.

    Raises:
        InputError: a name in `ignored` matches no layer, or the model does not run on the example.
        BuildError: the model cannot be traced.
    """
    kept = match_layers(model, ignored, key="pruning.ignored")
    graph = ChannelGraph(model, example)
    bench = TrialBench(model, example)
    found: list[ChannelGroup] = []
    refused: list[RefusedGroup] = []
    for name in graph.roots():
        try:
            edits = graph.edits(name)
            half = graph.edits(name, bench.removed_half(graph.width(name)))
        except BuildError as error:
            refused.append(RefusedGroup(name=name, reason=error.message))
            continue
        if kept & {e.layer for e in edits if e.side is not Side.IN}:
            continue
        reason = graph.obstacle(name, edits)
        if not reason:
            trial = bench.try_cut(half)
            if trial.verdict is TrialVerdict.CHANGES_OUTPUT:
                continue
            reason = trial.reason
        if reason:
            refused.append(RefusedGroup(name=name, reason=reason))
        else:
            found.append(graph.describe(name, edits))
    return Groups(groups=tuple(found), refused=tuple(refused))


def cut_groups_(model: nn.Module, example: Tensor, removed: Mapping[str, Sequence[int]]) -> None:
    """Take output channels of groups out of a model, in place, with one trace; the same as one after the other.

    Args:
        model: changed in place.
        example: one input, with its batch dimension.
        removed: by group, which is its root layer: indices into that layer's outputs as they are now.

    Raises:
        BuildError: no such layer, an index out of range, or no channel would be left.
    """
    graph = ChannelGraph(model, example)
    edits = [e for name, indices in removed.items() if len(indices) for e in graph.edits(name, indices)]
    remove_channels_(model, edits)


class ChannelGraph:
    """How the channels of one model hang together, at its present widths. The model is copied, then left alone.

    Raises:
        InputError: the model does not run on the example.
        BuildError: the model cannot be traced.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._model = copy.deepcopy(model).eval()
        self._model.requires_grad_(requires_grad=True)  # The trace follows gradients.
        run(self._model, example)
        self._graph: Any = torch_pruning.DependencyGraph()
        try:
            with torch.enable_grad():
                # In a tuple: a bare tensor would be unpacked along its batch dimension.
                self._graph.build_dependency(self._model, (example.clone(),), verbose=False)
        except Exception as error:
            raise BuildError(f"the model's channels cannot be traced: {type(error).__name__}: {error}") from error
        self._names: dict[nn.Module, str] = {m: n for n, m in self._model.named_modules()}
        self._layers = {n: m for m, n in self._names.items() if m in self._graph.module2node}
        self._owners = _parameter_owners(self._model)

    def roots(self) -> tuple[str, ...]:
        """One convolution or linear layer for each set of channels that hang together, in the model's order."""
        seen: set[str] = set()
        roots: list[str] = []
        for name, layer in self._layers.items():
            if name in seen or not isinstance(layer, _ConvNd | nn.Linear):
                continue
            roots.append(name)
            try:
                seen.update(e.layer for e in self.edits(name) if e.side is not Side.IN)
            except BuildError:
                seen.add(name)  # Asked for by itself it tells why.
        return tuple(roots)

    def width(self, name: str) -> int:
        """Output channels of a convolution or linear layer.

        Raises:
            BuildError: there is no such layer in the trace.
        """
        layer = self._layers.get(name)
        if isinstance(layer, _ConvNd):
            return int(layer.out_channels)
        if isinstance(layer, nn.Linear):
            return int(layer.out_features)
        known = tuple(n for n, m in self._layers.items() if isinstance(m, _ConvNd | nn.Linear))
        raise BuildError(f"no convolution or linear layer {name!r} in the model{suggest(name, known)}", layer=name)

    def edits(self, name: str, removed: Sequence[int] | None = None) -> tuple[ChannelEdit, ...]:
        """All that must be cut when these output channels of a layer go; every channel when `removed` is None.

        Raises:
            BuildError: no such layer, an index out of range, or no channel would be left.
        """
        width = self.width(name)
        indices = list(range(width)) if removed is None else sorted(set(removed))
        outside = [i for i in indices if not 0 <= i < width]
        if outside:
            raise BuildError(f"layer {name!r}: expected channels from 0 to {width - 1}, got {outside[0]}", layer=name)
        if removed is not None and len(indices) >= width:
            raise BuildError(f"layer {name!r}: no channel would be left of {width}", layer=name)
        layer = self._layers[name]
        prune = self._graph.get_pruner_of_module(layer).prune_out_channels
        try:
            items = self._graph.get_pruning_group(layer, prune, indices)
        except Exception as error:
            raise BuildError(f"layer {name!r}: its channels cannot be followed: {error}", layer=name) from error
        return tuple(e for e in (self._edit(item) for item in items) if e is not None)

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
            kind="conv" if isinstance(layer, _ConvNd) else "linear",
            kernel=tuple(layer.kernel_size) if isinstance(layer, _ConvNd) else (),
        )

    def obstacle(self, name: str, edits: Sequence[ChannelEdit]) -> str:
        """Why a group cannot be cut, as far as that can be told without trying; else empty."""
        if self.width(name) == 1:
            return "it has a single channel"
        for edit in edits:
            if edit.side is Side.PARAMETER:
                continue
            layer = self._model.get_submodule(edit.layer)
            if isinstance(layer, _ConvNd) and layer.groups > 1 and not is_depthwise(layer):
                return f"layer {edit.layer!r} is a grouped convolution ({layer.groups} groups)"
            for parameter in layer.parameters(recurse=False):
                owners = self._owners[id(parameter)]
                if len(owners) > 1:
                    return f"a weight is shared between {' and '.join(owners)}"
        return ""

    def _edit(self, item: Any) -> ChannelEdit | None:  # noqa: ANN401
        """One entry of torch-pruning's group as an edit; None for operations that hold no weights."""
        module, indices, roots = item.dep.target.module, tuple(item.idxs), tuple(item.root_idxs)
        if isinstance(module, nn.Parameter):
            name = self._graph._param_to_name[module]  # noqa: SLF001
            dimension = int(item.dep.target.pruning_dim)
            return ChannelEdit(layer=name, side=Side.PARAMETER, indices=indices, roots=roots, dimension=dimension)
        has_channels = any(True for _ in module.parameters()) or _is_norm(module)
        if module not in self._names or not has_channels:
            return None
        side = Side.BOTH
        if isinstance(module, nn.Linear) or (isinstance(module, _ConvNd) and not is_depthwise(module)):
            is_output = self._graph.is_out_channel_pruning_fn(item.dep.handler)
            side = Side.OUT if is_output else Side.IN
        return ChannelEdit(layer=self._names[module], side=side, indices=indices, roots=roots)


def _is_norm(layer: nn.Module) -> bool:
    """Norms count their channels even where they have no weights."""
    return isinstance(layer, nn.modules.batchnorm._NormBase | nn.LayerNorm | nn.GroupNorm)  # noqa: SLF001


def _parameter_owners(model: nn.Module) -> dict[int, list[str]]:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return owners
