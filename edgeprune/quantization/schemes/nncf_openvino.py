"""INT8 of OpenVINO IR with NNCF: weights per channel, activations per tensor, biases corrected.

Weights alone in eight or four bits are NNCF's as well; in float16 they are OpenVINO's own compression, which computes
in the precision that the device is told.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeprune.errors import BuildError
from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Scheme
from edgeprune.quantization.schemes import _nncf
from edgeprune.records.quantization import DEFAULT_VARIANT, BiasCorrection, Preparation, QuantizationVariant

_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_HALVES = 16


class NncfOpenVino:
    """Quantizes with `nncf.quantize` and `nncf.compress_weights`."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of NNCF and OpenVINO."""
        return versions_of("openvino", "nncf", "openvino")

    def refusal(self, variant: QuantizationVariant) -> str | None:
        """NNCF's reasons."""
        return _nncf.refusal(variant)

    def needs(self, variant: QuantizationVariant) -> frozenset[Preparation]:
        """Equalization and smoothing: NNCF corrects biases by itself."""
        return _nncf.needs(variant)

    def layers(self, source: CompiledFiles) -> dict[str, np.ndarray]:
        """The operators that read a constant, by friendly name."""
        with library_call("nncf_openvino: cannot read the model"):
            import openvino

            model = openvino.Core().read_model(source.folder / source.names[0])
            operators = (o for o in model.get_ordered_ops() if o.get_type_name() in _LAYERS)
            found = ((o, _constant(value.get_node())) for o in operators for value in o.input_values())
            return {o.get_friendly_name(): constant.data.copy() for o, constant in found if constant is not None}

    def quantize(
        self,
        source: CompiledFiles,
        calibration: np.ndarray,
        folder: Path,
        variant: QuantizationVariant = DEFAULT_VARIANT,
    ) -> CompiledFiles:
        """Write model.xml and model.bin; input and output stay float32."""
        self.versions()
        refused = self.refusal(variant)
        if refused is not None:
            raise BuildError(f"nncf_openvino: {variant.name}: {refused}")
        with library_call("nncf_openvino: cannot quantize the model", folder):
            import openvino

            model = openvino.Core().read_model(source.folder / source.names[0])
            quantized = model if variant.weight_only_bits == _HALVES else _quantized(model, calibration, variant)
            _name_by_position_(quantized)
            halved = variant.weight_only_bits == _HALVES
            openvino.save_model(quantized, folder / "model.xml", compress_to_fp16=halved)
        return CompiledFiles(
            folder=folder,
            names=("model.xml", "model.bin"),
            inputs=source.inputs,
            outputs=source.outputs,
            format=source.format,
        )


def _quantized(model: Any, calibration: np.ndarray, variant: QuantizationVariant) -> Any:  # noqa: ANN401
    import nncf

    # NNCF logs to the stdout of the moment in which it was imported.
    nncf.disable_logging()
    if variant.weight_only_bits is not None:
        return nncf.compress_weights(model, **_nncf.weights_alone(variant))
    data = nncf.Dataset(list(calibration[:, np.newaxis]))
    corrects = variant.bias_correction is not BiasCorrection.OFF
    settings = _nncf.post_training(variant, calibration, transformer=_has_attention(model), corrects=corrects)
    with settings as arguments:
        return nncf.quantize(model, data, **arguments)


def _constant(node: Any) -> Any:  # noqa: ANN401
    """What a value is stored as in the file, maybe in another type or shape; None where it is computed."""
    while node.get_type_name() in {"Convert", "Reshape"}:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


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
