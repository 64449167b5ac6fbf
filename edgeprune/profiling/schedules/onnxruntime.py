"""ONNX Runtime: its optimised graph, in the order in which its sequential executor runs it.

The graph is optimised as far as it is the same on every machine (`ORT_ENABLE_EXTENDED`): the last level changes layouts
to suit the CPU of this host, and the device may have another one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

from edgeprune.graph.lifetimes import Operation
from edgeprune.libraries import library_call
from edgeprune.profiling.schedules._tensors import make_schedule
from edgeprune.protocols import ScheduleReader
from edgeprune.records.memory import Schedule
from edgeprune.records.rung import Precision

_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_ELEMENTWISE = frozenset(
    {"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "HardSwish", "Gelu", "QuickGelu"}
)


class OnnxRuntimeSchedule:
    """Has ONNX Runtime write the graph that it runs, and runs it once for the tensors' sizes."""

    def read(self, source: Path, precision: Precision) -> Schedule:  # noqa: ARG002
        """Read model.onnx."""
        with library_call(f"onnxruntime: cannot read the schedule of {source}"):
            import onnx

            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "optimised.onnx"
                _session(source, "ORT_ENABLE_EXTENDED", path)
                model = onnx.load(path)
                graph = model.graph
                outputs = [value.name for value in graph.output]
                sizes = _sizes(model, path)
            constants = {t.name: t for t in graph.initializer}
            return make_schedule(
                [_operation(node) for node in graph.node if any(node.input)],
                sizes,
                [value.name for value in graph.input if value.name not in constants],
                outputs,
                sum(onnx.numpy_helper.to_array(t).nbytes for t in constants.values()),
            )


def _operation(node: Any) -> Operation[str]:  # noqa: ANN401
    return Operation(
        name=node.name or node.op_type,
        reads=tuple(filter(None, node.input)),
        makes=tuple(filter(None, node.output)),
        in_place=node.op_type in _ELEMENTWISE,
        view=node.op_type in _VIEWS,
    )


def _session(source: Path, level: str, optimised: Path | None = None) -> Any:  # noqa: ANN401
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _sizes(model: Any, path: Path) -> dict[str, tuple[int, float]]:  # noqa: ANN401
    """(elements, bytes of one) of all tensors, by running the graph with each as an output.

    ONNX's own shape inference does not know ONNX Runtime's operators.
    """
    import numpy as np
    import onnx

    known = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name and name not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    onnx.save(model, path)
    session = _session(path, "ORT_DISABLE_ALL")
    types = {"tensor(float)": np.float32, "tensor(int8)": np.int8, "tensor(uint8)": np.uint8, "tensor(int64)": np.int64}
    feed = {value.name: np.zeros(value.shape, types[value.type]) for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    arrays = {**feed, **dict(zip(names, session.run(names, feed), strict=True))}
    return {name: (array.size, array.itemsize) for name, array in arrays.items()}


SCHEDULE: Final[ScheduleReader] = OnnxRuntimeSchedule()
