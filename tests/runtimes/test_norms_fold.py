"""The shape that is measured before training must be the shape that ships: norms may not come and go with values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.records.artifact import TensorSpec
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.fresh_weights import draw_norms_

INPUTS = TensorSpec(name="input", shape=(1, 1, 64), dtype="float32")


class SeparableNet1d(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(1, 8, 3, padding=1, bias=False), nn.BatchNorm1d(8), nn.ReLU()]
        layers += [nn.Conv1d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm1d(8), nn.ReLU()]
        layers += [nn.Conv1d(8, 16, 1, bias=False), nn.BatchNorm1d(16), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean(dim=2))


def trained_net() -> nn.Module:
    torch.manual_seed(0)
    model = SeparableNet1d().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(8, 1, 64)).square().mean().backward()
        optimizer.step()
    return model.eval()


def measured_shape() -> nn.Module:
    model = SeparableNet1d().eval()
    draw_norms_(model)
    return model


def operators(path: Path) -> Counter[str]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    return Counter(details["op_name"] for details in interpreter._get_ops_details())


@pytest.mark.parametrize("runtime", RUNTIMES.names())
def test_the_measured_shape_and_the_trained_model_give_files_of_one_size(runtime: str, tmp_path: Path) -> None:
    sizes = []
    for name, model in (("shape", measured_shape()), ("trained", trained_net())):
        (tmp_path / name).mkdir()
        files = RUNTIMES.get(runtime).compile(model, INPUTS, tmp_path / name)
        sizes.append(sum((tmp_path / name / file).stat().st_size for file in files.names))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.005)


def test_tflite_folds_norms_behind_one_dimensional_convolutions(tmp_path: Path) -> None:
    files = RUNTIMES.get("tflite").compile(trained_net(), INPUTS, tmp_path)
    assert {"MUL", "ADD"}.isdisjoint(operators(tmp_path / files.names[0]))
