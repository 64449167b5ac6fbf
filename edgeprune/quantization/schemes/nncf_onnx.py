"""Post-training INT8 of an ONNX graph with NNCF: QuantizeLinear and DequantizeLinear pairs that ONNX Runtime fuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Scheme


class NncfOnnx:
    """Quantizes with `nncf.quantize`."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of NNCF, ONNX, and ONNX Runtime, which runs the calibration."""
        return versions_of("onnxruntime", "nncf", "onnx", "onnxruntime")

    def quantize(self, source: CompiledFiles, calibration: np.ndarray, folder: Path) -> CompiledFiles:
        """Write model.onnx and load it once; input and output stay float32."""
        self.versions()
        with library_call("nncf_onnx: cannot quantize the model", folder):
            import nncf
            import onnx
            import onnxruntime
            from nncf.quantization.advanced_parameters import QuantizationParameters

            # NNCF logs to the stdout of the moment in which it was imported.
            nncf.disable_logging()
            model = onnx.load(source.folder / source.names[0])
            name = source.inputs[0].name
            quantized = nncf.quantize(
                model,
                nncf.Dataset([{name: sample} for sample in calibration[:, np.newaxis]]),
                subset_size=len(calibration),
                model_type=nncf.ModelType.TRANSFORMER if _has_attention(model) else None,
                # NNCF would quantize the inputs of depthwise convolutions by channel, which QLinearConv refuses.
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_quantization_params=QuantizationParameters(per_channel=False)
                ),
            )
            content = quantized.SerializeToString(deterministic=True)
            # Loading is not enough: some graphs load and then do not run.
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            session.run(None, {name: calibration[:1]})
            (folder / "model.onnx").write_bytes(content)
        return CompiledFiles(
            folder=folder, names=("model.onnx",), inputs=source.inputs, outputs=source.outputs, format=source.format
        )


def _has_attention(model: Any) -> bool:  # noqa: ANN401
    """Whether a softmax stands inside the net, not at its end: then NNCF leaves what attention cannot bear in float."""
    softmaxes = {n.output[0] for n in model.graph.node if n.op_type == "Softmax"}
    return any(softmaxes.intersection(n.input) for n in model.graph.node)


SCHEME: Final[Scheme] = NncfOnnx()
