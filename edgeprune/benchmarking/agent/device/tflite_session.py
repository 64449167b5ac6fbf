"""TFLite on the CPU: `ai_edge_litert`, or the older `tflite_runtime` where that is what the device has."""

from __future__ import annotations

import importlib
from typing import Any, List

from .reply import AgentError

LIBRARIES = (("ai_edge_litert", "ai-edge-litert"), ("tflite_runtime", "tflite-runtime"))
# Compiled against numpy 1, up to 2.14, the last one; its metadata allow 2.
REQUIREMENTS = {"tflite-runtime": ("numpy<2",)}


def import_library() -> Any:
    """The interpreter's module of the first library that can be imported."""
    failures = []
    for name, _ in LIBRARIES:
        try:
            return importlib.import_module(name + ".interpreter")
        except ImportError as error:
            failures.append(str(error))
    raise ImportError("; ".join(failures))


class Session:
    """One interpreter. Full-integer models are fed int8: samples are quantised outside the timed part."""

    def __init__(self, artifact: str, precision: str, threads: int) -> None:
        if precision not in ("float32", "int8"):
            # The file decides what is computed; there is no switch for another precision.
            raise AgentError("runtime", "tflite computes in float32 or int8 here, not in " + precision)
        self._interpreter = import_library().Interpreter(model_path=artifact, num_threads=threads)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._outputs = self._interpreter.get_output_details()

    def prepare(self, sample: Any) -> Any:
        """A sample with the batch of 1 in front, in the type that the file takes."""
        return quantise(sample, self._input)

    def run(self, native: Any) -> Any:
        """Set the input, run, read all outputs."""
        self._interpreter.set_tensor(self._input["index"], native)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"]) for output in self._outputs]

    def results(self, native: Any) -> List[Any]:
        """All outputs as float32."""
        return [dequantise(native[number], details) for number, details in enumerate(self._outputs)]


def quantise(sample: Any, details: Any) -> Any:
    """Values to the tensor's own type, clipped to its range; those of a tensor without a scale are left as they are."""
    import numpy as np

    dtype = np.dtype(details["dtype"])
    scale, zero_point = details["quantization"]
    if dtype.kind == "f" or not scale:
        return sample.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(sample / scale) + zero_point, limits.min, limits.max).astype(dtype)


def dequantise(native: Any, details: Any) -> Any:
    """The tensor's own type to float32 values."""
    scale, zero_point = details["quantization"]
    if native.dtype.kind == "f" or not scale:
        return native.astype("float32")
    return ((native.astype("float32") - zero_point) * scale).astype("float32")
