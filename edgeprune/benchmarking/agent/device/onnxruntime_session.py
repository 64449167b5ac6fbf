"""ONNX Runtime on the CPU."""

from __future__ import annotations

import importlib
from typing import Any, List

from .reply import AgentError

LIBRARIES = (("onnxruntime", "onnxruntime"),)


def import_library() -> Any:
    """The runtime's module."""
    return importlib.import_module("onnxruntime")


class Session:
    """One model, one request at a time."""

    def __init__(self, artifact: str, precision: str, threads: int) -> None:
        if precision not in ("float32", "int8"):
            # The file decides what is computed; there is no switch for another precision.
            raise AgentError("runtime", "onnxruntime computes in float32 or int8 here, not in " + precision)
        library = import_library()
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = library.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = library.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self._session = library.InferenceSession(artifact, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def prepare(self, sample: Any) -> Any:
        """A sample with the batch of 1 in front, as this runtime's feed."""
        return {self._input: sample}

    def run(self, native: Any) -> Any:
        """Set the input, run, read all outputs."""
        return self._session.run(None, native)

    def results(self, native: Any) -> List[Any]:
        """All outputs as float32."""
        return [output.astype("float32") for output in native]
