"""The tensors that a model makes when it runs, and how their sizes follow the widths of its groups.

Found by running it: once as it is, and once for each group with half of the group's channels out. What a tensor shrinks
by is what those channels had in it, through whatever it went: concatenations, paddings, flattens, pooling.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.dispatch import DispatchMode
from edgeprune.graph.groups import ChannelGraph, ChannelGroup
from edgeprune.graph.lifetimes import Operation, lifetimes
from edgeprune.graph.slicing import headwise_, remove_channels_
from edgeprune.graph.trial import run
from edgeprune.records.memory import OpenCall, OpenSchedule, OpenTensor

_FUSED = ("relu", "hardtanh", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "batch_norm")
"""What runtimes compute in the operator before, where nobody else reads that; norms are folded into its weights."""

_IN_TABLES = ("convolution", "addmm", "mm", "add")
"""What `graph.operators` finds."""

_FLOAT_BYTES = 4


def model_activations(model: nn.Module, example: Tensor, groups: Sequence[ChannelGroup]) -> OpenSchedule:
    """Every tensor that the model makes out of its input, in the order of its calls, as float32.

    Args:
        model: left alone.
        example: one input, with its batch dimension.
        groups: those that can be cut; see `graph.groups.find_groups`. A tensor with the channels of two groups as two
            of its dimensions (a Gram matrix) counts as if they were added.

    Raises:
        InputError: the model does not run on the example.
        BuildError: the model cannot be traced, or makes other calls after a cut.
    """
    graph = ChannelGraph(model, example) if groups else None
    try:
        # Tensors without contents have sizes all the same, and cost no time.
        return _open_schedule(copy.deepcopy(model).eval().to("meta"), example.to("meta"), groups, graph)
    except (InputError, NotImplementedError):
        # The model makes tensors on the processor, or looks at values.
        return _open_schedule(copy.deepcopy(model).eval(), example, groups, graph)


def _open_schedule(
    whole: nn.Module, example: Tensor, groups: Sequence[ChannelGroup], graph: ChannelGraph | None
) -> OpenSchedule:
    for group in groups:
        # So that it makes the same calls as what a cut leaves of it.
        headwise_(whole, group.name)
    full = _recorded(whole, example)
    shares: dict[int, list[tuple[str, float]]] = {}
    for group in groups:
        if graph is None or group.width == 1:
            continue
        units = graph.units(group.name)
        removed = [channel for unit in units[: len(units) // 2] for channel in unit]
        # The tensors are shared: a cut replaces tensors and never writes into them.
        cut = copy.deepcopy(whole, {id(t): t for t in (*whole.parameters(), *whole.buffers())})
        remove_channels_(cut, graph.edits(group.name, removed))
        found = _recorded(cut, example)
        if found.operations != full.operations:
            raise BuildError(f"the model makes other calls when group {group.name!r} is cut", group=group.name)
        for key, size in enumerate(full.sizes):
            if size != found.sizes[key]:
                shares.setdefault(key, []).append((group.name, (size - found.sizes[key]) / len(removed)))
    return _schedule(full, shares, {group.name: group.width for group in groups})


@dataclass(slots=True)
class _Record:
    """Operations, with the module that ran each, over tensors that are numbered as they came; the input is 0."""

    operations: list[Operation[int]] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    outputs: tuple[int, ...] = ()


_Shares: TypeAlias = Mapping[int, Sequence[tuple[str, float]]]
"""By tensor, (group, elements for each of its channels)."""


def _schedule(record: _Record, shares: _Shares, full: Mapping[str, int]) -> OpenSchedule:
    found = lifetimes(record.operations, (0,), record.outputs)
    read = {0, *record.outputs, *(key for operation in record.operations for key in operation.reads)}
    tensors = []
    for key, (first, last) in found.spans.items():
        if key not in read:
            # Such as the statistics that a norm returns for training.
            continue
        by_group = tuple(shares.get(key, ()))
        fixed = record.sizes[key] - sum(each * full[group] for group, each in by_group)
        tensors.append(
            OpenTensor(
                name=str(key), fixed=fixed, by_group=by_group, element_bytes=_FLOAT_BYTES, first=first, last=last
            )
        )
    return OpenSchedule(steps=found.steps, tensors=tuple(tensors), calls=tuple(_calls(record, shares, full)))


def _calls(record: _Record, shares: _Shares, full: Mapping[str, int]) -> Iterator[OpenCall]:
    """Those that neither a table prices nor a runtime fuses."""
    readers = Counter(key for operation in record.operations if not operation.view for key in operation.reads)
    for operation, layer in zip(record.operations, record.layers, strict=True):
        fused = operation.in_place and readers[operation.reads[0]] == 1
        if operation.view or fused or operation.name in _IN_TABLES:
            continue
        # What a norm makes besides is for training.
        touched = (*operation.reads, operation.makes[0])
        by_group: dict[str, float] = {}
        for group, each in (share for key in touched for share in shares.get(key, ())):
            by_group[group] = by_group.get(group, 0.0) + each
        fixed = sum(record.sizes[key] for key in touched) - sum(each * full[g] for g, each in by_group.items())
        yield OpenCall(name=operation.name.strip("_"), layer=layer, fixed=fixed, by_group=tuple(by_group.items()))


def _recorded(model: nn.Module, example: Tensor) -> _Record:
    # A clone, so that a model that returns its input, or a part of it, is told apart from the next run.
    given = example.clone()
    recorder = _Recorder(given)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # An encoder layer's fast path runs none of its layers.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with recorder, recorder.watching(model):
            outputs = run(model, given)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    recorder.record.outputs = tuple(recorder.number(o) for o in outputs if recorder.number(o) >= 0)
    return recorder.record


class _Recorder(DispatchMode):
    """Numbers the tensors that come of the input, by the memory that they lie in."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.record = _Record(sizes=[example.numel()])
        self._running = [""]
        self._numbers = {_memory(example): 0}
        # Memory is given away again as soon as its tensor is gone.
        self._kept = [example]

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Know which module runs."""

        def enter(name: str) -> Callable[..., None]:
            return lambda *_: self._running.append(name)

        def leave(*_: object) -> None:
            self._running.pop()

        modules = [(name, module) for name, module in model.named_modules() if name]
        handles = [module.register_forward_pre_hook(enter(name)) for name, module in modules]
        handles += [module.register_forward_hook(leave, always_call=True) for _, module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def number(self, tensor: Tensor) -> int:
        """Of the tensor whose memory it lies in; -1 for a weight or a constant."""
        return self._numbers.get(_memory(tensor), -1)

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = function(*args, **(kwargs or {}))
        reads = tuple(n for n in (self.number(t) for t in _tensors(args)) if n >= 0)
        if reads:
            made = [t for t in _tensors((output,)) if t.numel() and self.number(t) not in reads]
            self._note(getattr(function, "__name__", "").split(".")[0], reads, made)
        return output

    def _note(self, name: str, reads: tuple[int, ...], made: list[Tensor]) -> None:
        makes = []
        for tensor in made:
            self._kept.append(tensor)
            self._numbers[_memory(tensor)] = len(self.record.sizes)
            makes.append(len(self.record.sizes))
            self.record.sizes.append(tensor.numel())
        plain = name.removesuffix("_")
        in_place = any(fused in plain for fused in _FUSED)
        # What makes nothing reads its input all the same: it is a view or writes in place.
        self.record.operations.append(Operation(name, reads, tuple(makes), in_place=in_place, view=not makes))
        self.record.layers.append(self._running[-1])


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - of a storage, the only name that it has


def _tensors(values: object) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, tuple | list):
        return [tensor for value in values for tensor in _tensors(value)]
    return []
