"""A .tflite graph as XNNPACK gets to see it: constants unpacked, zero padding fused into the convolution behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from ai_edge_litert.schema_py_generated import ModelT, OperatorT, SubGraphT

IMAGE_AXES: Final = 4
_VALID: Final = 1
_WITH_WEIGHTS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
_CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"})


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One operator as XNNPACK sees it: padding fused into the convolution behind it.

    Attributes:
        inputs: tensors that are computed; constants are not among them.
        padding: rows above, columns left, rows below, columns right; None for TensorFlow's SAME with a stride.
    """

    kind: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = None
    weights: np.ndarray | None = None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output_shape: tuple[int, ...] = ()
    axes: tuple[int, ...] = ()
    padding: tuple[int, int, int, int] | None = (0, 0, 0, 0)
    floating: bool = True

    @property
    def strides(self) -> tuple[int, int]:
        """Of a convolution: rows, columns."""
        return (self.options.strideH, self.options.strideW)

    @property
    def dilations(self) -> tuple[int, int]:
        """Of a convolution: rows, columns."""
        return (self.options.dilationHFactor, self.options.dilationWFactor)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Operators in order, and the tensors that come from or go to outside."""

    operators: tuple[Operator, ...]
    inputs: frozenset[int]
    outputs: frozenset[int]

    @classmethod
    def of(cls, model: ModelT, graph: SubGraphT, constants: Mapping[int, np.ndarray]) -> Graph:
        """From the flatbuffer's objects.

        Args:
            model: whose operator codes are meant.
            graph: of that model.
            constants: by tensor, unpacked.
        """
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        names = {value: name for name, value in vars(BuiltinOperator).items() if isinstance(value, int)}
        known = dict(constants)
        found: list[Operator] = []
        for number, operator in enumerate(graph.operators):
            code = model.operatorCodes[operator.opcodeIndex]
            kind = names.get(max(code.builtinCode, code.deprecatedBuiltinCode), "CUSTOM")
            if kind in {"DENSIFY", "DEQUANTIZE"} and int(operator.inputs[0]) in known:
                # Unpacked when the file is loaded: XNNPACK sees a constant.
                known[int(operator.outputs[0])] = known[int(operator.inputs[0])]
                continue
            found.append(_operator(graph, operator, kind, number, known))
        return cls(
            operators=_with_padding_fused(found, known, graph),
            inputs=frozenset(int(i) for i in graph.inputs),
            outputs=frozenset(int(i) for i in graph.outputs),
        )


def _operator(
    graph: SubGraphT, operator: OperatorT, kind: str, number: int, known: Mapping[int, np.ndarray]
) -> Operator:
    inputs = [int(i) for i in operator.inputs if i >= 0]
    shapes = tuple(tuple(int(s) for s in _list(graph.tensors[i].shape)) for i in inputs)
    weights = known.get(inputs[1]) if len(inputs) > 1 and kind in _WITH_WEIGHTS else None
    axes = known.get(inputs[1]) if len(inputs) > 1 and kind in {"MEAN", "SUM"} else None
    computed = tuple(i for i in inputs if i not in known)
    made = tuple(int(i) for i in operator.outputs)
    # 0 and 1 are float32 and float16 in the schema.
    floating = all(graph.tensors[i].type in {0, 1} for i in (*computed, *made))
    found = Operator(
        kind=kind,
        name=f"#{number} {kind}{_shape_of(kind, weights, operator.builtinOptions)}",
        inputs=computed,
        outputs=made,
        options=operator.builtinOptions,
        weights=weights,
        input_shapes=shapes,
        output_shape=tuple(int(s) for s in _list(graph.tensors[made[0]].shape)),
        axes=tuple(int(a) for a in axes.ravel()) if axes is not None else (),
        floating=floating,
    )
    return replace(found, padding=_own_padding(found))


def _list(values: Any) -> list[Any]:  # noqa: ANN401 - the flatbuffer's lists may be arrays or None
    return [] if values is None else list(values)


def _shape_of(kind: str, weights: np.ndarray | None, options: Any) -> str:  # noqa: ANN401
    if weights is None:
        return ""
    if kind == "FULLY_CONNECTED":
        return f" {weights.shape[1]}->{weights.shape[0]}"
    stride = f"s{options.strideH}" if options.strideH != 1 else ""
    kernel = f" {weights.shape[1]}x{weights.shape[2]}{stride}"
    return (
        f"{kernel} {weights.shape[3]}->{weights.shape[0]}" if kind == "CONV_2D" else f"{kernel} of {weights.shape[3]}"
    )


def _own_padding(operator: Operator) -> tuple[int, int, int, int] | None:
    if operator.kind not in _CONVOLUTIONS or operator.weights is None or operator.options.padding == _VALID:
        return (0, 0, 0, 0)
    if operator.strides != (1, 1):
        return None
    height, width = operator.weights.shape[1] - 1, operator.weights.shape[2] - 1
    return (height // 2, width // 2, height - height // 2, width - width // 2)


def _with_padding_fused(
    operators: Sequence[Operator], known: Mapping[int, np.ndarray], graph: SubGraphT
) -> tuple[Operator, ...]:
    """A PAD of zeros around the image goes into the one convolution that reads it."""
    readers: dict[int, int] = {}
    for operator in operators:
        for tensor in operator.inputs:
            readers[tensor] = readers.get(tensor, 0) + 1
    pads = {op.outputs[0]: (op, _pad_sizes(graph, op, known)) for op in operators if op.kind == "PAD"}
    fused: set[int] = set()
    result = []
    for operator in operators:
        pad, sizes = pads.get(operator.inputs[0], (None, None)) if operator.inputs else (None, None)
        fits = operator.kind in _CONVOLUTIONS and operator.padding == (0, 0, 0, 0)
        if pad is not None and sizes is not None and fits and readers[operator.inputs[0]] == 1:
            fused.add(pad.outputs[0])
            result.append(replace(operator, inputs=pad.inputs, padding=sizes))
        else:
            result.append(operator)
    return tuple(op for op in result if not (op.kind == "PAD" and op.outputs[0] in fused))


def _pad_sizes(graph: SubGraphT, pad: Operator, known: Mapping[int, np.ndarray]) -> tuple[int, int, int, int] | None:
    from_tensor = {int(o.outputs[0]): o for o in graph.operators}
    sizes = known.get(int(from_tensor[pad.outputs[0]].inputs[1]))
    if sizes is None or sizes.shape != (IMAGE_AXES, 2) or sizes[[0, 3]].any():
        return None
    (above, below), (left, right) = sizes[1].tolist(), sizes[2].tolist()
    return (above, left, below, right)


def is_pointwise(operator: Operator) -> bool:
    """A 1x1 convolution with constant weights."""
    return operator.kind == "CONV_2D" and operator.weights is not None and operator.weights.shape[1:3] == (1, 1)
