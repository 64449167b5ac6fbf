"""Quantized TFLite files. Full-integer INT8: weights per channel, activations, input and output in int8.

Activation ranges span all calibration samples. The quantizer's own default is a moving average that keeps 95 % of
what it had, so that ranges follow the first sample: a small residual net's outputs then correlated 0.979 with the float
ones instead of 0.9999, a transformer block's 0.933 instead of 0.9999 (48 and 64 samples, ai-edge-quantizer 0.10).

Where a histogram decides (percentile, entropy, squared error), all tensors of the float file are read in a second pass.
Inputs and outputs keep their whole range: two clipped scores are equal, and the arg max of equals is the first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeprune.errors import BuildError
from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Scheme
from edgeprune.quantization.ranges import clipped_range, histogram_of
from edgeprune.quantization.schemes._attention_masks import bound_, masked_scores
from edgeprune.quantization.schemes._matrix_products import center_, second_operands
from edgeprune.quantization.schemes._tflite_graph import graphs_of
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.quantization import (
    DEFAULT_VARIANT,
    BiasCorrection,
    Calibration,
    Preparation,
    QuantizationVariant,
)

_HALVES = 16
_LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")


class AiEdge:
    """Quantizes with AI Edge Quantizer."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of the quantizer, and of the interpreter that runs the calibration."""
        return versions_of("tflite", "ai-edge-quantizer", "ai-edge-litert")

    def refusal(self, variant: QuantizationVariant) -> str | None:
        """It casts weights to float16 and no activations; and smoothing, which would change nothing."""
        if variant.smoothing is not None:
            return (
                "TFLite's converter moves a layer norm's weight into the linear layers that read it, "
                "so that smoothing changes nothing"
            )
        if variant.dynamic and variant.weight_only_bits == _HALVES:
            return "activations are quantized while it runs beside weights of 8 or 4 bits only"
        return None

    def needs(self, variant: QuantizationVariant) -> frozenset[Preparation]:
        """Everything that it does not refuse: the quantizer rounds and does no more."""
        wanted = {
            Preparation.EQUALIZE: variant.equalized,
            Preparation.CORRECT_BIAS: variant.bias_correction is BiasCorrection.SEQUENTIAL,
        }
        return frozenset(preparation for preparation, is_wanted in wanted.items() if is_wanted)

    def layers(self, source: CompiledFiles) -> dict[str, np.ndarray]:
        """The operators with weights, by the names of the tensors that they write."""
        with library_call("ai_edge: cannot read the model"):
            from ai_edge_litert.tools import flatbuffer_utils

            model = flatbuffer_utils.read_model(str(source.folder / source.names[0]))
            graph = model.subgraphs[0]
            layers = (o for o in graph.operators if flatbuffer_utils.opcode_to_name(model, o.opcodeIndex) in _LAYERS)
            # All of them have their weights second.
            pairs = ((graph.tensors[o.outputs[0]].name, graph.tensors[o.inputs[1]].buffer) for o in layers)
            return {name.decode(): _floats(model.buffers[buffer].data) for name, buffer in pairs}

    def quantize(
        self,
        source: CompiledFiles,
        calibration: np.ndarray,
        folder: Path,
        variant: QuantizationVariant = DEFAULT_VARIANT,
    ) -> CompiledFiles:
        """Write model.tflite; the specs tell the int8 input and output, whose scales stand in the file."""
        self.versions()
        refused = self.refusal(variant)
        if refused is not None:
            raise BuildError(f"ai_edge: {variant.name}: {refused}")
        with library_call("ai_edge: cannot quantize the model", folder):
            from ai_edge_litert.interpreter import Interpreter
            from ai_edge_quantizer import quantizer

            floating = source.folder / source.names[0]
            (signature,) = Interpreter(str(floating)).get_signature_list()
            ranges, in_float = None, list(variant.float_layers)
            if variant.weight_only_bits is None:
                ranges = _widest_ranges(floating, signature, source.inputs[0].name, calibration)
                if variant.calibration not in {Calibration.DEFAULT, Calibration.MIN_MAX}:
                    _clip_(ranges, floating, calibration, variant)
                graphs = graphs_of(floating)
                masked = masked_scores(graphs)
                bound_(ranges, masked)
                in_float += [m.mask.name for m in masked if m.mask is not None and m.computed]
                center_(ranges, second_operands(graphs))
            result = quantizer.Quantizer(str(floating), _recipe(variant, in_float)).quantize(ranges)
            result.export_model(str(folder / "model.tflite"))
            runner = Interpreter(str(folder / "model.tflite")).get_signature_runner(signature)
            inputs = tuple(_as_filed(s, runner.get_input_details()) for s in source.inputs)
            outputs = tuple(_as_filed(s, runner.get_output_details()) for s in source.outputs)
        return CompiledFiles(
            folder=folder, names=("model.tflite",), inputs=inputs, outputs=outputs, format=source.format
        )


def _floats(data: Any) -> np.ndarray:  # noqa: ANN401
    """A buffer's content; no elements where it has none, as of a tensor that is computed."""
    return np.frombuffer(bytes(data if data is not None else ()), dtype=np.float32)


def _recipe(variant: QuantizationVariant, in_float: Sequence[str]) -> Any:  # noqa: ANN401
    """AI Edge Quantizer's list of rules; a later one wins.

    Args:
        variant: what is to be rounded, to how many bits.
        in_float: operators that stay as they are, by the names of the tensors that they write.
    """
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

    rules = recipe_manager.RecipeManager()
    everything: dict[str, Any] = {"regex": ".*", "operation_name": qtyping.TFLOperationName.ALL_SUPPORTED}
    names = algorithm_manager.AlgorithmName
    match variant.weight_only_bits:
        case None:
            rules.add_static_config(**everything, activation_num_bits=8, weight_num_bits=8)
        case 16:
            rules.add_weight_only_config(**everything, num_bits=16, algorithm_key=names.FLOAT_CASTING)
        case bits if variant.dynamic:
            rules.add_dynamic_config(**everything, num_bits=bits)
        case bits:
            rules.add_weight_only_config(**everything, num_bits=bits)
    for layer in in_float:
        # An operator's scope is the names of the tensors that it writes, each ended by a semicolon.
        scope = f"^{re.escape(layer)};$"
        rules.add_quantization_config(scope, everything["operation_name"], algorithm_key=names.NO_QUANTIZE)
    return rules.get_quantization_recipe()


def _widest_ranges(floating: Path, signature: str, name: str, calibration: np.ndarray) -> dict[str, Any]:
    """[min, max] of every tensor over all samples, by name, as the quantizer wants them."""
    from ai_edge_quantizer import calibrator

    watched = calibrator.CalibrationInterpreter(
        str(floating), mode=calibrator.CalibrationMode.CALIBRATION, qsv_update_func=_widen
    )
    run = watched.get_signature_runner(signature)
    # The converter takes token ids of int64 for int32.
    taken = run.get_input_details()[name]["dtype"]
    for sample in calibration[:, np.newaxis].astype(taken, copy=False):
        run(**{name: sample})
    return dict(watched.get_calibration_results())


def _clip_(ranges: dict[str, Any], floating: Path, calibration: np.ndarray, variant: QuantizationVariant) -> None:
    """Narrow the ranges of activations by their histograms."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(floating), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    ends = {d["name"] for d in (entry, *interpreter.get_output_details())}
    indices = {d["name"]: d["index"] for d in interpreter.get_tensor_details() if d["name"] not in ends}
    written = {i for o in interpreter._get_ops_details() for i in o["outputs"]}  # noqa: SLF001 - as above
    bounds = {
        name: (float(np.min(found["min"])), float(np.max(found["max"])))
        for name, found in ranges.items()
        if indices.get(name) in written and np.size(found["min"]) == 1
    }
    histograms = {name: histogram_of(np.empty(0), *ends) for name, ends in bounds.items() if ends[0] < ends[1]}
    for sample in calibration[:, np.newaxis].astype(entry["dtype"], copy=False):
        interpreter.set_tensor(entry["index"], sample)
        interpreter.invoke()
        for name, histogram in histograms.items():
            values = interpreter.get_tensor(indices[name])
            histogram.counts[:] += histogram_of(values, histogram.low, histogram.high).counts
    for name, histogram in histograms.items():
        low, high = clipped_range(histogram, variant)
        found = ranges[name]
        ranges[name] = {**found, "min": np.full_like(found["min"], low), "max": np.full_like(found["max"], high)}


def _widen(seen: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The range of both: [min, max] of one tensor so far, and in one more sample."""
    if not seen:
        return new
    return {**seen, "min": np.minimum(seen["min"], new["min"]), "max": np.maximum(seen["max"], new["max"])}


def _as_filed(spec: TensorSpec, details: dict[str, Any]) -> TensorSpec:
    return replace(spec, dtype=np.dtype(details[spec.name]["dtype"]).name)


SCHEME: Final[Scheme] = AiEdge()
