"""ONNX Runtime multiplies matrices in integers only where their biases are integers too."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from models import seeded
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from edgeprune.libraries import refuse_telemetry
from edgeprune.quantization.schemes.nncf_onnx import _round_biases_
from edgeprune.records.rung import Precision, Rung
from edgeprune.steps.compiling import CompileJob, compile_artifact

TOKENS, INPUTS, WIDTH = 6, 4, 16


class FeedForward(nn.Module):
    """Residual sums around linear layers: what follows their products is not quantized again."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, 3)
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down(torch.relu(self.up(self.norm(x))))
        return self.head(x[:, 0])


@pytest.fixture(autouse=True)
def _no_telemetry() -> None:
    refuse_telemetry()


def test_linear_layers_beside_residual_sums_run_in_integers(tmp_path: Path) -> None:
    model = seeded(FeedForward)
    samples = np.random.default_rng(0).standard_normal((32, TOKENS, INPUTS), dtype=np.float32)
    artifact = tmp_path / "artifact"
    artifact.mkdir()
    compile_artifact(
        CompileJob(model, (1, TOKENS, INPUTS), samples), Rung(runtime="onnxruntime", precision=Precision.INT8), artifact
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(artifact / "model.onnx", options, providers=["CPUExecutionProvider"])
    kernels = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    # NNCF leaves the last layer's output in float, and with it the layer.
    assert (kernels["QGemm"], kernels["Gemm"] + kernels["MatMul"]) == (3, 1)
    with torch.no_grad():
        expected = model(torch.from_numpy(samples)).numpy()
    name = session.get_inputs()[0].name
    found = np.concatenate([session.run(None, {name: sample[None]})[0] for sample in samples])
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def _product(number: int, *, kind: str) -> list[onnx.NodeProto]:
    """Of `x` and weights of their own scale; `kind` says where the shared bias is added."""
    dequantized = helper.make_node("DequantizeLinear", [f"w{number}", f"s{number}"], [f"d{number}"], axis=1)
    if kind == "Gemm":
        return [dequantized, helper.make_node("Gemm", ["x", f"d{number}", "bias"], [f"y{number}"])]
    product = helper.make_node("MatMul", ["x", f"d{number}"], [f"p{number}"])
    # The bias first: an addition has no order.
    return [dequantized, product, helper.make_node("Add", ["bias", f"p{number}"], [f"y{number}"])]


@pytest.mark.parametrize("kind", ["MatMul", "Gemm"])
@pytest.mark.parametrize(("largest", "least_scale", "count"), [(1.0, 0.125, 2), (1e9, 0.125, 0), (0.0, 0.0, 1)])
def test_a_bias_that_layers_share_gets_a_scale_for_each_and_one_that_no_scale_holds_stays(
    kind: str, largest: float, least_scale: float, count: int
) -> None:
    generator = np.random.default_rng(1)
    bias = (generator.uniform(-1, 1, 3) * largest).astype(np.float32)
    scales = [np.array([0.5, 0.25, least_scale], np.float32), np.array([0.01, 0.02, 0.04], np.float32)]
    constants = {"bias": bias, "sx": np.array(0.1, np.float32)}
    for number, scale in enumerate(scales):
        constants |= {f"w{number}": generator.integers(-99, 99, (4, 3), np.int8), f"s{number}": scale}
    nodes = [helper.make_node("DequantizeLinear", ["q", "sx"], ["x"])]
    nodes += [node for number in range(2) for node in _product(number, kind=kind)]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("q", TensorProto.INT8, [2, 4])],
        [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, [2, 3]) for number in range(2)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    given = {"q": generator.integers(-128, 127, (2, 4), np.int8)}
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)
    _round_biases_(model.graph)
    onnx.checker.check_model(model, full_check=True)
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)
    rounded = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0].endswith(".int32")]
    assert len(rounded) == count
    assert ("bias" in {tensor.name for tensor in model.graph.initializer}) is (count < 2)
    for scale, old, new in zip(scales, before, after, strict=True):
        # Half a step of the product's scale.
        assert np.all(np.abs(old - new) <= 0.051 * scale + 1e-6 * np.abs(old))
