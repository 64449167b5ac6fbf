from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import EXAMPLES, cut_groups_, example_of, seeded
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.graph.cost import count_macs
from edgeprune.graph.groups import find_groups
from edgeprune.graph.operators import model_operators
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.operators import WEIGHTLESS, ChannelPart, OperatorShape, OperatorUse


def _operators(model_name: str) -> dict[str, OperatorUse]:
    model, example = example_of(model_name)
    uses = model_operators(model, example, find_groups(model, example).groups)
    signs = {"add": "+", "average": "/"}
    return {u.layer + signs.get(u.shape.kind, ""): u for u in uses}


def test_convolutions_with_their_activation_and_a_flatten() -> None:
    found = _operators("plain")
    assert {n: u.shape.name for n, u in found.items()} == {
        "conv1": "conv3x3s1-3x12-e8-relu-in",
        "conv2": "conv3x3s2-12x10-e8-relu",
        "hidden": "linear-160x14-r1-relu",
        "head": "linear-14x5-r1",
    }
    # 16 inputs a channel after the flatten of 4x4 pixels.
    assert found["hidden"].in_parts == (ChannelPart(group="conv2", width=10, per_channel=16),)
    assert found["hidden"].out_parts == (ChannelPart(group="hidden", width=14),)
    assert found["hidden"].at({"conv2": 7, "hidden": 3}).name == "linear-112x3-r1-relu"
    assert found["head"].at({"hidden": 3, "conv2": 1}).name == "linear-3x5-r1"
    assert found["conv1"].in_parts == ()


def test_norms_are_folded_and_additions_stand_alone() -> None:
    found = _operators("resnet")
    assert found["layer1.0.conv1"].shape.name == "conv3x3s1-8x8-e16-relu"
    assert found["layer1.0.conv2"].shape.name == "conv3x3s1-8x8-e16"
    addition = found["layer1.0.conv2+"]
    assert addition.shape.name == "add-after3x3-8x8-e16-relu"
    assert addition.out_parts == found["layer1.0.conv2"].out_parts == found["stem"].out_parts
    assert addition.at({"stem": 5}).name == "add-after3x3-5x5-e16-relu"


def test_depthwise_channels_follow_the_layer_before() -> None:
    found = _operators("separable")
    depthwise = found["depthwise2"]
    assert depthwise.shape.name == "depthwise3x3s2-16x16-e8-relu"
    assert depthwise.in_parts == depthwise.out_parts == (ChannelPart(group="pointwise1", width=16),)
    assert depthwise.at({"pointwise1": 5}).groups == 5
    assert found["pointwise2"].shape.activation == "hardswish"


class _Averages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3, padding=1)
        self.gate = nn.Conv2d(16, 16, 1)
        self.line = nn.Conv1d(16, 12, 1)
        self.head = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.body(x))
        x = x * torch.sigmoid(self.gate(functional.adaptive_avg_pool2d(x, 1)))
        x = functional.avg_pool2d(x, 2)
        x = self.line(x.flatten(2)).mean(-1)
        # Of each token's features, and of the tokens: no channel's pixels.
        return self.head(x[:, None]).mean(2) + self.head(x[:, None]).mean(1).mean(0)[:1]


def test_averages_of_all_pixels_stand_alone_and_follow_the_layer_before() -> None:
    model, example = _Averages().eval(), torch.zeros(1, 3, 8, 8)
    uses = model_operators(model, example, find_groups(model, example, ignored=()).groups)
    averages = [u for u in uses if u.shape.kind == "average"]
    assert [(u.layer, u.shape.name) for u in averages] == [
        ("body", "average-16x16-e8"),
        ("line", "average-12x12-e16"),
    ]
    assert averages[0].in_parts == averages[0].out_parts == uses[0].out_parts != ()
    assert averages[0].at({uses[0].groups[0]: 5}).name == "average-5x5-e8"
    assert averages[0].shape.out_extent == (1, 1)


class _Attention(nn.Module):
    """Over the pixels, of which there are as many as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return x * torch.sigmoid(x.mean(1, keepdim=True))


def test_a_mean_over_channels_is_no_average_of_each() -> None:
    uses = model_operators(_Attention().eval(), torch.zeros(1, 3, 4, 4), ())
    assert [use.shape.kind for use in uses] == ["conv"]


def test_concatenated_groups_are_parts() -> None:
    grow3 = _operators("densenet")["grow3.2"]
    assert grow3.shape.activation == ""
    assert {(p.group, p.per_channel) for p in grow3.in_parts} == {("stem", 1), ("grow1.2", 1), ("grow2.2", 1)}
    assert grow3.at({"stem": 1, "grow1.2": 2}).in_channels == 14 - 5 - 2


def test_linears_over_rows() -> None:
    found = _operators("transformer")
    assert found["up"].shape.name == "linear-16x40-r6-gelu"
    assert found["down"].in_parts == (ChannelPart(group="up", width=40),)
    assert found["down+"].shape.name == "add-16x16-r6"


class _Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 2, stride=2)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2, dilation=2, padding="same")

    def forward(self, x: Tensor) -> Tensor:
        x = functional.hardtanh(self.up(x), 0.0, 6.0)
        return self.grouped(x) + self.grouped(x)


def test_what_no_table_can_price_says_so() -> None:
    up, first, second, addition = model_operators(seeded(_Odd), torch.zeros(1, 3, 4, 4), ())
    assert up.unsupported == "a transposed convolution"
    assert up.shape.activation == "relu6"
    assert first == second
    assert first.shape.name == "conv3x3s1-4x8-e8-p2-d2-g2"
    assert not first.unsupported
    assert addition.shape.name == "add-after3x3-8x8-e8"


def test_an_encoder_layer_of_torch() -> None:
    model = seeded(lambda: nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 2)))
    names = [u.shape.name for u in model_operators(model, torch.zeros(1, 5, 16), ())]
    assert "linear-16x32-r5-relu" in names
    assert torch.backends.mha.get_fastpath_enabled()


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["plain", "resnet", "densenet", "separable"]), st.data())
def test_shapes_at_widths_are_those_of_the_cut_model(model_name: str, data: st.DataObject) -> None:
    model, example = example_of(model_name)
    groups = find_groups(model, example).groups
    before = model_operators(model, example, groups)
    widths = {g.name: data.draw(st.integers(1, g.width), label=g.name) for g in groups}
    cut_groups_(model, example, {g.name: range(widths[g.name], g.width) for g in groups})
    after = model_operators(model, example, ())
    assert [u.at(widths) for u in before] == [u.shape for u in after]


@pytest.mark.parametrize("batch_first", [True, False])
def test_heads_narrow_both_projections_of_attention(*, batch_first: bool) -> None:
    model = seeded(lambda: nn.Sequential(nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first), nn.Flatten(0)))
    example = torch.randn((1, 5, 16) if batch_first else (5, 1, 16))
    uses = model_operators(model, example, find_groups(model, example).groups)
    found = {u.layer: u for u in uses if u.shape.kind == "linear"}
    assert found["0.self_attn"].shape.name == "linear-16x48-r5"
    assert found["0.self_attn"].at({"0.self_attn": 36}).name == "linear-16x36-r5"
    assert found["0.self_attn.out_proj"].at({"0.self_attn": 36}).in_channels == 12
    dense = count_macs(model, example)
    assert dense == 5 * (16 * 48 + 16 * 16 + 2 * 16 * 32)
    cut_groups_(model, example, {"0.self_attn": [r for part in (0, 16, 32) for r in range(part, part + 4)]})
    assert dense - count_macs(model, example) == 5 * (16 * 12 + 4 * 16)


@pytest.mark.parametrize("model_name", EXAMPLES)
def test_layers_hold_all_counted_work(model_name: str) -> None:
    model, example = example_of(model_name)
    shapes = [u.shape for u in model_operators(model, example, ()) if u.shape.kind not in WEIGHTLESS]
    assert sum(_macs(s) for s in shapes) == count_macs(model, example)


def _macs(shape: OperatorShape) -> int:
    work = shape.in_channels * shape.out_channels // shape.groups
    for size in shape.kernel + shape.out_extent:
        work *= size
    return work * shape.rows


def test_shapes_are_kept_as_json() -> None:
    use = _operators("plain")["hidden"]
    assert from_json(OperatorUse, to_json(use)) == use
    assert {use.shape: 1}[from_json(OperatorShape, to_json(use.shape))] == 1
