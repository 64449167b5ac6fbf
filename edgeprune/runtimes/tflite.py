"""TFLite (LiteRT): one float32 model.tflite, with the input channels first as in torch.

Channels-last input would save one TRANSPOSE of the input: 1.4 % of a residual net of 16/32/64 channels at 32x32 in
float32, 3.0 % in INT8 (medians of 1,200 runs, one thread, EPYC, ai-edge-litert 2.3). It was not worth a second layout.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Runtime, SparseForm
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.rung import Precision
from edgeprune.runtimes._source import prepare, static_shape

if TYPE_CHECKING:
    from torch import nn


class TfLite:
    """Compiles with litert-torch."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of litert-torch, its converter, the interpreter that folds its constants, and torch."""
        return versions_of("tflite", "litert-torch", "litert-converter", "ai-edge-litert", "torch")

    def precisions(self, device: DeviceFacts) -> tuple[Precision, ...]:  # noqa: ARG002
        """float32, its weights in float16 too, and INT8."""
        return (Precision.FLOAT32, Precision.FLOAT32_W16, Precision.INT8)

    def compile(self, model: nn.Module, inputs: TensorSpec, folder: Path) -> CompiledFiles:
        """Write model.tflite with one signature, `input` to `output`, or to the names of several outputs.

        Inputs of int64 become int32 in the file; the agent feeds what the file takes.
        """
        self.versions()
        with library_call("tflite: cannot compile the model", folder):
            import litert_torch

            source = prepare(model, inputs)
            named = _with_named_outputs(source.model, [spec.name for spec in source.outputs])
            converted = litert_torch.convert(named, sample_kwargs={source.inputs.name: source.example})
            converted.export(str(folder / "model.tflite"))
        return CompiledFiles(
            folder=folder,
            names=("model.tflite",),
            inputs=(source.inputs,),
            outputs=source.outputs,
            format="tflite schema 3",
        )

    def open_file(self, path: Path) -> CompiledFiles | None:
        """Describe a .tflite file by its tensors' own names, for it may have no signature or many."""
        if path.suffix != ".tflite":
            return None
        self.versions()
        with library_call(f"tflite: cannot read {path}"):
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(str(path))
            return CompiledFiles(
                folder=path.parent,
                names=(path.name,),
                inputs=tuple(_spec(details) for details in interpreter.get_input_details()),
                outputs=tuple(_spec(details) for details in interpreter.get_output_details()),
                format="tflite schema 3",
            )

    def int8_scheme(self) -> str:
        """AI Edge Quantizer on the flatbuffer."""
        return "ai_edge"

    def sparse_form(self) -> SparseForm:
        """Sparse storage behind DENSIFY, for XNNPACK."""
        from edgeprune.runtimes._tflite_sparse import SPARSE_FORM

        return SPARSE_FORM


def _spec(details: dict[str, Any]) -> TensorSpec:
    dimensions = [d if d >= 0 else None for d in details["shape_signature"].tolist()]
    shape = static_shape(details["name"], dimensions)
    return TensorSpec(name=details["name"], shape=shape, dtype=np.dtype(details["dtype"]).name)


def _with_named_outputs(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Wrap a model so that the signature's names are `input` and these: they are taken from `forward`."""
    from torch import Tensor, nn

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input: Tensor) -> dict[str, Tensor]:  # noqa: A002
            found = self.model(input)
            return dict(zip(names, found if isinstance(found, tuple) else (found,), strict=True))

    return Named().eval()


RUNTIME: Final[Runtime] = TfLite()
