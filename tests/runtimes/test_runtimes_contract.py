"""What every file of `edgeprune/runtimes` must hold to."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compiled import run_compiled, with_eventful_batch_norms
from models import ResNet, example_of, seeded
from torch import Tensor, nn

from edgeprune.errors import BuildError, NotInstalledError
from edgeprune.libraries import refuse_telemetry, versions_of
from edgeprune.protocols import CompiledFiles
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.quantization import QuantizationVariant
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.evaluating import parity_of

INPUTS = TensorSpec(name="x", shape=(1, 3, 16, 16), dtype="float32")


class SingularValuesNet(nn.Module):
    """No runtime has this operator."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svdvals(x[:, 0, :4, :4])


class NestedNet(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        return x, (x,)


NETS = [
    "plain",
    "resnet",
    "separable",
    "transformer",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("pad_resnet", "densenet", "grouped")),
]
each_runtime = pytest.mark.parametrize("runtime", RUNTIMES.names())


@pytest.fixture(autouse=True)
def _no_telemetry() -> None:
    refuse_telemetry()


def _hashes(files: CompiledFiles) -> list[str]:
    return [hashlib.sha256((files.folder / name).read_bytes()).hexdigest() for name in files.names]


def _device(**facts: Any) -> DeviceFacts:
    filled: dict[str, Any] = {
        "machine": "x86_64",
        "system": "Linux",
        "kernel": "6",
        "cpu_model": "any",
        "cpu_flags": (),
        "cores": 4,
        "memory_bytes": 1,
        "disk_free_bytes": 1,
        "python": "3.11",
        "numpy": "2",
        "runtimes": (),
    }
    return DeviceFacts(**{**filled, **facts})


@pytest.mark.parametrize("net", NETS)
@each_runtime
def test_compiled_model_agrees_with_torch(
    runtime: str, net: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, example = example_of(net)
    with_eventful_batch_norms(model)
    inputs = TensorSpec(name="x", shape=tuple(example.shape), dtype="float32")

    files = RUNTIMES.get(runtime).compile(model, inputs, tmp_path)

    assert capfd.readouterr() == ("", "")
    samples = torch.randn((8, *inputs.shape[1:]), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = model(samples).numpy()
    assert files.inputs == (TensorSpec(name="input", shape=inputs.shape, dtype="float32"),)
    assert files.outputs == (TensorSpec(name="output", shape=(1, expected.shape[1]), dtype="float32"),)
    assert sorted(files.names) == sorted(p.name for p in tmp_path.iterdir())
    found = run_compiled(runtime, files, samples.numpy())
    assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()


@each_runtime
def test_same_model_gives_same_bytes_and_is_left_alone(runtime: str, tmp_path: Path) -> None:
    model = with_eventful_batch_norms(seeded(ResNet)).train()
    before = copy.deepcopy(model.state_dict())
    hashes = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        hashes.append(_hashes(RUNTIMES.get(runtime).compile(model, INPUTS, tmp_path / name)))
    assert hashes[0] == hashes[1]
    assert all(m.training for m in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@each_runtime
def test_refused_operator_is_named_and_leaves_nothing(
    runtime: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(BuildError, match=rf"^{runtime}: cannot compile the model: .*svd") as caught:
        RUNTIMES.get(runtime).compile(SingularValuesNet(), INPUTS, tmp_path)
    assert "\n" not in caught.value.message
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert capfd.readouterr() == ("", "")


@each_runtime
@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (
            NestedNet(),
            INPUTS,
            "expected a model that returns a tensor, or a flat tuple or dict .* got tuple in a tuple",
        ),
        (ResNet(), TensorSpec(name="x", shape=(8, 3, 16, 16), dtype="float32"), "batch of 1, got float32 .8, 3"),
        (ResNet(), TensorSpec(name="x", shape=(1, 4, 16, 16), dtype="float32"), "to have 3 channels, but got 4"),
    ],
)
def test_model_that_is_no_function_of_one_tensor_is_refused(
    runtime: str, model: nn.Module, inputs: TensorSpec, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match=message):
        RUNTIMES.get(runtime).compile(model, inputs, tmp_path)
    assert list(tmp_path.iterdir()) == []


@each_runtime
def test_versions_name_the_libraries(runtime: str) -> None:
    versions = dict(RUNTIMES.get(runtime).versions())
    assert "torch" in versions
    assert all(v[0].isdigit() for v in versions.values())


def test_missing_library_is_told_with_the_command_that_brings_it() -> None:
    with pytest.raises(NotInstalledError, match=r"pip install 'edgeprune\[tflite\]'") as caught:
        versions_of("tflite", "torch", "no-such-distribution")
    assert caught.value.exit_code == 4
    assert caught.value.facts == {"distribution": "no-such-distribution", "extra": "tflite"}


def test_modules_load_without_heavy_libraries() -> None:
    program = """
import sys
heavy = ("torch", "openvino", "onnx", "onnxruntime", "nncf", "litert_torch", "ai_edge_litert", "ai_edge_quantizer")
sys.modules.update(dict.fromkeys(heavy))
from edgeprune.quantization.schemes import SCHEMES
from edgeprune.runtimes import RUNTIMES
for runtime in map(RUNTIMES.get, RUNTIMES.names()):
    SCHEMES.get(runtime.int8_scheme())
print(*RUNTIMES.names())
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stderr, result.stdout) == ("", "onnxruntime openvino tflite\n")


@pytest.mark.parametrize(
    ("facts", "openvino"),
    [
        ({}, "float32 float32w16 int8"),
        ({"cpu_flags": ("avx2", "avx512_bf16")}, "float32 float32w16 bf16 int8"),
        ({"cpu_flags": ("amx_bf16",)}, "float32 float32w16 bf16 int8"),
        ({"machine": "aarch64", "cpu_flags": ("fphp", "asimdhp")}, "float32 float32w16 fp16 int8"),
        ({"cpu_flags": ("fphp",)}, "float32 float32w16 int8"),
    ],
)
def test_precisions_follow_the_cpu(facts: dict[str, Any], openvino: str) -> None:
    device = _device(**facts)
    assert " ".join(RUNTIMES.get("openvino").precisions(device)) == openvino
    for runtime in ("onnxruntime", "tflite"):
        assert RUNTIMES.get(runtime).precisions(device) == (
            Precision.FLOAT32,
            Precision.FLOAT32_W16,
            Precision.INT8,
        )


@each_runtime
def test_weights_of_16_bits_halve_the_file_of_whole_and_cut_models(runtime: str, tmp_path: Path) -> None:
    if Precision.FLOAT32_W16 not in RUNTIMES.get(runtime).precisions(_device()):
        pytest.skip("not offered")
    samples = np.random.default_rng(0).standard_normal((8, *INPUTS.shape[1:]), dtype=np.float32)
    for name, widths in (("whole", (48, 96)), ("cut", (40, 64))):
        model = with_eventful_batch_norms(seeded(lambda widths=widths: ResNet(widths=widths)))
        # What the target wants of INT8 is not meant.
        job = CompileJob(model, INPUTS.shape, samples, QuantizationVariant(equalized=True))
        found, size = {}, {}
        for precision in (Precision.FLOAT32, Precision.FLOAT32_W16):
            folder = tmp_path / f"{name}-{precision}"
            folder.mkdir()
            artifact = compile_artifact(job, Rung(runtime=runtime, precision=precision), folder)
            assert sorted(f.name for f in artifact.files) == sorted(p.name for p in folder.iterdir())
            opened = RUNTIMES.get(runtime).open_file(folder / artifact.files[0].name)
            assert opened is not None
            assert {s.dtype for s in (*artifact.inputs, *artifact.outputs, *opened.inputs, *opened.outputs)} == {
                "float32"
            }
            found[precision], size[precision] = run_compiled(runtime, opened, samples), artifact.size_bytes
        with torch.no_grad():
            expected = model(torch.from_numpy(samples)).numpy()
        assert 0.45 < size[Precision.FLOAT32_W16] / size[Precision.FLOAT32] < 0.57
        assert all(parity_of(outputs, expected, precision).passed for precision, outputs in found.items())
        # They are rounded, and no more than that.
        assert not np.array_equal(*found.values())
        assert parity_of(found[Precision.FLOAT32_W16], expected, Precision.FLOAT32).passed


@each_runtime
def test_weights_that_16_bits_cannot_hold_are_refused_by_name(runtime: str, tmp_path: Path) -> None:
    if Precision.FLOAT32_W16 not in RUNTIMES.get(runtime).precisions(_device()):
        pytest.skip("not offered")
    model = seeded(ResNet)
    with torch.no_grad():
        model.fc.weight[0, 0] = -1e5
    job = CompileJob(model, INPUTS.shape, np.zeros(INPUTS.shape, np.float32))
    with pytest.raises(BuildError, match=r"weights of up to 1e\+05 in 'fc.weight' do not fit in 16 bits"):
        compile_artifact(job, Rung(runtime=runtime, precision=Precision.FLOAT32_W16), tmp_path)


def test_onnx_file_tells_nothing_of_the_build_host(tmp_path: Path) -> None:
    files = RUNTIMES.get("onnxruntime").compile(with_eventful_batch_norms(seeded(ResNet)), INPUTS, tmp_path)
    content = (tmp_path / files.names[0]).read_bytes()
    assert b".py" not in content
    assert b"BatchNorm" not in content


@each_runtime
def test_own_file_is_opened_and_others_are_not(runtime: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = RUNTIMES.get(runtime).compile(seeded(ResNet), INPUTS, tmp_path)
    path = tmp_path / files.names[0]
    opened = {name: RUNTIMES.get(name).open_file(path) for name in RUNTIMES.names()}
    assert [name for name, found in opened.items() if found] == [runtime]
    found = opened[runtime]
    assert found is not None
    assert (found.folder, found.names, found.format) == (files.folder, files.names, files.format)
    assert [(s.shape, s.dtype) for s in (*found.inputs, *found.outputs)] == [
        (INPUTS.shape, "float32"),
        ((1, 5), "float32"),
    ]
    assert capfd.readouterr() == ("", "")


@each_runtime
def test_damaged_file_is_told(runtime: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / {"openvino": "m.xml", "onnxruntime": "m.onnx", "tflite": "m.tflite"}[runtime]
    path.write_bytes(b"no model")
    with pytest.raises(BuildError, match=rf"^{runtime}: cannot read {path}: \S"):
        RUNTIMES.get(runtime).open_file(path)
    assert path.exists()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("batch", "side"), [("batch", 8), ("batch", "side")])
def test_open_batch_is_one_and_other_open_sizes_are_refused(batch: str, side: int | str, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, side]) for name in ("a", "b")]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
    if side == "side":
        with pytest.raises(
            BuildError, match=r"tensor 'a': expected a fixed shape apart from the batch, got .None, None"
        ):
            RUNTIMES.get("onnxruntime").open_file(tmp_path / "m.onnx")
        return
    found = RUNTIMES.get("onnxruntime").open_file(tmp_path / "m.onnx")
    assert found is not None
    assert found.inputs == (TensorSpec(name="a", shape=(1, 8), dtype="float32"),)
    assert found.format == "onnx opset 17"
