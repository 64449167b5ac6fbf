"""OpenVINO: the graph that its CPU plugin compiled, in its order of execution, with the element types that it chose."""

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

_HINTS = {Precision.BF16: "bf16", Precision.FP16: "f16"}
_VIEWS = frozenset({"Reshape", "Output"})


class OpenVinoSchedule:
    """Compiles the file for this host's CPU: fusions and types are those of its plugin."""

    def read(self, source: Path, precision: Precision) -> Schedule:
        """Read model.xml with its model.bin."""
        with library_call(f"openvino: cannot read the schedule of {source}"):
            import openvino

            settings = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": 1,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": _HINTS.get(precision, "f32"),
            }
            compiled = openvino.Core().compile_model(source, "CPU", settings)
            graph = sorted(compiled.get_runtime_model().get_ordered_ops(), key=_order)
            constants = [node for node in graph if _kind(node) == "Const"]
            weight_bytes = sum(math.prod(_size(node.output(0))) for node in constants)
            nodes = [node for node in graph if _kind(node) != "Const"]
            ports = {_key(port): _size(port) for node in nodes for port in node.outputs()}
            return make_schedule(
                [_operation(node) for node in nodes if node.inputs()],
                ports,
                [_key(port) for node in nodes if not node.inputs() for port in node.outputs()],
                [_key(node.input_value(0)) for node in nodes if _kind(node) == "Output"],
                round(weight_bytes),
            )


def _kind(node: Any) -> str:  # noqa: ANN401
    return str(node.get_rt_info()["layerType"].value)


def _order(node: Any) -> int:  # noqa: ANN401
    return int(node.get_rt_info()["execOrder"].value)


def _key(port: Any) -> tuple[str, int]:  # noqa: ANN401
    return port.get_node().get_friendly_name(), int(port.get_index())


def _size(port: Any) -> tuple[int, float]:  # noqa: ANN401
    element = port.get_element_type()
    return math.prod(port.get_shape()), element.bitwidth / 8


def _operation(node: Any) -> Operation[tuple[str, int]]:  # noqa: ANN401
    return Operation(
        name=node.get_friendly_name(),
        reads=tuple(_key(port) for port in node.input_values()),
        makes=tuple(_key(port) for port in node.outputs()),
        view=_kind(node) in _VIEWS,
    )


SCHEDULE: Final[ScheduleReader] = OpenVinoSchedule()
