"""Post-training INT8 of OpenVINO IR with NNCF: weights per channel, activations per tensor, biases corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Scheme


class NncfOpenVino:
    """Quantizes with `nncf.quantize`."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of NNCF and OpenVINO."""
        return versions_of("openvino", "nncf", "openvino")

    def quantize(self, source: CompiledFiles, calibration: np.ndarray, folder: Path) -> CompiledFiles:
        """Write model.xml and model.bin; input and output stay float32."""
        self.versions()
        with library_call("nncf_openvino: cannot quantize the model", folder):
            import nncf
            import openvino

            # NNCF logs to the stdout of the moment in which it was imported.
            nncf.disable_logging()
            model = openvino.Core().read_model(source.folder / source.names[0])
            quantized = nncf.quantize(
                model,
                nncf.Dataset(list(calibration[:, np.newaxis])),
                subset_size=len(calibration),
                model_type=nncf.ModelType.TRANSFORMER if _has_attention(model) else None,
            )
            _name_by_position_(quantized)
            openvino.save_model(quantized, folder / "model.xml", compress_to_fp16=False)
        return CompiledFiles(
            folder=folder,
            names=("model.xml", "model.bin"),
            inputs=source.inputs,
            outputs=source.outputs,
            format=source.format,
        )


def _has_attention(model: Any) -> bool:  # noqa: ANN401
    """Whether a softmax stands inside the net, not at its end: then NNCF leaves what attention cannot bear in float."""
    softmaxes = [o for o in model.get_ops() if o.get_type_name() == "Softmax"]
    consumers = [i.get_node().get_type_name() for o in softmaxes for i in o.output(0).get_target_inputs()]
    fused = any(o.get_type_name() == "ScaledDotProductAttention" for o in model.get_ops())
    return fused or any(name != "Result" for name in consumers)


def _name_by_position_(model: Any) -> None:  # noqa: ANN401
    # Names that NNCF makes count up over the life of the process; see edgeprune/runtimes/openvino.py.
    model.set_friendly_name("model")
    for position, operator in enumerate(model.get_ordered_ops()):
        operator.set_friendly_name(f"{operator.get_type_name()}_{position}")


SCHEME: Final[Scheme] = NncfOpenVino()
