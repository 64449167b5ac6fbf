"""ONNX Runtime: one float32 model.onnx, batch norms folded into the convolutions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Runtime
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.rung import Precision
from edgeprune.runtimes._source import prepare, static_shape

if TYPE_CHECKING:
    from torch import nn

_OPSET = 18


class OnnxRuntime:
    """Compiles with torch's own ONNX exporter."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of ONNX, its exporter's parts, ONNX Runtime and torch."""
        return versions_of("onnxruntime", "onnxruntime", "onnx", "onnxscript", "onnx-ir", "torch")

    def precisions(self, device: DeviceFacts) -> tuple[Precision, ...]:  # noqa: ARG002
        """float32, its weights in float16 too, and INT8: its CPU provider has no kernels of note in bf16 or fp16."""
        return (Precision.FLOAT32, Precision.FLOAT32_W16, Precision.INT8)

    def compile(self, model: nn.Module, inputs: TensorSpec, folder: Path) -> CompiledFiles:
        """Write model.onnx, weights inside, and check it."""
        self.versions()
        with library_call("onnxruntime: cannot compile the model", folder):
            import onnx
            import torch

            source = prepare(model, inputs)
            program = torch.onnx.export(
                source.model,
                (source.example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=[source.inputs.name],
                output_names=[spec.name for spec in source.outputs],
                verbose=False,
            )
            if program is None:
                raise RuntimeError("torch.onnx.export returned nothing")
            exported = program.model_proto
            _strip_(exported.graph)
            onnx.checker.check_model(exported, full_check=True)
            (folder / "model.onnx").write_bytes(exported.SerializeToString(deterministic=True))
        return CompiledFiles(
            folder=folder,
            names=("model.onnx",),
            inputs=(source.inputs,),
            outputs=source.outputs,
            format=f"onnx opset {_OPSET}",
        )

    def open_file(self, path: Path) -> CompiledFiles | None:
        """Describe an .onnx file, and the files beside it that hold its weights."""
        if path.suffix != ".onnx":
            return None
        self.versions()
        with library_call(f"onnxruntime: cannot read {path}"):
            import onnx

            model = onnx.load(path, load_external_data=False)
            onnx.checker.check_model(path)
            weights = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
            inner = {t.name for t in model.graph.initializer}
            opset = max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
            return CompiledFiles(
                folder=path.parent,
                names=(path.name, *sorted(weights)),
                inputs=tuple(_spec(value) for value in model.graph.input if value.name not in inner),
                outputs=tuple(_spec(value) for value in model.graph.output),
                format=f"onnx opset {opset}",
            )

    def int8_scheme(self) -> str:
        """NNCF on the ONNX graph."""
        return "nncf_onnx"

    def sparse_form(self) -> None:
        """None: sparse initializers are made dense when the model is loaded (ONNX Runtime 1.31, CPU)."""


def _spec(value: Any) -> TensorSpec:  # noqa: ANN401
    from onnx import helper

    tensor = value.type.tensor_type
    dimensions = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(name=value.name, shape=static_shape(value.name, dimensions), dtype=dtype)


def _strip_(graph: Any) -> None:  # noqa: ANN401
    # The exporter notes stack traces with the build host's paths: a tenth of a small file, and different elsewhere.
    del graph.metadata_props[:]
    for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer, *graph.node):
        del item.metadata_props[:]
        item.doc_string = ""
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                _strip_(inner)


RUNTIME: Final[Runtime] = OnnxRuntime()
