"""The operators of a model as a runtime runs them, found by running the model once.

A runtime folds norms into the layer before them and fuses activations, so both belong to the layer here. An addition
is an operator of its own: whether the runtime fuses it shows when it is measured on top of a layer. So is the average
of each channel: OpenVINO takes another kernel where they are no multiple of 16.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from edgeprune.graph.attention import HeadwiseAttention, attended
from edgeprune.graph.groups import ChannelGraph, ChannelGroup
from edgeprune.graph.slicing import Side, headwise_, is_depthwise
from edgeprune.graph.trial import run
from edgeprune.records.operators import OF_OUTPUTS_ALONE, ChannelPart, OperatorShape, OperatorUse

if TYPE_CHECKING:
    from edgeprune.graph.slicing import ChannelEdit

ACTIVATIONS = ("relu", "relu6", "hardtanh", "gelu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh")
_PASSING = ("batch_norm", "dropout", "dropout1d", "dropout2d", "feature_dropout", "contiguous")
_ADDITIONS = ("add", "__add__", "__radd__", "__iadd__")
# All the same to the runtimes: of 16 to 128 channels their latencies agree (OpenVINO, ONNX Runtime, TFLite; 2026-11).
_AVERAGES = ("mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d")
_MOST_DIMENSIONS = 2


def model_operators(model: nn.Module, example: Tensor, groups: Sequence[ChannelGroup]) -> tuple[OperatorUse, ...]:
    """Every convolution, linear layer, addition and average over all pixels of the model, in the order of their calls.

    Args:
        model: left alone.
        example: one input, with its batch dimension.
        groups: those that can be cut; see `graph.groups.find_groups`.

    Returns:
        One entry a call: a layer that runs twice is there twice. What the tables cannot price says why. What is in
        none of them (attention's products, pooling of a few pixels, norms that stand alone) does not appear.

    Raises:
        InputError: the model does not run on the example.
        BuildError: the model cannot be traced.
    """
    calls = _recorded(model, example, groups)
    couplings = _couplings(model, example, groups) if groups else {}
    return tuple(_use(call, couplings) for call in calls)


@dataclass(slots=True)
class _Call:
    """One run of a layer, an addition or an average; `layer` of these is where one operand comes from."""

    layer: str
    shape: OperatorShape
    unsupported: str = ""


@dataclass(slots=True)
class _Coupling:
    """The parts of one layer's channels."""

    inputs: list[ChannelPart] = field(default_factory=list)
    outputs: list[ChannelPart] = field(default_factory=list)


def _use(call: _Call, couplings: Mapping[str, _Coupling]) -> OperatorUse:
    coupling = couplings.get(call.layer, _Coupling())
    outputs = tuple(coupling.outputs)
    inputs = outputs if call.shape.kind in OF_OUTPUTS_ALONE else tuple(coupling.inputs)
    return OperatorUse(
        layer=call.layer, shape=call.shape, in_parts=inputs, out_parts=outputs, unsupported=call.unsupported
    )


def _couplings(model: nn.Module, example: Tensor, groups: Sequence[ChannelGroup]) -> dict[str, _Coupling]:
    graph = ChannelGraph(model, example)
    couplings: dict[str, _Coupling] = {}
    for group in groups:
        taken: dict[tuple[str, Side], set[int]] = {}
        for edit in graph.edits(group.name):
            _take(edit, taken)
        for (layer, side), channels in taken.items():
            coupling = couplings.setdefault(layer, _Coupling())
            part = ChannelPart(group=group.name, width=group.width, per_channel=len(channels) / group.width)
            (coupling.inputs if side is Side.IN else coupling.outputs).append(part)
    return couplings


def _take(edit: ChannelEdit, taken: dict[tuple[str, Side], set[int]]) -> None:
    if edit.side not in {Side.PARAMETER, Side.ATTRIBUTE}:
        side = Side.IN if edit.side is Side.IN else Side.OUT
        taken.setdefault((edit.layer, side), set()).update(edit.indices)


def _recorded(model: nn.Module, example: Tensor, groups: Sequence[ChannelGroup]) -> list[_Call]:
    watched = copy.deepcopy(model).eval()
    for group in groups:
        # torch's attention calls none of its layers.
        headwise_(watched, group.name)
    recorder = _Recorder(example)
    for name, layer in watched.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            layer.register_forward_hook(recorder.hook(name))
        elif isinstance(layer, HeadwiseAttention):
            layer.register_forward_pre_hook(recorder.projection(name), with_kwargs=True)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # An encoder layer's fast path runs none of its layers.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with recorder:
            run(watched, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return recorder.calls


class _Recorder(TorchFunctionMode):
    """Follows tensors from layer to layer: which call made each, and what was done to it since."""

    def __init__(self, example: Tensor) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self._input = example
        self._makers: dict[int, int] = {}
        # An address is given away again as soon as its tensor is gone.
        self._kept: list[Tensor] = []

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """What records the calls of one layer."""

        def record(layer: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            (given,) = arguments[:1]
            shape, unsupported = _shape(layer, given, output, at_input=given is self._input)
            self.calls.append(_Call(name, shape, unsupported))
            self._made(output, len(self.calls) - 1)

        return record

    def projection(self, name: str) -> Callable[[HeadwiseAttention, tuple[Tensor, ...], dict[str, Tensor]], None]:
        """What records the packed projection of attention to itself; of other attention it is not priced."""

        def record(layer: HeadwiseAttention, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            given, *others = attended(arguments, named)
            if any(other is not given for other in others):
                return
            out_features, in_features = layer.in_proj_weight.shape
            batch = given.shape[0 if layer.batch_first else 1]
            rows = given.numel() // in_features // batch
            shape = OperatorShape(kind="linear", in_channels=in_features, out_channels=out_features, rows=rows)
            self.calls.append(_Call(name, shape))

        return record

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        output = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        plain = name.removesuffix("_") if not name.endswith("__") else name
        operands = [a for a in args if isinstance(a, Tensor)]
        if isinstance(output, Tensor) and operands:
            self._follow(plain, operands, output)
        return output

    def _follow(self, name: str, operands: list[Tensor], output: Tensor) -> None:
        maker = self._makers.get(id(operands[0]))
        if name in _ADDITIONS:
            self._addition(operands, output)
        elif maker is None:
            return
        elif name in _PASSING:
            self._made(output, maker)
        elif name in ACTIVATIONS and not self.calls[maker].shape.activation:
            call = self.calls[maker]
            call.shape = replace(call.shape, activation="relu6" if name == "hardtanh" else name)
            self._made(output, maker)
        elif name in _AVERAGES:
            self._average(self.calls[maker], operands[0], output)

    def _average(self, made_by: _Call, given: Tensor, output: Tensor) -> None:
        """Of all pixels of each channel; other means and pools are in no table."""
        extent = tuple(given.shape[2:])
        # A mean over channels has the right number where there are as many pixels.
        by_channel = output.shape[:2] == given.shape[:2] and output.numel() == math.prod(given.shape[:2])
        if len(made_by.shape.out_extent) != len(extent) or not by_channel:
            return
        channels = given.shape[1]
        shape = OperatorShape(kind="average", in_channels=channels, out_channels=channels, extent=extent)
        self.calls.append(_Call(made_by.layer, shape))

    def _addition(self, operands: list[Tensor], output: Tensor) -> None:
        if len(operands) != 2 or operands[0].shape != operands[1].shape:  # noqa: PLR2004
            return
        makers = [self._makers[id(o)] for o in operands if id(o) in self._makers]
        if not makers:
            return
        # The later one: its own channels are those that are added.
        made_by = self.calls[max(makers)]
        of_linear = made_by.shape.kind == "linear" or (made_by.shape.kind == "add" and not made_by.shape.extent)
        channels = output.shape[-1] if of_linear else output.shape[1]
        extent = () if of_linear else tuple(output.shape[2:])
        rows = math.prod(output.shape[1:-1]) if of_linear else 1
        # Of an even kernel the output is another size than the input, unless it is padded on one side only.
        odd = made_by.shape.kind == "conv" and all(size % 2 for size in made_by.shape.kernel)
        shape = OperatorShape(
            kind="add",
            in_channels=channels,
            out_channels=channels,
            extent=extent,
            after=made_by.shape.kernel if odd else made_by.shape.after,
            rows=rows,
        )
        self.calls.append(_Call(made_by.layer, shape))
        self._made(output, len(self.calls) - 1)

    def _made(self, tensor: Tensor, maker: int) -> None:
        self._makers[id(tensor)] = maker
        self._kept.append(tensor)


def _shape(layer: nn.Module, given: Tensor, output: Tensor, *, at_input: bool) -> tuple[OperatorShape, str]:
    if isinstance(layer, nn.Linear):
        rows = math.prod(given.shape[1:-1])
        shape = OperatorShape(
            kind="linear", in_channels=layer.in_features, out_channels=layer.out_features, rows=rows, at_input=at_input
        )
        return shape, ""
    if not isinstance(layer, _ConvNd):
        raise TypeError(f"expected a convolution or a linear layer, got {type(layer).__name__}")
    padding = layer.padding
    if isinstance(padding, str):
        sides = zip(layer.kernel_size, layer.dilation, strict=True)
        padding = tuple(d * (k - 1) // 2 if padding == "same" else 0 for k, d in sides)
    shape = OperatorShape(
        kind="depthwise" if is_depthwise(layer) else "conv",
        in_channels=layer.in_channels,
        out_channels=layer.out_channels,
        kernel=tuple(layer.kernel_size),
        stride=tuple(layer.stride),
        padding=tuple(padding),
        dilation=tuple(layer.dilation),
        extent=tuple(given.shape[2:]),
        groups=layer.groups,
        at_input=at_input,
    )
    return shape, _obstacle(layer, shape, output)


def _obstacle(layer: _ConvNd, shape: OperatorShape, output: Tensor) -> str:
    if layer.transposed:
        return "a transposed convolution"
    if len(shape.kernel) > _MOST_DIMENSIONS:
        return f"a convolution of {len(shape.kernel)} dimensions"
    if shape.out_extent != tuple(output.shape[2:]):
        return "its padding is not the same on both sides"
    return ""
