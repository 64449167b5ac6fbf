"""Running a model once while the slices of its weights are followed through every operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from edgeprune.graph.attention import HeadwiseAttention
from edgeprune.graph.dispatch import DispatchMode
from edgeprune.graph.labels import Labels, active
from edgeprune.graph.propagation import rule_for, unfollowed
from edgeprune.graph.recurrent import follow_recurrent
from edgeprune.graph.slicing import Recurrent, Side
from edgeprune.graph.traced import Call, LayerAxes, Tracks, tensors
from edgeprune.graph.trial import run, without_fast_path

Norm = _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm


def trace(model: nn.Module, example: Tensor) -> Labels:
    """Run a model and follow its weights; nothing of it changes.

    Args:
        model: in evaluation mode; it gets hooks, which are removed again.
        example: one input, with its batch dimension.

    Raises:
        InputError: the model does not run on the example.
    """
    labels = Labels()
    tracer = _Tracer(model, labels, example)
    hooks = tracer.hooks(model)
    try:
        # Attention as one operation would hide its heads.
        with without_fast_path(), sdpa_kernel(SDPBackend.MATH), tracer:
            outputs = run(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    for output in outputs:
        for track in tracer.tracks(output):
            labels.keep(track, "")
    return labels


class _Tracer(DispatchMode):
    """Holds the labels of every tensor that was made."""

    def __init__(self, model: nn.Module, labels: Labels, example: Tensor) -> None:
        super().__init__()
        self._labels = labels
        self._layers = dict(model.named_modules())
        self._convolutions: dict[int, str] = {}
        self._found: dict[int, Tracks] = {}
        self._of_input = {id(example)}
        # An address is given away again as soon as its tensor is gone.
        self._alive: list[Tensor] = [example]
        self._running: list[str] = []
        self._hidden = 0
        for name, layer in self._layers.items():
            for attribute, parameter in layer.named_parameters(recurse=False):
                if isinstance(layer, _ConvNd) and attribute == "weight":
                    self._convolutions.setdefault(id(parameter), name)
                if id(parameter) not in self._found:
                    self._set(parameter, self._of_parameter(name, layer, attribute, parameter))

    def tracks(self, tensor: Tensor) -> Tracks:
        """The labels of a tensor; none for what no weight made."""
        return self._found.get(id(tensor), ())

    def of_input(self, tensor: Tensor) -> bool:
        """Whether the model's input had a say in a tensor."""
        return id(tensor) in self._of_input

    def hooks(self, model: nn.Module) -> list[Any]:
        """What tells which module is running."""
        found: list[Any] = []
        for name, module in model.named_modules():
            found.append(module.register_forward_pre_hook(partial(self._enter, name), with_kwargs=True))
            found.append(module.register_forward_hook(partial(self._leave, name), with_kwargs=True))
        return found

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        output = function(*args, **(kwargs or {}))
        outputs = tuple(tensors((output,)))
        if any(self.of_input(t) for t in tensors((args, kwargs or {}))):
            self._alive += outputs
            self._of_input.update(map(id, outputs))
        if self._hidden:
            return output
        overload = getattr(function, "__name__", "").split(".")[0]
        name = overload if overload.endswith("__") else overload.removesuffix("_")
        call = Call(
            name=name,
            function=function,
            arguments=args,
            named=kwargs or {},
            outputs=outputs,
            modules=tuple(self._running),
            tracks=self.tracks,
            of_input=self.of_input,
            convolution=self._convolution,
            norm_axes=self._norm_axes,
        )
        if any(self.tracks(t) or id(t) in self._convolutions for t in call.operands):
            for tensor, found in zip(call.outputs, self._followed(call), strict=True):
                self._set(tensor, found)
        return output

    def _followed(self, call: Call) -> list[Tracks]:
        try:
            return rule_for(call.name)(self._labels, call)
        except (IndexError, KeyError, RuntimeError, TypeError, ValueError):
            # An operation in a form that its rule does not foresee costs the channels it touches, not the model.
            return unfollowed(self._labels, call)

    def _set(self, tensor: Tensor, tracks: Iterable[Tensor]) -> None:
        self._alive.append(tensor)
        self._found[id(tensor)] = tuple(t for t in tracks if active(t))

    def _enter(self, name: str, module: nn.Module, _values: object, _named: object) -> None:
        self._running.append(name)
        self._hidden += isinstance(module, Recurrent)

    def _leave(self, name: str, module: nn.Module, values: object, named: object, output: object) -> None:
        self._running.pop()
        if not isinstance(module, Recurrent):
            return
        self._hidden -= 1
        if not self._hidden:
            given = tensors((values, named))
            for tensor, found in follow_recurrent(self._labels, name, module, given, output, self.tracks):
                self._set(tensor, found)

    def _convolution(self, weight: Tensor) -> LayerAxes | None:
        name = self._convolutions.get(id(weight))
        if name is None:
            return None
        layer = self._layers[name]
        return partial(_convolution_axes, name, layer) if isinstance(layer, _ConvNd) else None

    def _norm_axes(self, size: int) -> list[Tensor]:
        name = self._running[-1] if self._running else ""
        if not isinstance(self._layers.get(name), Norm):
            return []
        return [self._labels.axis(name, Side.BOTH, size)]

    def _of_parameter(self, name: str, layer: nn.Module, attribute: str, parameter: Tensor) -> list[Tensor]:
        rows = _rows(self._labels, name, layer, attribute, parameter)
        if rows is not None:
            return rows
        found = []
        full = f"{name}.{attribute}" if name else attribute
        for dimension, size in enumerate(parameter.shape):
            axis = self._labels.axis(full, Side.PARAMETER, size, dimension)
            found.append(axis.reshape([-1 if d == dimension else 1 for d in range(parameter.dim())]))
        return found


def _rows(labels: Labels, name: str, layer: nn.Module, attribute: str, parameter: Tensor) -> list[Tensor] | None:
    """The labels of a weight whose layer is known; None for bare parameters."""
    size = parameter.shape[0] if parameter.dim() else 1
    packed = isinstance(layer, nn.MultiheadAttention | HeadwiseAttention) and attribute.startswith("in_proj_")
    if isinstance(layer, nn.Linear) or packed:
        rows = labels.axis(name, Side.OUT, size)
        both = parameter.dim() > 1
        return [rows[:, None], labels.axis(name, Side.IN, parameter.shape[1])[None]] if both else [rows]
    if isinstance(layer, _ConvNd) and attribute == "bias":
        return [_convolution_axes(name, layer, labels)[1]]
    if isinstance(layer, Norm | nn.PReLU) and parameter.dim() == 1:
        return [labels.axis(name, Side.BOTH, size)]
    if isinstance(layer, nn.Embedding):
        return [labels.axis(name, Side.BOTH, parameter.shape[1])[None]]
    known = isinstance(layer, _ConvNd | Recurrent | Norm)
    return [] if known else None


def _convolution_axes(name: str, layer: _ConvNd, labels: Labels) -> tuple[Tensor, Tensor]:
    """Labels of the input and the output channels, with those joined that its groups couple."""
    inner, outer = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    if layer.groups > 1 and inner == outer == 1:
        both = labels.axis(name, Side.BOTH, layer.out_channels)
        return both, both
    made = labels.axis(name, Side.OUT, layer.out_channels)
    if layer.groups > 1 and inner == 1:
        # Whole groups go: one input channel and all that is made of it.
        return labels.together(made.reshape(layer.groups, outer), [1]).reshape(-1), made
    taken = labels.axis(name, Side.IN, layer.in_channels)
    if layer.groups > 1:
        # Each group loses the same channels, so that the number of groups stays.
        labels.together(taken.reshape(layer.groups, inner), [0])
        labels.together(made.reshape(layer.groups, outer), [0])
    return taken, made
