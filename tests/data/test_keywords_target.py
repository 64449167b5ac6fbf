"""The keywords of MLPerf Tiny: the net's shapes, and the fixed parts that its 1,000 examples fall into."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from targets_for_tests import target_module
from torch import Tensor
from torch.nn import functional

from edgeprune.data.preprocessing import preprocess
from edgeprune.errors import InputError
from edgeprune.schema.base import load_toml
from edgeprune.schema.target import TargetSpec

FOLDER = Path(__file__).parents[2] / "targets" / "keywords-dscnn"


@pytest.fixture(scope="module")
def model_code() -> ModuleType:
    return target_module(FOLDER)


def _same(x: Tensor, weight: Tensor, bias: Tensor, stride: int, groups: int = 1) -> Tensor:
    """A convolution as TensorFlow pads it: what is odd goes below and to the right."""
    pads: list[int] = []
    for size, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1], strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.conv2d(functional.pad(x, pads), weight, bias, stride, groups=groups)


def test_the_net_pads_as_tensorflow_does(model_code: ModuleType) -> None:
    torch.manual_seed(0)
    model = model_code.build_model().eval()
    x = torch.randn(2, 1, 49, 10)
    with torch.no_grad():
        found = model(x)
        for name in model.names:
            layer, norm = model.get_submodule(name), model.get_submodule(f"bn_{name}")
            x = torch.relu(norm(_same(x, layer.weight, layer.bias, layer.stride[0], layer.groups)))
        assert x.shape == (2, 64, 25, 5)
        assert torch.allclose(found, model.fc(x.mean(dim=(2, 3))), atol=1e-6)
    assert sum(p.numel() for p in model.parameters()) == 23_756


def test_parts_are_fixed_and_share_no_example(
    model_code: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    with pytest.raises(InputError, match="set EDGEPRUNE_DATA"):
        model_code.load_data(0)
    (tmp_path / "mlperf_tiny").mkdir()
    features = np.zeros((1000, 49, 10), np.int8)
    features[:, 0, 0], features[:, 0, 1] = np.divmod(np.arange(1000), 100)
    np.savez(tmp_path / "mlperf_tiny" / "kws01_eval_1000.npz", x=features, y=np.arange(1000) % 12)
    data, again = model_code.load_data(0), model_code.load_data(7)
    parts = [data.train, data.validation, data.test]
    assert [len(part) for part in parts] == [300, 350, 350]
    numbers = [100 * part.inputs[:, 0, 0, 0] + part.inputs[:, 0, 0, 1] for part in parts]
    assert sorted(np.concatenate(numbers)) == list(range(1000))
    for part, number in zip(parts, numbers, strict=True):
        assert np.array_equal(part.labels, number % 12)
    assert np.array_equal(data.test.inputs, again.test.inputs)
    spec = load_toml(FOLDER / "target.toml", TargetSpec)
    assert preprocess(np.full((1, 1, 1, 1), 83.0), spec.preprocessing) == pytest.approx(0.0, abs=1e-5)
    assert preprocess(np.full((1, 1, 1, 1), 84.0), spec.preprocessing) == pytest.approx(0.5847029, abs=1e-5)
