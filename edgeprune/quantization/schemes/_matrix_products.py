"""Ranges of what a TFLite file multiplies activations by, such as the keys and values of attention.

XNNPACK takes an INT8 BATCH_MATMUL only where the zero point of its second operand is 0; else TFLite's own kernel runs,
and the graph falls apart around it. With ranges as they are calibrated that is left to chance: one such product more or
less in XNNPACK was 0.08 of 1.7 ms. With ranges that are even around 0 an encoder of four layers took 1.27 instead of
2.10 ms, and its outputs correlated 0.99908 with the float ones instead of 0.99913 (x86, ai-edge-litert 2.3).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgeprune.quantization.schemes._tflite_graph import TfliteGraph

_MOST_NEGATIVE, _MOST_POSITIVE = -128, 127


def second_operands(graphs: Iterable[TfliteGraph]) -> frozenset[str]:
    """Names of the tensors that BATCH_MATMULs of a file have for their second operand, and of what those only reshape.

    A tensor and its reshaped or transposed forms share one scale.
    """
    from ai_edge_litert import schema_py_generated as schema

    kinds = schema.BuiltinOperator
    found: set[str] = set()
    for graph in graphs:
        pending = [o.inputs[1] for o in graph.subgraph.operators if graph.kind(o) == kinds.BATCH_MATMUL]
        while pending:
            index = pending.pop()
            found.add(graph.name(index))
            maker = graph.makers.get(index)
            if maker is not None and graph.kind(maker) in {kinds.RESHAPE, kinds.TRANSPOSE}:
                pending.append(maker.inputs[0])
    return frozenset(found)


def center_(ranges: dict[str, Any], names: Iterable[str]) -> None:
    """Widen ranges until 0 is in the middle of int8, that is at zero point 0.

    Args:
        ranges: [min, max] by tensor, as the quantizer takes them; those of `names` are replaced.
        names: of tensors; those without a range are left out.
    """
    for name in names:
        if name in ranges:
            found = ranges[name]
            largest = np.maximum(np.abs(found["min"]), np.abs(found["max"]))
            lowest = (largest * (_MOST_NEGATIVE / _MOST_POSITIVE)).astype(largest.dtype)
            ranges[name] = {**found, "min": lowest, "max": largest}
