"""Post-training full-integer INT8 of a TFLite file: weights per channel, activations, input and output in int8.

Activation ranges span all calibration samples. The quantizer's own default is a moving average that keeps 95 % of
what it had, so that ranges follow the first sample: a small residual net's outputs then correlated 0.979 with the float
ones instead of 0.9999, a transformer block's 0.933 instead of 0.9999 (48 and 64 samples, ai-edge-quantizer 0.10).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Scheme
from edgeprune.quantization.schemes._matrix_products import center_, second_operands
from edgeprune.records.artifact import TensorSpec


class AiEdge:
    """Quantizes with AI Edge Quantizer."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of the quantizer, and of the interpreter that runs the calibration."""
        return versions_of("tflite", "ai-edge-quantizer", "ai-edge-litert")

    def quantize(self, source: CompiledFiles, calibration: np.ndarray, folder: Path) -> CompiledFiles:
        """Write model.tflite; the specs tell the int8 input and output, whose scales stand in the file."""
        self.versions()
        with library_call("ai_edge: cannot quantize the model", folder):
            from ai_edge_litert.interpreter import Interpreter
            from ai_edge_quantizer import calibrator, quantizer, recipe

            floating = source.folder / source.names[0]
            (signature,) = Interpreter(str(floating)).get_signature_list()
            watched = calibrator.CalibrationInterpreter(
                str(floating), mode=calibrator.CalibrationMode.CALIBRATION, qsv_update_func=_widen
            )
            run = watched.get_signature_runner(signature)
            name = source.inputs[0].name
            # The converter takes token ids of int64 for int32.
            taken = run.get_input_details()[name]["dtype"]
            for sample in calibration[:, np.newaxis].astype(taken, copy=False):
                run(**{name: sample})
            ranges = dict(watched.get_calibration_results())
            center_(ranges, second_operands(floating))
            result = quantizer.Quantizer(str(floating), recipe.static_wi8_ai8()).quantize(ranges)
            result.export_model(str(folder / "model.tflite"))
            runner = Interpreter(str(folder / "model.tflite")).get_signature_runner(signature)
            inputs = tuple(_as_filed(s, runner.get_input_details()) for s in source.inputs)
            outputs = tuple(_as_filed(s, runner.get_output_details()) for s in source.outputs)
        return CompiledFiles(
            folder=folder, names=("model.tflite",), inputs=inputs, outputs=outputs, format=source.format
        )


def _widen(seen: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The range of both: [min, max] of one tensor so far, and in one more sample."""
    if not seen:
        return new
    return {**seen, "min": np.minimum(seen["min"], new["min"]), "max": np.maximum(seen["max"], new["max"])}


def _as_filed(spec: TensorSpec, details: dict[str, Any]) -> TensorSpec:
    return replace(spec, dtype=np.dtype(details[spec.name]["dtype"]).name)


SCHEME: Final[Scheme] = AiEdge()
