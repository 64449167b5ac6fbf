"""Runs compiled files on this host by the runtimes' own libraries, without edgeprune's agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeprune.protocols import CompiledFiles


def run_compiled(runtime: str, files: CompiledFiles, samples: np.ndarray) -> np.ndarray:
    """[n, ...] float32 to [n, ...] float32, one sample at a time; int8 inputs and outputs are converted here."""
    run = _OPENERS[runtime](files)
    return np.concatenate([run(sample) for sample in samples[:, np.newaxis]])


def weight_scales(runtime: str, files: CompiledFiles) -> list[np.ndarray]:
    """[scales] of each convolution's INT8 weights, as the file holds them."""
    return _SCALES[runtime](files)


def with_eventful_batch_norms(model: nn.Module) -> nn.Module:
    """Give the batch norms statistics and weights as if trained, so that folding them wrongly would show."""
    generator = torch.Generator().manual_seed(2)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            with torch.no_grad():
                layer.weight.uniform_(0.5, 1.5, generator=generator)
                layer.bias.normal_(generator=generator)
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


def _openvino(files: CompiledFiles) -> Callable[[np.ndarray], np.ndarray]:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(files.folder / files.names[0], "CPU", settings)
    return lambda sample: compiled({"input": sample})["output"].copy()


def _onnxruntime(files: CompiledFiles) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(files.folder / files.names[0], providers=["CPUExecutionProvider"])
    return lambda sample: session.run(["output"], {"input": sample})[0]


def _tflite(files: CompiledFiles) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(files.folder / files.names[0])).get_signature_runner()
    taken, given = runner.get_input_details()["input"], runner.get_output_details()["output"]
    return lambda sample: _from_int8(runner(input=_to_int8(sample, taken))["output"], given)


def _to_int8(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] is np.float32:
        return values
    scale, zero_point = details["quantization"]
    return np.clip(np.round(values / scale) + zero_point, -128, 127).astype(np.int8)


def _from_int8(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    if details["dtype"] is np.float32:
        return values
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


def _openvino_scales(files: CompiledFiles) -> list[np.ndarray]:
    import openvino

    # INT8 constant, to float, times its scales.
    found = []
    for operator in openvino.Core().read_model(files.folder / files.names[0]).get_ops():
        if operator.get_type_name() == "Convolution":
            product = operator.input_value(1).get_node()
            whole, scales = (value.get_node() for value in product.input_values())
            assert whole.input_value(0).get_element_type().to_dtype() == np.int8
            found.append(scales.data.ravel())
    return found


def _onnxruntime_scales(files: CompiledFiles) -> list[np.ndarray]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(files.folder / files.names[0]).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made = {node.output[0]: node for node in graph.node}
    found = []
    for weight in (made[node.input[1]] for node in graph.node if node.op_type == "Conv"):
        assert constants[weight.input[0]].dtype == np.int8
        found.append(constants[weight.input[1]].ravel())
    return found


def _tflite_scales(files: CompiledFiles) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(files.folder / files.names[0]))
    tensors = {details["index"]: details for details in interpreter.get_tensor_details()}
    weights = [tensors[o["inputs"][1]] for o in interpreter._get_ops_details() if o["op_name"] == "CONV_2D"]
    assert {w["dtype"] for w in weights} == {np.int8}
    return [w["quantization_parameters"]["scales"] for w in weights]


_SCALES = {"openvino": _openvino_scales, "onnxruntime": _onnxruntime_scales, "tflite": _tflite_scales}
_OPENERS = {"openvino": _openvino, "onnxruntime": _onnxruntime, "tflite": _tflite}
