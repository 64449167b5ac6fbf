"""What is done to a torch model before it is compiled: it computes the same, and rounding hurts it less."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from models import example_of, seeded
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import BuildError
from edgeprune.quantization.bias_correction import correct_biases
from edgeprune.quantization.equalization import equalize
from edgeprune.quantization.preparation import prepared
from edgeprune.quantization.rounding import rounded_weight
from edgeprune.quantization.smoothing import smooth, smoothing_factors
from edgeprune.records.quantization import BiasCorrection, Preparation, QuantizationVariant


def _with_drawn_norms(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)):
        norm.weight.data.uniform_(-2.0, 2.0, generator=generator)
        norm.bias.data.normal_(generator=generator)
        if isinstance(norm, nn.BatchNorm2d) and norm.running_var is not None:
            norm.running_var.uniform_(0.2, 3.0, generator=generator)
    return model


def _relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "pairs"), [("plain", 3), ("separable", 3), ("resnet", 4)])
def test_equalized_net_computes_the_same(name: str, pairs: int) -> None:
    model, example = example_of(name)
    model = _with_drawn_norms(model)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        equalized, scaled = equalize(model, example)
        assert scaled == pairs
        assert _relative_error(equalized(example), model(example)) < 1e-5
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_equalization_of_two_layers_by_hand() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)))
    first, second = model[0], model[2]
    first.weight.data = torch.tensor([[8.0], [-0.5]])
    first.bias.data = torch.tensor([4.0, 1.0])
    second.weight.data = torch.tensor([[2.0, 2.0]])
    equalized, _ = equalize(model, torch.ones(1, 1))
    # s = sqrt(r1 / r2): 2 and 1/2. Both ranges become sqrt(r1 * r2): 4 and 1.
    assert equalized[0].weight.flatten().tolist() == pytest.approx([4.0, -1.0])
    assert equalized[0].bias.tolist() == pytest.approx([2.0, 2.0])
    assert equalized[2].weight.flatten().tolist() == pytest.approx([4.0, 1.0])


class _Relu6(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU6(), nn.Linear(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class _Branching(nn.Module):
    """What lies between the layers is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        return x + self.second(x)


class _Tied(nn.Module):
    """One layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(functional.relu(self.layer(x)))


@pytest.mark.parametrize(("factory", "width"), [(_Relu6, 3), (_Branching, 4), (_Tied, 4)])
def test_what_cannot_be_scaled_is_left_alone(factory: type[nn.Module], width: int) -> None:
    model, example = seeded(factory), torch.ones(1, width)
    equalized, scaled = equalize(model, example)
    assert scaled == 0
    assert torch.equal(equalized(example), model(example))
    with pytest.raises(BuildError, match="equalized: the model has no two layers"):
        prepared(model, QuantizationVariant(equalized=True), frozenset({Preparation.EQUALIZE}), example.numpy())


def test_equalization_helps_a_depthwise_net_with_uneven_channels() -> None:
    model, example = example_of("separable")
    rows = torch.randn((64, *example.shape[1:]), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        # Ranges a thousand times apart, as batch norms of trained depthwise nets have them.
        factors = torch.logspace(-1.5, 1.5, len(model.depthwise1.weight))
        model.depthwise1.weight.mul_(factors[:, None, None, None])
        expected = model(rows)
        errors = [_relative_error(_per_tensor(net)(rows), expected) for net in (model, equalize(model, example)[0])]
    assert errors[1] < 0.5 * errors[0]


def _per_tensor(model: nn.Module) -> nn.Module:
    """All weights rounded by one step a tensor, where uneven channels hurt."""
    rounded = copy.deepcopy(model)
    for layer in (m for m in rounded.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        layer.weight.data = rounded_weight(layer.weight.data.flatten()[None]).reshape(layer.weight.shape)
    return rounded


def test_smoothed_transformer_computes_the_same() -> None:
    model, example = example_of("transformer")
    model = _with_drawn_norms(model)
    samples = torch.randn((8, *example.shape[1:]), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        smoothed, norms = smooth(model, samples.numpy(), 0.5)
        assert norms == 2
        assert _relative_error(smoothed(example), model(example)) < 1e-5


def test_smoothing_factors_by_hand() -> None:
    factors = smoothing_factors(torch.tensor([16.0, 1.0, 0.0]), torch.tensor([[1.0, -4.0, 1.0], [0.5, 2.0, 1.0]]), 0.5)
    # sqrt(16 / 1), sqrt(1 / 4), and 1 where a channel is zero.
    assert factors.tolist() == pytest.approx([4.0, 0.5, 1.0])
    moved = smoothing_factors(torch.tensor([16.0]), torch.tensor([[1.0]]), 1.0)
    assert moved.tolist() == pytest.approx([16.0])


@pytest.mark.parametrize("name", ["plain", "separable"])
def test_corrected_biases_keep_the_means_of_a_rounded_net(name: str) -> None:
    model, example = example_of(name)
    samples = torch.rand((64, *example.shape[1:]), generator=torch.Generator().manual_seed(3)) * 2
    corrected, layers = correct_biases(model, samples.numpy())
    assert layers == sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    with torch.no_grad():
        expected = model(samples).mean(dim=0)
        before, after = (_rounded(net)(samples).mean(dim=0) - expected for net in (model, corrected))
    assert float(after.abs().max()) < 1e-4 * float(expected.abs().max())
    assert float(before.abs().max()) > 10 * float(after.abs().max())


def test_bias_correction_by_hand() -> None:
    layer = nn.Linear(2, 1, bias=False)
    # Steps of 1 / 127: the second weight is rounded from 0.5 to 64 / 127.
    layer.weight.data = torch.tensor([[1.0, 0.5]])
    corrected, _ = correct_biases(nn.Sequential(layer), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    assert corrected[0].bias.item() == pytest.approx(-(64 / 127 - 0.5) * 3.0, rel=1e-4)
    assert torch.equal(corrected[0].weight, layer.weight)


def _rounded(model: nn.Module) -> nn.Module:
    rounded = copy.deepcopy(model)
    for layer in (m for m in rounded.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        layer.weight.data = rounded_weight(layer.weight.data)
    return rounded


def test_nothing_needed_is_the_model_itself() -> None:
    model, example = example_of("plain")
    variant = QuantizationVariant(bias_correction=BiasCorrection.SEQUENTIAL)
    assert prepared(model, variant, frozenset(), example.numpy()) is model
