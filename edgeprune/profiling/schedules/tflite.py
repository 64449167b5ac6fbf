"""TFLite: the flatbuffer's operators in the order in which they stand, which is the order that its planner takes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from edgeprune.graph.lifetimes import Operation
from edgeprune.libraries import library_call
from edgeprune.profiling.schedules._tensors import make_schedule
from edgeprune.protocols import ScheduleReader
from edgeprune.records.memory import Schedule
from edgeprune.records.rung import Precision

_VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
_ELEMENTWISE = frozenset({"RELU", "RELU6", "LOGISTIC", "TANH", "HARD_SWISH", "GELU", "LEAKY_RELU", "ELU"})
_BYTES = {
    "FLOAT64": 8, "INT64": 8, "UINT64": 8, "FLOAT32": 4, "INT32": 4, "UINT32": 4, "FLOAT16": 2, "INT16": 2,
    "BFLOAT16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1, "INT4": 0.5,
}  # fmt: skip


class TfLiteSchedule:
    """Takes the first graph of the file."""

    def read(self, source: Path, precision: Precision) -> Schedule:  # noqa: ARG002
        """Read model.tflite. Weights that DENSIFY writes out when the file is loaded are constants too."""
        with library_call(f"tflite: cannot read the schedule of {source}"):
            from ai_edge_litert import schema_py_generated as schema
            from ai_edge_litert.tools import flatbuffer_utils

            model = flatbuffer_utils.read_model(str(source))
            graph = model.subgraphs[0]
            types: dict[int, str] = {value: name for name, value in vars(schema.TensorType).items()}
            sizes = {
                number: (math.prod(_shape(tensor)), float(_BYTES[types[tensor.type]]))
                for number, tensor in enumerate(graph.tensors)
            }
            operations = [_operation(model, operator) for operator in graph.operators]
            stored = [n for n, tensor in enumerate(graph.tensors) if model.buffers[tensor.buffer].data is not None]
            return make_schedule(
                operations,
                sizes,
                [int(t) for t in graph.inputs],
                [int(t) for t in graph.outputs],
                round(sum(math.prod(sizes[n]) for n in stored)),
            )


def _shape(tensor: Any) -> list[int]:  # noqa: ANN401
    return [] if tensor.shape is None else [int(d) for d in tensor.shape]


def _operation(model: Any, operator: Any) -> Operation[int]:  # noqa: ANN401
    from ai_edge_litert import schema_py_generated as schema

    code = model.operatorCodes[operator.opcodeIndex].builtinCode
    names: dict[int, str] = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    return Operation(
        name=names[code],
        # An absent optional input is -1.
        reads=tuple(int(t) for t in operator.inputs if t >= 0),
        makes=tuple(int(t) for t in operator.outputs),
        in_place=names[code] in _ELEMENTWISE,
        view=names[code] in _VIEWS,
    )


SCHEDULE: Final[ScheduleReader] = TfLiteSchedule()
