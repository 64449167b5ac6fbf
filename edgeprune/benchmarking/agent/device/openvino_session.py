"""OpenVINO on the CPU."""

from __future__ import annotations

import importlib
from typing import Any

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

    def prepare(self, sample: Any) -> Any:
        """A float32 sample with the batch of 1 in front, as this runtime's feed."""
        return {0: sample}

    def run(self, native: Any) -> Any:
        """Set the input, run, read all outputs; both are copied, as an application would have to."""
        return self._request.infer(native)

    def result(self, native: Any) -> Any:
        """The first output as float32."""
        return native[0].astype("float32")
