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


_OPENERS = {"openvino": _openvino, "onnxruntime": _onnxruntime, "tflite": _tflite}
