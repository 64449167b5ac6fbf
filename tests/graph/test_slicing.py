from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.errors import BuildError
from edgeprune.graph.attention import HeadwiseAttention
from edgeprune.graph.slicing import ChannelEdit, Side, all_headwise_, is_depthwise, output_weight, remove_channels_


def _cut(layer: nn.Module, side: Side, *indices: int) -> nn.Module:
    model = nn.Sequential(layer)
    remove_channels_(model, [ChannelEdit(layer="0", side=side, indices=indices)])
    return layer


def test_transposed_convolution_has_its_axes_swapped() -> None:
    layer = nn.ConvTranspose2d(4, 6, 3)
    before = layer.weight.detach().clone()
    _cut(layer, Side.OUT, 1)
    _cut(layer, Side.IN, 0, 3)
    assert torch.equal(layer.weight, before[[1, 2]][:, [0, 2, 3, 4, 5]])
    assert layer.bias is not None
    assert layer.bias.shape == (5,)
    assert layer(torch.zeros(1, 2, 4, 4)).shape == (1, 5, 6, 6)


class OwnAttention(nn.MultiheadAttention):
    def forward(self, *args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        output, shares = super().forward(*args, **kwargs)
        return 2 * output, shares


def test_attention_is_replaced_wherever_that_changes_nothing() -> None:
    shared = nn.MultiheadAttention(8, 2)
    others = [OwnAttention(8, 2), nn.MultiheadAttention(8, 2, kdim=6), nn.MultiheadAttention(8, 2, add_bias_kv=True)]
    model = nn.ModuleDict({"one": shared, "other": nn.ModuleList([shared]), "kept": nn.ModuleList(others)})
    names = [n for n, _ in model.named_parameters()]
    all_headwise_(model)
    assert isinstance(model["one"], HeadwiseAttention)
    assert model["other"][0] is model["one"]
    assert model["one"].out_proj is shared.out_proj
    assert [*model["kept"]] == others
    assert [n for n, _ in model.named_parameters()] == names
    all_headwise_(shared)
    assert isinstance(shared, nn.MultiheadAttention)


def test_layer_norm_keeps_the_order_of_many_channels() -> None:
    # torch-pruning 1.6.1 orders these as a Python set does.
    layer = nn.LayerNorm(300)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(300.0))
    removed = [i for i in range(300) if i % 37]
    _cut(layer, Side.BOTH, *removed)
    assert layer.weight.tolist() == [float(i) for i in range(0, 300, 37)]
    assert layer.normalized_shape == (9,)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm2d(6), (2, 4, 3, 3)),
        (nn.BatchNorm1d(6, affine=False), (2, 4)),
        (nn.InstanceNorm2d(6), (2, 4, 3, 3)),
        (nn.GroupNorm(1, 6), (2, 4, 3, 3)),
        (nn.GroupNorm(6, 6), (2, 4, 3, 3)),
        (nn.PReLU(6), (2, 4, 3, 3)),
        (nn.PReLU(), (2, 4, 3, 3)),
        (nn.Conv2d(6, 6, 3, groups=6, padding=1), (2, 4, 3, 3)),
    ],
    ids=str,
)
def test_layers_that_pass_channels_on_lose_both_sides(layer: nn.Module, shape: tuple[int, ...]) -> None:
    _cut(layer, Side.BOTH, 0, 5)
    assert layer(torch.randn(shape)).shape == shape


def test_embedding_loses_columns() -> None:
    layer = nn.Embedding(10, 6)
    _cut(layer, Side.BOTH, 2)
    assert layer(torch.tensor([1, 2])).shape == (2, 5)


def test_bare_parameter_is_cut_along_its_dimension() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.arange(4.0).reshape(1, 4, 1, 1))

    model = nn.ModuleDict({"inner": Scaled()})
    remove_channels_(model, [ChannelEdit(layer="inner.scale", side=Side.PARAMETER, indices=(1,), dimension=1)])
    assert model["inner"].scale.flatten().tolist() == [0.0, 2.0, 3.0]


def test_edits_of_one_layer_are_in_the_coordinates_from_before() -> None:
    layer = nn.Linear(5, 2)
    before = layer.weight.detach().clone()
    model = nn.Sequential(layer)
    edits = [ChannelEdit(layer="0", side=Side.IN, indices=i) for i in ((0,), (4,), (0, 1))]
    remove_channels_(model, edits)
    assert torch.equal(layer.weight, before[:, [2, 3]])


@pytest.mark.parametrize(
    ("layer", "side", "message"),
    [
        (nn.Conv2d(8, 8, 3, groups=2), Side.OUT, "the same channels to go from each of 2 groups"),
        (nn.GroupNorm(2, 8), Side.BOTH, "the same channels to go from each of 2 groups"),
        (nn.Bilinear(8, 8, 8), Side.BOTH, "Bilinear cannot be cut"),
        (nn.LayerNorm((8, 8)), Side.BOTH, "LayerNorm cannot be cut"),
    ],
    ids=str,
)
def test_what_cannot_be_cut_is_told(layer: nn.Module, side: Side, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        _cut(layer, side, 0)


def test_weight_that_makes_outputs_has_them_in_front() -> None:
    transposed = nn.ConvTranspose2d(4, 6, 3)
    weight = output_weight(transposed)
    assert weight is not None
    assert weight.shape == (6, 4, 3, 3)
    assert output_weight(nn.BatchNorm2d(3)) is None


def test_depthwise_needs_as_many_groups_as_inputs_and_outputs() -> None:
    assert is_depthwise(nn.Conv2d(4, 4, 3, groups=4))
    assert not is_depthwise(nn.Conv2d(4, 8, 3, groups=4))
    assert not is_depthwise(nn.Conv2d(1, 1, 3))
