"""INT8 of an ONNX graph with NNCF: QuantizeLinear and DequantizeLinear pairs that ONNX Runtime fuses.

Weights alone in eight or four bits are NNCF's as well. Weights in float16 are stored so and cast when the session is
made: ONNX Runtime's CPU kernels compute in float32 all the same, and the file is half as large.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgeprune.errors import BuildError
from edgeprune.libraries import library_call, versions_of
from edgeprune.protocols import CompiledFiles, Scheme
from edgeprune.quantization.schemes import _nncf
from edgeprune.records.quantization import DEFAULT_VARIANT, BiasCorrection, Preparation, QuantizationVariant

_HALVES = 16
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


class NncfOnnx:
    """Quantizes with `nncf.quantize` and `nncf.compress_weights`."""

    def versions(self) -> tuple[tuple[str, str], ...]:
        """Of NNCF, ONNX, and ONNX Runtime, which runs the calibration."""
        return versions_of("onnxruntime", "nncf", "onnx", "onnxruntime")

    def refusal(self, variant: QuantizationVariant) -> str | None:
        """NNCF's reasons."""
        return _nncf.refusal(variant)

    def needs(self, variant: QuantizationVariant) -> frozenset[Preparation]:
        """Bias correction layer by layer as well: NNCF 3.4 stops at graphs of torch's exporter."""
        corrects = variant.bias_correction is BiasCorrection.SEQUENTIAL
        return _nncf.needs(variant) | ({Preparation.CORRECT_BIAS} if corrects else frozenset())

    def layers(self, source: CompiledFiles) -> dict[str, np.ndarray]:
        """The nodes that read a weight of the file."""
        with library_call("nncf_onnx: cannot read the model"):
            import onnx

            graph = onnx.load(source.folder / source.names[0]).graph
            constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
            layers = (n for n in graph.node if n.op_type in _LAYERS and constants.keys() & set(n.input))
            # The weights come before the bias.
            return {n.name: next(constants[i] for i in n.input if i in constants) for n in layers}

    def quantize(
        self,
        source: CompiledFiles,
        calibration: np.ndarray,
        folder: Path,
        variant: QuantizationVariant = DEFAULT_VARIANT,
    ) -> CompiledFiles:
        """Write model.onnx and run it once; input and output stay float32."""
        self.versions()
        refused = self.refusal(variant)
        if refused is not None:
            raise BuildError(f"nncf_onnx: {variant.name}: {refused}")
        with library_call("nncf_onnx: cannot quantize the model", folder):
            import onnx
            import onnxruntime

            model = onnx.load(source.folder / source.names[0])
            name = source.inputs[0].name
            if variant.weight_only_bits == _HALVES:
                _halve_weights_(model.graph)
                quantized = model
            else:
                quantized = _quantized(model, name, calibration, variant)
            content = quantized.SerializeToString(deterministic=True)
            # Loading is not enough: some graphs load and then do not run.
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
            session.run(None, {name: calibration[:1]})
            (folder / "model.onnx").write_bytes(content)
        return CompiledFiles(
            folder=folder, names=("model.onnx",), inputs=source.inputs, outputs=source.outputs, format=source.format
        )


def _quantized(model: Any, name: str, calibration: np.ndarray, variant: QuantizationVariant) -> Any:  # noqa: ANN401
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters

    # NNCF logs to the stdout of the moment in which it was imported.
    nncf.disable_logging()
    if variant.weight_only_bits is not None:
        # Its scales of a convolution's weights have four dimensions, which ONNX Runtime refuses.
        return nncf.compress_weights(model, **_nncf.weights_alone(variant, ("Conv", "ConvTranspose")))
    data = nncf.Dataset([{name: sample} for sample in calibration[:, np.newaxis]])
    corrects = variant.bias_correction is BiasCorrection.DEFAULT
    settings = _nncf.post_training(variant, calibration, transformer=_has_attention(model), corrects=corrects)
    with settings as arguments:
        # NNCF would quantize the inputs of depthwise convolutions by channel, which QLinearConv refuses.
        arguments["advanced_parameters"].activations_quantization_params = QuantizationParameters(per_channel=False)
        quantized = nncf.quantize(model, data, **arguments)
    _round_biases_(quantized.graph)
    return quantized


def _round_biases_(graph: Any) -> None:  # noqa: ANN401
    """Store the biases of integer matrix products as int32, at the scale of what they are added to.

    ONNX Runtime multiplies in integers only where the bias is one too, unless the sum is quantized again. In a
    transformer it mostly is not, as residual sums stay in float: an encoder of four layers (64 tokens, width 128)
    multiplied two thirds of its matrices in float, with weights that were made float in every run, and took 2.70 ms;
    so it takes 0.92 (x86, one thread, ONNX Runtime 1.31).
    """
    from onnx import helper, numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    made, rounded = [], set()
    for node, position, scale in _float_biases(graph, constants):
        bias = numpy_helper.to_array(constants[node.input[position]])
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = np.rint(bias / scale)
        # Also false for a scale of 0, which gives what is no number.
        if not np.all(np.abs(steps) < np.iinfo(np.int32).max):
            continue
        values = (steps.astype(np.int32), np.broadcast_to(scale, bias.shape).copy(), np.zeros(bias.shape, np.int32))
        # Of the node, not of the bias: layers that share one have scales of their own.
        names = [f"{node.output[0]}.bias.{part}" for part in ("int32", "scale", "zero_point")]
        graph.initializer.extend(map(numpy_helper.from_array, values, names))
        made.append(helper.make_node("DequantizeLinear", names, [f"{node.output[0]}.bias"], axis=0))
        rounded.add(node.input[position])
        node.input[position] = f"{node.output[0]}.bias"
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made, *nodes])
    unused = rounded.difference(name for node in nodes for name in node.input)
    for name in unused:
        graph.initializer.remove(constants[name])


def _float_biases(graph: Any, constants: dict[str, Any]) -> Iterator[tuple[Any, int, np.ndarray]]:  # noqa: ANN401
    """The node that adds a bias to an integer matrix product, which of its inputs that is, and the product's scale."""
    from onnx import TensorProto, numpy_helper

    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def scale(name: str) -> np.ndarray:
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in constants:
            return np.zeros(0, np.float32)
        return numpy_helper.to_array(constants[maker.input[1]]).ravel()

    for product in (n for n in graph.node if n.op_type in {"MatMul", "Gemm"}):
        by_itself = readers.get(product.output[0], [])
        adds = product if product.op_type == "Gemm" else by_itself[0] if len(by_itself) == 1 else None
        factors = (a.f for a in product.attribute if a.name in {"alpha", "beta"})
        if adds is None or adds.op_type not in {"Gemm", "Add"} or any(factor != 1.0 for factor in factors):
            continue
        first = 2 if adds is product else 0
        places = [k for k, name in enumerate(adds.input) if k >= first and name in constants]
        of_input, of_weights = scale(product.input[0]), scale(product.input[1])
        for place in places:
            bias = constants[adds.input[place]]
            fits = bias.data_type == TensorProto.FLOAT and len(bias.dims) == 1 and of_weights.size in {1, *bias.dims}
            if fits and of_input.size == 1:
                yield adds, place, of_input * of_weights


def _halve_weights_(graph: Any) -> None:  # noqa: ANN401
    """Store float32 weights of two dimensions and more as float16, each behind a cast to float32."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:  # noqa: PLR2004
            continue
        halved = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.float16")
        casts.append(
            helper.make_node("Cast", [halved.name], [tensor.name], f"{tensor.name}.cast", to=TensorProto.FLOAT)
        )
        tensor.CopyFrom(halved)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])


def _has_attention(model: Any) -> bool:  # noqa: ANN401
    """Whether a softmax stands inside the net, not at its end: then NNCF leaves what attention cannot bear in float."""
    softmaxes = {n.output[0] for n in model.graph.node if n.op_type == "Softmax"}
    return any(softmaxes.intersection(n.input) for n in model.graph.node)


SCHEME: Final[Scheme] = NncfOnnx()
