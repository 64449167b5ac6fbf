from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeprune.benchmarking.agent.device import sessions
from edgeprune.errors import BuildError
from edgeprune.libraries import refuse_telemetry
from edgeprune.profiling.branches import Branches
from edgeprune.profiling.micro import MicroModel, micro_model
from edgeprune.profiling.slicing import SLICERS
from edgeprune.profiling.widths import group_shapes, group_staircase
from edgeprune.records.operators import ChannelPart, OperatorShape, OperatorUse
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact


def conv(in_channels: int, out_channels: int, **changes: Any) -> OperatorShape:
    fields: dict[str, Any] = {
        "kind": "conv",
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel": (3, 3),
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "extent": (8, 8),
    }
    return OperatorShape(**{**fields, **changes})


DEPTHWISE = conv(6, 6, kind="depthwise", groups=6, stride=(2, 2), activation="relu6")
ADD = OperatorShape(kind="add", in_channels=16, out_channels=16, extent=(8, 8), after=(3, 3), activation="relu")
AVERAGE = OperatorShape(kind="average", in_channels=12, out_channels=12, extent=(8, 8))
WIDE = OperatorShape(kind="linear", in_channels=8, out_channels=24, rows=5, activation="gelu")


@pytest.fixture(autouse=True)
def _no_telemetry() -> None:
    refuse_telemetry()


def _branches(*shapes: OperatorShape) -> tuple[MicroModel, ...]:
    models = [micro_model(s) for s in shapes]
    return tuple(dict.fromkeys((*models, *(m.base for m in models))))


@pytest.mark.parametrize(
    ("shape", "input_shape", "base"),
    [
        (conv(16, 32), (1, 3, 8, 8), "base-3x8x8-16"),
        (conv(4, 32, at_input=True), (1, 4, 8, 8), "base-4x8x8-0"),
        (conv(4, 8, kernel=(3,), stride=(1,), padding=(1,), dilation=(1,), extent=(9,)), (1, 3, 9), "base-3x9-4"),
        (ADD, (1, 3, 8, 8), "base-3x8x8-16-add3x3"),
        (replace(ADD, after=()), (1, 3, 8, 8), "base-3x8x8-16-add1x1"),
        (AVERAGE, (1, 3, 8, 8), "base-3x8x8-12"),
        (replace(AVERAGE, extent=(9,)), (1, 3, 9), "base-3x9-12"),
        (WIDE, (1, 5, 3), "base-5x3-8"),
        (OperatorShape(kind="linear", in_channels=8, out_channels=2), (1, 3), "base-3-8"),
        (OperatorShape(kind="add", in_channels=8, out_channels=8, rows=5), (1, 5, 3), "base-5x3-8-add"),
    ],
)
def test_an_operator_and_its_base(shape: OperatorShape, input_shape: tuple[int, ...], base: str) -> None:
    model = micro_model(shape)
    assert (model.company.input_shape, model.base.name) == (input_shape, base)
    assert model.base.base == model.base
    module = Branches(_branches(shape))
    assert module(torch.zeros(input_shape)).shape == (1, 8)


def test_a_branch_has_one_operator_more_than_its_base() -> None:
    models = _branches(conv(16, 32), ADD)
    module = Branches(models)
    sizes = {
        m.name: sum(p.numel() for p in b.parameters() if p.dim() > 1)
        for m, b in zip(models, module.branches, strict=True)
    }
    head = 8 * 2 * 2
    assert sizes == {
        "conv3x3s1-16x32-e8": 16 * 32 * 9 + head * 32,
        "base-3x8x8-16": head * 16,
        # A branch of two layers, to which its input is added.
        "add-after3x3-16x16-e8-relu": 2 * 16 * 16 * 9 + head * 16,
        "base-3x8x8-16-add3x3": 2 * 16 * 16 * 9 + head * 16,
    }


def test_the_same_weights_every_time_and_the_caller_s_generator_stays() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second = (Branches(_branches(conv(4, 4))).state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT8])
@pytest.mark.parametrize("runtime", SLICERS.names())
def test_every_branch_computes_its_part_of_the_whole(runtime: str, precision: Precision, tmp_path: Path) -> None:
    models = _branches(conv(8, 12, activation="relu"), DEPTHWISE, ADD, AVERAGE)
    module = Branches(models)
    samples = np.random.default_rng(0).standard_normal((4, 3, 8, 8), dtype=np.float32)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    artifact = compile_artifact(
        CompileJob(module, (1, 3, 8, 8), samples), Rung(runtime=runtime, precision=precision), whole
    )
    assert SLICERS.get(runtime).slice(whole / artifact.files[0].name, parts) == len(models)
    module.last = torch.nn.Identity()
    with torch.no_grad():
        expected = module(torch.from_numpy(samples[:1])).numpy()
    for number in range(len(models)):
        path = parts / str(number) / artifact.files[0].name
        assert {f.name for f in path.parent.iterdir()} == {f.name for f in artifact.files}
        found = _run(runtime, path, precision, samples[:1])
        wanted = expected[:, 8 * number : 8 * number + 8]
        # Quantizers clip outliers; another branch's values would differ by more than their own size.
        allowed = 1e-4 if precision is Precision.FLOAT32 else 0.3
        assert np.linalg.norm(found - wanted) <= allowed * np.linalg.norm(wanted)
    if precision is Precision.INT8:
        kernels = _KERNELS[runtime](parts / "0" / artifact.files[0].name)
        # Stem, operator and head.
        assert len(kernels) == 3


def _run(runtime: str, path: Path, precision: Precision, sample: np.ndarray) -> np.ndarray:
    session = sessions.load(runtime, str(path), precision.value, 1)
    result: np.ndarray = session.results(session.run(session.prepare(sample)))[0]
    return result


def _onnxruntime_kernels(path: Path) -> list[str]:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    return [n.op_type for n in nodes if n.op_type == "QLinearConv"]


def _openvino_kernels(path: Path) -> list[str]:
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model()
    nodes = [o.get_rt_info() for o in model.get_ops()]
    found = [str(n["primitiveType"].astype(str)) for n in nodes if str(n["layerType"].astype(str)) == "Convolution"]
    return [kernel for kernel in found if kernel.lower().endswith("i8")]


def _tflite_kernels(path: Path) -> list[str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    types = {d["index"]: d["dtype"] for d in interpreter.get_tensor_details()}
    operators = [o for o in interpreter._get_ops_details() if o["op_name"] == "CONV_2D"]
    return [o["op_name"] for o in operators if types[o["inputs"][0]] is types[o["inputs"][1]] is np.int8]


_KERNELS = {"onnxruntime": _onnxruntime_kernels, "openvino": _openvino_kernels, "tflite": _tflite_kernels}


@pytest.mark.parametrize("runtime", SLICERS.names())
def test_a_model_without_branches_is_refused(runtime: str, tmp_path: Path) -> None:
    job = CompileJob(torch.nn.Linear(3, 4), (1, 3), np.zeros((1, 3), np.float32))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    artifact = compile_artifact(job, Rung(runtime=runtime, precision=Precision.FLOAT32), whole)
    with pytest.raises(BuildError, match="expected a concatenation before"):
        SLICERS.get(runtime).slice(whole / artifact.files[0].name, parts)
    assert list(parts.iterdir()) == []


def test_every_runtime_can_be_sliced() -> None:
    assert SLICERS.names() == RUNTIMES.names()


def test_a_group_s_staircase_by_hand() -> None:
    part = (ChannelPart(group="g", width=32),)
    uses = [
        OperatorUse(layer="a", shape=conv(3, 32), out_parts=part),
        OperatorUse(layer="b", shape=conv(32, 8), in_parts=part),
        OperatorUse(layer="c", shape=conv(8, 8)),
    ]
    prices = {32: 1.0, 31: 5.0, 16: 0.5}

    def latency_ms(shape: OperatorShape) -> float:
        return prices[shape.out_channels] if shape.in_channels == 3 else 0.25

    staircase = group_staircase(uses, "g", (32, 16, 31), latency_ms, context="here")
    assert staircase.points == ((16, 0.75), (31, 5.25), (32, 1.25))
    assert staircase.admissible == (16, 32)
    assert staircase.operator == "g here"
    assert [s.name for s in group_shapes(uses, "g", (32, 16))] == [
        "conv3x3s1-3x32-e8",
        "conv3x3s1-32x8-e8",
        "conv3x3s1-3x16-e8",
        "conv3x3s1-16x8-e8",
    ]
