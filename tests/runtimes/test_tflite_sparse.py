"""The sparse form computes what the dense file computes, is smaller, and the rule tells exactly why it is not taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compiled import run_compiled
from records_for_tests import make_facts
from sparse_models import ARM, compile_dense, compile_sparse, separable_net, with_zeros
from torch import nn

from edgeprune.protocols import CompiledFiles
from edgeprune.quantization.schemes import SCHEMES
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.sparsity import SparsePath
from edgeprune.runtimes import RUNTIMES

IMAGE = (1, 3, 32, 32)


def check(files: CompiledFiles, device: DeviceFacts = ARM) -> SparsePath:
    form = RUNTIMES.get("tflite").sparse_form()
    assert form is not None
    return form.check(files, device)


def size_bytes(files: CompiledFiles) -> int:
    return sum((files.folder / name).stat().st_size for name in files.names)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> CompiledFiles:
    return compile_sparse(with_zeros(separable_net(64, classes=100), 0.9), IMAGE, tmp_path_factory.mktemp("good") / "m")


def test_sparse_and_dense_files_give_the_same_numbers(good: CompiledFiles) -> None:
    dense = replace(good, folder=good.folder.parent / "dense")
    samples = np.random.default_rng(0).standard_normal((4, *IMAGE[1:])).astype(np.float32)
    np.testing.assert_allclose(
        run_compiled("tflite", good, samples), run_compiled("tflite", dense, samples), rtol=1e-5, atol=1e-6
    )
    # Of 4 bytes a weight, 90 % of the weights: 1 of 10 values and its index of a byte are left.
    weights = 4 * (64 * 64 + 64 * 128 + 128 * 100)
    assert size_bytes(dense) - size_bytes(good) > 0.8 * weights


def test_what_would_not_be_smaller_stays_dense(tmp_path: Path) -> None:
    files = compile_sparse(with_zeros(separable_net(16), 0.1), IMAGE, tmp_path / "m")
    assert "no weights are in sparse storage" in check(files).reasons[0]


def test_a_layer_of_zeros_alone_stays_dense(tmp_path: Path) -> None:
    # Without a value to store, its buffer would be empty, and it no constant.
    net = with_zeros(separable_net(16), 0.9)
    nn.init.zeros_(net.get_submodule("9").weight)  # type: ignore[arg-type]
    files = compile_sparse(net, IMAGE, tmp_path / "m")
    samples = np.random.default_rng(0).standard_normal((4, *IMAGE[1:])).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(run_compiled("tflite", files, samples), expected, rtol=1e-4, atol=1e-4)
    assert check(files).taken
    assert sum(x.zeros == x.weights for x in check(files).layers) == 1


def test_linear_layers_and_3x3_convolutions_are_stored_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 40), nn.ReLU(), nn.Linear(40, 4)]
    model = nn.Sequential(*layers).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data[torch.rand(layer.weight.shape) < 0.8] = 0
    files = compile_sparse(model, (1, 4, 8, 8), tmp_path / "m")
    samples = np.random.default_rng(0).standard_normal((3, 4, 8, 8)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(samples)).numpy()
    np.testing.assert_allclose(run_compiled("tflite", files, samples), expected, rtol=1e-4, atol=1e-5)
    assert size_bytes(files) < 0.5 * size_bytes(replace(files, folder=files.folder.parent / "dense"))


def test_int8_files_are_left_as_they_are(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((8, *IMAGE[1:])).astype(np.float32)
    dense = compile_dense(with_zeros(separable_net(16), 0.9), IMAGE, tmp_path / "dense")
    for name in ("int8", "sparse"):
        (tmp_path / name).mkdir()
    int8 = SCHEMES.get("ai_edge").quantize(dense, samples, tmp_path / "int8")
    form = RUNTIMES.get("tflite").sparse_form()
    assert form is not None
    sparse = form.store(int8, tmp_path / "sparse")
    np.testing.assert_array_equal(run_compiled("tflite", sparse, samples), run_compiled("tflite", int8, samples))
    assert any("not in floating point" in reason for reason in check(sparse).reasons)


def test_a_net_that_meets_the_rule(good: CompiledFiles) -> None:
    path = check(good)
    assert path.reasons == ()
    assert [x.weights for x in path.layers] == [64 * 64, 64 * 128, 128 * 100]
    assert path.share == pytest.approx(0.9, abs=0.001)
    assert "xnn_subgraph_rewrite_for_nchw" in path.source


def test_a_residual_add_meets_it_too(tmp_path: Path) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU(), nn.Conv2d(16, 16, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x)

    net = with_zeros(separable_net(16, middle=Residual()), 0.9)
    assert check(compile_sparse(net, IMAGE, tmp_path / "m")).taken


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"stride": 1}, "dense 3x3 convolution of 3 channels with stride (1, 1) and padding (1, 1, 1, 1)"),
        ({"middle": nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16)}, "is dilated by (2, 2)"),
        ({"middle": nn.Conv2d(16, 16, 7, padding=3, groups=16)}, "depthwise 7x7 convolution; only 3x3 and 5x5"),
        ({"middle": nn.MaxPool2d(2)}, "#9 MAX_POOL_2D gives, which has no channels-first kernel"),
    ],
)
def test_the_graph_is_refused_with_the_operator_that_breaks_it(
    changes: dict[str, object], reason: str, tmp_path: Path
) -> None:
    net = with_zeros(separable_net(16, **changes), 0.9)  # type: ignore[arg-type]
    path = check(compile_sparse(net, IMAGE, tmp_path / "m"))
    assert reason in " | ".join(path.reasons)


def test_linear_layers_alone_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = with_zeros(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval(), 0.9)
    path = check(compile_sparse(net, (1, 64), tmp_path / "m"))
    assert path.reasons == ("it does not end in a mean over height and width",)


def test_the_classifiers_weights_count_and_what_is_missing_is_told(tmp_path: Path) -> None:
    net = with_zeros(separable_net(16, classes=100), 0.9, classifier=False)
    path = check(compile_sparse(net, IMAGE, tmp_path / "m"))
    # 90 % of 256 + 512 weights, none of 3,200: more than two thirds of 3,968 are 2,646.
    zeros = round(0.9 * 256) + round(0.9 * 512)
    (reason,) = path.reasons
    assert f"{zeros:,} of 3,968 weights" in reason
    assert f"{2646 - zeros:,} zeros are missing, which could come from" in reason
    assert reason.endswith("FULLY_CONNECTED 32->100 (has 3,200 of 3,200 left)")


def test_two_thirds_are_not_enough_and_one_more_is(tmp_path: Path) -> None:
    for kept, taken in ((4, False), (3, True)):
        net = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        ).eval()
        weight = net[2].weight.data
        weight.zero_()
        weight.view(-1)[:kept] = 1.0
        assert check(compile_sparse(net, IMAGE, tmp_path / str(kept))).taken is taken


def test_devices_that_never_take_the_path_are_told(good: CompiledFiles) -> None:
    x86 = replace(make_facts(), cpu_flags=("sse2", "avx", "avx2"), runtimes=(("tflite", "2.3.0"),))
    (reason,) = check(good, x86).reasons
    assert "x86 CPUs with AVX" in reason
    assert "hardware-config.h" in reason
    (reason,) = check(good, replace(ARM, runtimes=(("tflite", "2.14.0"),))).reasons
    assert "tflite 2.14.0 there is tflite_runtime" in reason
    assert check(good, replace(x86, cpu_flags=("sse2",))).taken


def test_a_dense_file_is_not_asked(good: CompiledFiles) -> None:
    (reason,) = check(replace(good, folder=good.folder.parent / "dense")).reasons
    assert reason.startswith("no weights are in sparse storage")


def test_a_cluster_that_spills_an_image_would_compute_wrong_numbers(tmp_path: Path) -> None:
    # The stem's cluster ends before the dense convolution, the other one in the mean: see `spilt`.
    net = with_zeros(separable_net(16, middle=nn.Conv2d(16, 16, 3, padding=1)), 0.9)
    files = compile_sparse(net, IMAGE, tmp_path / "m")
    path = check(files)
    assert not path.taken
    assert "HARD_SWISH" in path.wrong
    assert "channels-first layout, unknown to its readers" in path.wrong
    x86 = replace(make_facts(), cpu_flags=("avx",), runtimes=(("tflite", "2.3.0"),))
    assert check(files, x86).wrong == ""
