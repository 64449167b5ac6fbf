"""What every file of `edgeprune/quantization/schemes` must hold to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from compiled import run_compiled, weight_scales
from models import ResNet, example_of, seeded
from structures import encoder
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import BuildError
from edgeprune.libraries import refuse_telemetry
from edgeprune.protocols import CompiledFiles
from edgeprune.quantization.marks import marked_copy, marked_module
from edgeprune.quantization.schemes import SCHEMES
from edgeprune.quantization.smoothing import smooth
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.quantization import (
    DEFAULT_VARIANT,
    BiasCorrection,
    Calibration,
    Preparation,
    QuantizationVariant,
)
from edgeprune.records.rung import Precision, Rung
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compiling import CompileJob, compile_artifact

SHAPE = (3, 16, 16)
NETS = ("resnet", "separable", "transformer", "encoder")
RUNTIME_OF = {RUNTIMES.get(name).int8_scheme(): name for name in RUNTIMES.names()}

each_scheme = pytest.mark.parametrize("scheme", SCHEMES.names())

# OpenVINO does not compile torch's own encoder layer.
MARKED = sorted({*product(SCHEMES.names(), NETS)} - {("nncf_openvino", "encoder")})


def _examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Five patterns under noise: easy, yet not trivial."""
    patterns = torch.randn((5, *SHAPE), generator=torch.Generator().manual_seed(9))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (count,), generator=generator)
    return patterns[labels] + 1.5 * torch.randn((count, *SHAPE), generator=generator), labels


def _trained_net() -> nn.Module:
    model = seeded(lambda: ResNet(widths=(24, 48))).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(40):
        inputs, labels = _examples(32, seed=100 + step)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module", autouse=True)
def _no_telemetry() -> None:
    refuse_telemetry()


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return _trained_net()


@pytest.fixture(scope="module")
def floating(trained: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CompiledFiles]:
    """The trained net's float32 artifact for a scheme, compiled once."""
    made: dict[str, CompiledFiles] = {}

    def compile_for(scheme: str) -> CompiledFiles:
        if scheme not in made:
            inputs = TensorSpec(name="input", shape=(1, *SHAPE), dtype="float32")
            made[scheme] = RUNTIMES.get(RUNTIME_OF[scheme]).compile(trained, inputs, tmp_path_factory.mktemp(scheme))
        return made[scheme]

    return compile_for


def _size(files: CompiledFiles) -> int:
    return sum((files.folder / name).stat().st_size for name in files.names)


def _hashes(files: CompiledFiles) -> list[str]:
    return [hashlib.sha256((files.folder / name).read_bytes()).hexdigest() for name in files.names]


def test_each_runtime_has_a_scheme_of_its_own() -> None:
    assert sorted(RUNTIME_OF) == list(SCHEMES.names())


@each_scheme
def test_quantised_net_is_small_quiet_as_good_and_as_told(
    scheme: str,
    trained: nn.Module,
    floating: Callable[[str], CompiledFiles],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = floating(scheme)
    before = _hashes(source)

    files = SCHEMES.get(scheme).quantize(source, _examples(48, seed=1)[0].numpy(), tmp_path)

    assert capfd.readouterr() == ("", "")
    assert sorted(files.names) == sorted(p.name for p in tmp_path.iterdir())
    assert files.names[0] == source.names[0]
    dtype = "int8" if scheme == "ai_edge" else "float32"
    assert files.inputs == (TensorSpec(name="input", shape=(1, *SHAPE), dtype=dtype),)
    assert files.outputs == (TensorSpec(name="output", shape=(1, 5), dtype=dtype),)
    assert _size(files) < _size(source) / 2
    assert _hashes(source) == before
    inputs, labels = _examples(200, seed=2)
    found = run_compiled(RUNTIME_OF[scheme], files, inputs.numpy())
    with torch.no_grad():
        expected = trained(inputs).numpy()
    assert (expected.argmax(1) == labels.numpy()).mean() > 0.8, "the float net shall have learnt"
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.95
    scales = weight_scales(RUNTIME_OF[scheme], files)
    channels = [m.out_channels for m in trained.modules() if isinstance(m, nn.Conv2d)]
    assert sorted(map(len, scales)) == sorted(channels), "a scale for each output channel of each convolution"
    assert all(len(np.unique(s)) > len(s) / 2 for s in scales)


@each_scheme
def test_same_calibration_gives_same_bytes(
    scheme: str, floating: Callable[[str], CompiledFiles], tmp_path: Path
) -> None:
    hashes = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        calibration = _examples(16, seed=1)[0].numpy()
        hashes.append(_hashes(SCHEMES.get(scheme).quantize(floating(scheme), calibration, tmp_path / name)))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "net", ["transformer", "separable", *(pytest.param(n, marks=pytest.mark.slow) for n in ("plain", "densenet"))]
)
@each_scheme
def test_other_nets_follow_their_float_selves(scheme: str, net: str, tmp_path: Path) -> None:
    model, example = example_of(net)
    for name in ("float", "int8"):
        (tmp_path / name).mkdir()
    inputs = TensorSpec(name="input", shape=tuple(example.shape), dtype="float32")
    runtime = RUNTIME_OF[scheme]
    source = RUNTIMES.get(runtime).compile(model, inputs, tmp_path / "float")
    samples = torch.randn((64, *inputs.shape[1:]), generator=torch.Generator().manual_seed(3)).numpy()
    files = SCHEMES.get(scheme).quantize(source, samples, tmp_path / "int8")
    found, expected = (run_compiled(runtime, f, samples) for f in (files, source))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


def _slow(variant: QuantizationVariant) -> object:
    return pytest.param(variant, marks=pytest.mark.slow, id=variant.name)


VARIANTS = [
    pytest.param(QuantizationVariant(calibration=Calibration.ENTROPY), id="entropy"),
    pytest.param(QuantizationVariant(weight_only_bits=16), id="weights16"),
    _slow(QuantizationVariant(calibration=Calibration.MIN_MAX)),
    _slow(QuantizationVariant(calibration=Calibration.PERCENTILE)),
    _slow(QuantizationVariant(calibration=Calibration.SQUARED_ERROR)),
    _slow(QuantizationVariant(bias_correction=BiasCorrection.OFF)),
    _slow(QuantizationVariant(bias_correction=BiasCorrection.SEQUENTIAL)),
]


@pytest.mark.parametrize("variant", VARIANTS)
@each_scheme
def test_each_variant_follows_the_float_net(
    scheme: str,
    variant: QuantizationVariant,
    trained: nn.Module,
    floating: Callable[[str], CompiledFiles],
    tmp_path: Path,
) -> None:
    assert SCHEMES.get(scheme).refusal(variant) is None
    files = SCHEMES.get(scheme).quantize(floating(scheme), _examples(48, seed=1)[0].numpy(), tmp_path, variant)
    assert _size(files) < 0.6 * _size(floating(scheme))
    inputs, _ = _examples(100, seed=2)
    found = run_compiled(RUNTIME_OF[scheme], files, inputs.numpy())
    with torch.no_grad():
        assert np.corrcoef(found.ravel(), trained(inputs).numpy().ravel())[0, 1] > 0.985


@each_scheme
def test_layers_are_told_in_order_and_stay_in_float_when_named(
    scheme: str, trained: nn.Module, floating: Callable[[str], CompiledFiles], tmp_path: Path
) -> None:
    source, made = floating(scheme), SCHEMES.get(scheme)
    layers = tuple(made.layers(source))
    assert len(set(layers)) == len(layers) == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in trained.modules())
    variant = QuantizationVariant(float_layers=layers[2:6])
    sizes = []
    for name, one in (("default", DEFAULT_VARIANT), ("mixed", variant)):
        (tmp_path / name).mkdir()
        sizes.append(_size(made.quantize(source, _examples(16, seed=1)[0].numpy(), tmp_path / name, one)))
    weights = [m.weight.numel() for m in trained.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    # Three bytes more a weight; the file's other parts may shrink or grow by a little.
    assert sizes[1] - sizes[0] == pytest.approx(3 * sum(weights[2:6]), rel=0.25)


@pytest.mark.parametrize(("scheme", "net"), MARKED)
def test_marks_tell_which_module_a_layer_is(scheme: str, net: str, tmp_path: Path) -> None:
    model, example = encoder() if net == "encoder" else example_of(net)
    marked, modules = marked_copy(model)
    inputs = TensorSpec(name="input", shape=tuple(example.shape), dtype=str(example.dtype).removeprefix("torch."))
    source = RUNTIMES.get(RUNTIME_OF[scheme]).compile(marked, inputs, tmp_path)
    found = [marked_module(w, modules) for w in SCHEMES.get(scheme).layers(source).values()]
    # Torch's own attention is two layers, and one module.
    assert list(dict.fromkeys(found)) == list(modules)


@pytest.mark.parametrize("bits", [8, pytest.param(4, marks=pytest.mark.slow)])
@each_scheme
def test_weights_alone_shrink_linear_layers_and_agree(scheme: str, bits: Literal[4, 8], tmp_path: Path) -> None:
    model = seeded(
        lambda: nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 32))
    )
    for name in ("float", "small"):
        (tmp_path / name).mkdir()
    inputs = TensorSpec(name="input", shape=(1, 64), dtype="float32")
    runtime = RUNTIME_OF[scheme]
    source = RUNTIMES.get(runtime).compile(model, inputs, tmp_path / "float")
    samples = torch.randn((16, *inputs.shape[1:]), generator=torch.Generator().manual_seed(3)).numpy()
    variant = QuantizationVariant(weight_only_bits=bits)
    files = SCHEMES.get(scheme).quantize(source, samples, tmp_path / "small", variant)
    assert files.inputs == source.inputs
    assert _size(files) < _size(source) * (0.4 if bits == 8 else 0.3)
    found, expected = (run_compiled(runtime, f, samples) for f in (files, source))
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > (0.999 if bits == 8 else 0.95)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "variant"),
    [
        ("separable", QuantizationVariant(equalized=True, bias_correction=BiasCorrection.SEQUENTIAL)),
        ("transformer", QuantizationVariant(smoothing=0.5)),
    ],
    ids=["equalized", "smoothed"],
)
@each_scheme
def test_prepared_net_follows_its_float_self(
    scheme: str, net: str, variant: QuantizationVariant, tmp_path: Path
) -> None:
    if SCHEMES.get(scheme).refusal(variant) is not None:
        pytest.skip("refused, with the reason")
    model, example = example_of(net)
    samples = torch.randn((32, *example.shape[1:]), generator=torch.Generator().manual_seed(3)).numpy()
    job = CompileJob(model, tuple(example.shape), samples, variant)
    rung = Rung(runtime=RUNTIME_OF[scheme], precision=Precision.INT8)
    artifact = compile_artifact(job, rung, tmp_path)
    files = CompiledFiles(
        folder=tmp_path, names=tuple(f.name for f in artifact.files), inputs=(), outputs=(), format=artifact.format
    )
    found = run_compiled(rung.runtime, files, samples)
    with torch.no_grad():
        expected = model(torch.from_numpy(samples)).numpy()
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95


@each_scheme
def test_what_the_model_reads_is_never_clipped(scheme: str, tmp_path: Path) -> None:
    """Keyword features have tails that tell words apart; clipping them cost seven points of accuracy."""
    model = nn.Linear(4, 4, bias=False)
    nn.init.eye_(model.weight)
    samples = torch.rand((64, 4), generator=torch.Generator().manual_seed(3)).numpy()
    samples[5, 2] = 40.0
    variant = QuantizationVariant(calibration=Calibration.PERCENTILE, percentile=90.0)
    rung = Rung(runtime=RUNTIME_OF[scheme], precision=Precision.INT8)
    artifact = compile_artifact(CompileJob(model.eval(), (1, 4), samples, variant), rung, tmp_path)
    names = tuple(f.name for f in artifact.files)
    files = CompiledFiles(folder=tmp_path, names=names, inputs=(), outputs=(), format=artifact.format)
    assert run_compiled(rung.runtime, files, samples[5:6])[0, 2] == pytest.approx(40.0, abs=0.5)


class _Mixer(nn.Module):
    """A residual block of an MLP mixer: a layer norm that linear layers read, and no attention anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.widen, self.narrow = nn.Linear(16, 32), nn.Linear(32, 16)
        # Two channels are a hundred times the others and weigh a hundredth, as in trained transformers.
        self.norm.weight.data[:2] = 100.0
        self.norm.bias.data.fill_(0.5)
        self.widen.weight.data[:, :2] /= 100.0

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.narrow(torch.relu(self.widen(self.norm(x))))
        return x + mixed


def _error(scheme: str, model: nn.Module, variant: QuantizationVariant, expected: np.ndarray, folder: Path) -> float:
    """How far off the INT8 artifact is, on average, on `_mixed()`."""
    folder.mkdir()
    rung, samples = Rung(runtime=RUNTIME_OF[scheme], precision=Precision.INT8), _mixed().numpy()
    artifact = compile_artifact(CompileJob(model, (1, *samples.shape[1:]), samples, variant), rung, folder)
    names = tuple(f.name for f in artifact.files)
    files = CompiledFiles(folder=folder, names=names, inputs=(), outputs=(), format=artifact.format)
    return float(np.abs(run_compiled(rung.runtime, files, samples) - expected).mean())


def _mixed() -> Tensor:
    return torch.randn((32, 4, 16), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("scheme", ["nncf_onnx", "nncf_openvino"])
def test_smoothing_helps_a_net_without_attention(scheme: str, tmp_path: Path) -> None:
    model = seeded(_Mixer)
    with torch.no_grad():
        expected = model(_mixed()).numpy()
    default, smoothed = (
        _error(scheme, model, variant, expected, tmp_path / variant.name)
        for variant in (DEFAULT_VARIANT, QuantizationVariant(smoothing=0.5))
    )
    assert smoothed < 0.5 * default


def test_smoothing_is_refused_for_tflite_where_it_changes_nothing(tmp_path: Path) -> None:
    model = seeded(_Mixer)
    with torch.no_grad():
        expected = model(_mixed()).numpy()
    smoothed, norms = smooth(model, _mixed().numpy(), 0.5)
    assert norms == 1
    before, after = (dict(m.named_parameters())["norm.weight"] for m in (model, smoothed))
    assert not torch.allclose(before, after)
    assert _error("ai_edge", smoothed, DEFAULT_VARIANT, expected, tmp_path / "smoothed") == pytest.approx(
        _error("ai_edge", model, DEFAULT_VARIANT, expected, tmp_path / "as it is"), rel=1e-4
    )
    job = CompileJob(model, (1, 4, 16), _mixed().numpy(), QuantizationVariant(smoothing=0.5))
    with pytest.raises(BuildError, match="smooth50: TFLite's converter moves a layer norm's weight"):
        compile_artifact(job, Rung(runtime="tflite", precision=Precision.INT8), tmp_path)


@pytest.mark.parametrize("scheme", ["nncf_onnx", "nncf_openvino"])
def test_smoothing_is_refused_where_there_is_nothing_to_smooth(scheme: str, tmp_path: Path) -> None:
    model, example = example_of("separable")
    job = CompileJob(model, tuple(example.shape), example.numpy(), QuantizationVariant(smoothing=0.5))
    with pytest.raises(BuildError, match="smooth50: the model has no layer norm whose output only linear layers read"):
        compile_artifact(job, Rung(runtime=RUNTIME_OF[scheme], precision=Precision.INT8), tmp_path)


def test_weights_that_cannot_be_stored_in_few_bits_are_refused(tmp_path: Path) -> None:
    model, example = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten())), torch.ones(1, 3, 6, 6)
    job = CompileJob(model, tuple(example.shape), example.numpy(), QuantizationVariant(weight_only_bits=8))
    with pytest.raises(BuildError, match="weights8: no weights of this model can be stored so by onnxruntime"):
        compile_artifact(job, Rung(runtime="onnxruntime", precision=Precision.INT8), tmp_path)


@each_scheme
def test_refused_variant_is_told_beforehand_and_leaves_nothing(
    scheme: str, floating: Callable[[str], CompiledFiles], tmp_path: Path
) -> None:
    made = SCHEMES.get(scheme)
    variant = QuantizationVariant(weight_only_bits=16, dynamic=True)
    refused = made.refusal(variant)
    assert refused is not None
    with pytest.raises(BuildError, match=rf"^{scheme}: dynamic16: {refused}"):
        made.quantize(floating(scheme), _examples(16, seed=1)[0].numpy(), tmp_path, variant)
    assert list(tmp_path.iterdir()) == []


@each_scheme
def test_scheme_leaves_to_torch_what_it_does_not_do(scheme: str) -> None:
    made = SCHEMES.get(scheme)
    assert made.needs(DEFAULT_VARIANT) == frozenset()
    assert made.needs(QuantizationVariant(equalized=True)) == {Preparation.EQUALIZE}
    smoothing = QuantizationVariant(smoothing=0.5)
    assert made.refusal(smoothing) is not None or made.needs(smoothing) == {Preparation.SMOOTH}


@each_scheme
def test_damaged_source_is_refused_and_leaves_nothing(
    scheme: str, floating: Callable[[str], CompiledFiles], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "int8").mkdir()
    source = floating(scheme)
    for name in source.names:
        (tmp_path / "source" / name).write_bytes((source.folder / name).read_bytes()[:1000])
    damaged = replace(source, folder=tmp_path / "source")
    with pytest.raises(BuildError, match=rf"^{scheme}: cannot quantize the model: \S") as caught:
        SCHEMES.get(scheme).quantize(damaged, _examples(16, seed=1)[0].numpy(), tmp_path / "int8")
    assert "\n" not in caught.value.message
    assert list((tmp_path / "int8").iterdir()) == []
    assert capfd.readouterr() == ("", "")


@each_scheme
def test_versions_name_the_quantizer(scheme: str) -> None:
    assert {"nncf", "ai-edge-quantizer"} & dict(SCHEMES.get(scheme).versions()).keys()
