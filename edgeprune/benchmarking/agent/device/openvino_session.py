"""OpenVINO on the CPU."""

from __future__ import annotations

import importlib
from typing import Any, List

from .reply import AgentError

LIBRARIES = (("openvino", "openvino"),)

# INT8 models keep some layers in float: those shall not slip into bf16 unasked, as is the default on CPUs that have it.
_HINTS = {"float32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}


def import_library() -> Any:
    """The runtime's module."""
    return importlib.import_module("openvino")


class Session:
    """One compiled model, one infer request."""

    def __init__(self, artifact: str, precision: str, threads: int) -> None:
        hint = _HINTS[precision]
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": hint,
            # The agent has pinned the process already.
            "ENABLE_CPU_PINNING": "NO",
        }
        compiled = import_library().Core().compile_model(artifact, "CPU", settings)
        self._request = compiled.create_infer_request()
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != hint:
            raise AgentError("runtime", "openvino computes in %s on this CPU, not in %s" % (used, hint))
        # The request's own memory: `infer({0: sample})` looks names up and wraps results for 0.04 ms a run, which is
        # not the model's time.
        self._input = self._request.get_input_tensor(0).data
        self._outputs = [self._request.get_output_tensor(i) for i in range(len(compiled.outputs))]

    def prepare(self, sample: Any) -> Any:
        """A sample with the batch of 1 in front, as this runtime's feed."""
        if sample.shape != self._input.shape:
            # Copying would stretch a smaller one without a word.
            raise ValueError("expected an input of shape %s, got %s" % (self._input.shape, sample.shape))
        return sample

    def run(self, native: Any) -> Any:
        """Set the input, run, read all outputs; both are copied, as an application would have to."""
        self._input[...] = native
        self._request.infer()
        return [tensor.data.copy() for tensor in self._outputs]

    def results(self, native: Any) -> List[Any]:
        """All outputs as float32."""
        return [output.astype("float32") for output in native]
