"""OpenVINO: float32 IR (model.xml and model.bin). bf16 and fp16 are chosen when the device loads it."""

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

_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
_FP16_FLAGS = {"asimdhp", "fphp"}


class OpenVino:
    """Compiles with `openvino.convert_model`."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of OpenVINO and torch."""
        return versions_of("openvino", "openvino", "torch")

    def precisions(self, device: DeviceFacts) -> tuple[Precision, ...]:
        """float32, its weights in float16 too, and INT8 everywhere; bf16 and fp16 where the CPU computes in them.

        Elsewhere OpenVINO takes the hint and computes in float32 all the same, which would make a rung of nothing.
        """
        flags = set(device.cpu_flags)
        fp16 = device.machine == "aarch64" and flags & _FP16_FLAGS
        return (
            Precision.FLOAT32,
            Precision.FLOAT32_W16,
            *((Precision.FP16,) if fp16 else ()),
            *((Precision.BF16,) if flags & _BF16_FLAGS else ()),
            Precision.INT8,
        )

    def compile(self, model: nn.Module, inputs: TensorSpec, folder: Path) -> CompiledFiles:
        """Write model.xml and model.bin, shapes static, weights in float32."""
        self.versions()
        with library_call("openvino: cannot compile the model", folder):
            import openvino

            source = prepare(model, inputs)
            converted = openvino.convert_model(source.model, example_input=source.example, input=[inputs.shape])
            converted.reshape(list(inputs.shape))
            converted.inputs[0].get_tensor().set_names({source.inputs.name})
            for port, spec in zip(converted.outputs, source.outputs, strict=True):
                port.get_tensor().set_names({spec.name})
            _name_by_position_(converted)
            openvino.save_model(converted, folder / "model.xml", compress_to_fp16=False)
        return CompiledFiles(
            folder=folder,
            names=("model.xml", "model.bin"),
            inputs=(source.inputs,),
            outputs=source.outputs,
            format="openvino ir",
        )

    def open_file(self, path: Path) -> CompiledFiles | None:
        """Describe IR: an .xml file with its .bin beside it."""
        if path.suffix != ".xml":
            return None
        self.versions()
        with library_call(f"openvino: cannot read {path}"):
            import openvino

            model = openvino.Core().read_model(path)
            return CompiledFiles(
                folder=path.parent,
                names=(path.name, path.with_suffix(".bin").name),
                inputs=tuple(_spec(port) for port in model.inputs),
                outputs=tuple(_spec(port) for port in model.outputs),
                format="openvino ir",
            )

    def int8_scheme(self) -> str:
        """NNCF on the IR."""
        return "nncf_openvino"

    def sparse_form(self) -> None:
        """None for float weights; its sparse decompression is for INT8 linear layers on CPUs with AMX only."""


def _spec(port: Any) -> TensorSpec:  # noqa: ANN401
    dimensions = [d.get_length() if d.is_static else None for d in port.get_partial_shape()]
    name = port.get_any_name() if port.get_names() else port.get_node().get_friendly_name()
    return TensorSpec(name=name, shape=static_shape(name, dimensions), dtype=port.get_element_type().to_dtype().name)


def _name_by_position_(model: Any) -> None:  # noqa: ANN401
    # Given names count up over the life of the process, so that the same model would never give the same file twice.
    model.set_friendly_name("model")
    for position, operator in enumerate(model.get_ordered_ops()):
        operator.set_friendly_name(f"{operator.get_type_name()}_{position}")


RUNTIME: Final[Runtime] = OpenVino()
