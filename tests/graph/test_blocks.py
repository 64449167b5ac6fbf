from __future__ import annotations

import pytest
import torch
from models import example_of, seeded
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.blocks import find_blocks, remove_blocks
from edgeprune.graph.groups import ChannelGroup, find_groups


class Inverted(nn.Module):
    """As in MobileNetV2: wide inside, nothing after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, 3 * channels, 1)
        self.norm = nn.BatchNorm2d(3 * channels)
        self.back = nn.Conv2d(3 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.back(functional.relu6(self.norm(self.wide(x))))
        return y


class NoShortcut(nn.Module):
    """Keeps its shape, but nothing of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


def _net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 1), Inverted(8), NoShortcut(), nn.Sequential(Inverted(8), Inverted(8)))


def _encoder(*, norm_first: bool) -> nn.Module:
    layers = [
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=norm_first, dropout=0.0) for _ in range(2)
    ]
    return nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), *layers, nn.Linear(16, 3))


def test_blocks_of_a_resnet_that_keep_their_shape() -> None:
    model, example = example_of("resnet")
    found = find_blocks(model, example, find_groups(model, example).groups)
    assert "layer1.0" in found.removable
    assert "layer1" not in found.removable
    # It halves the pixels: its shortcut is a convolution.
    assert "layer2.0" not in found.removable
    assert not found.refused


def test_only_what_has_a_shortcut_is_a_block_and_stages_are_not() -> None:
    assert find_blocks(seeded(_net), torch.randn(1, 3, 4, 4)).removable == ("1", "3.0", "3.1")


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_layers_are_blocks_wherever_their_norms_stand(*, norm_first: bool) -> None:
    model = seeded(lambda: _encoder(norm_first=norm_first))
    assert find_blocks(model, torch.randn(1, 5, 16)).removable == ("2", "3")


def test_without_a_block_the_rest_computes_as_if_it_gave_its_input_on() -> None:
    model, x = seeded(_net), torch.randn(2, 3, 4, 4)
    rest = remove_blocks(model, ["1", "3.1"])
    expected = model[3][0](model[2](model[0](x)))
    assert torch.equal(rest(x), expected)
    assert isinstance(model[1], Inverted)
    assert sum(p.numel() for p in rest.parameters()) < sum(p.numel() for p in model.parameters())


def test_an_ignored_layer_keeps_its_block() -> None:
    found = find_blocks(seeded(_net), torch.randn(1, 3, 4, 4), ignored=["3.0.wide"])
    assert found.removable == ("1", "3.1")
    assert [(b.name, b.reason) for b in found.refused] == [("3.0", "pruning.ignored keeps its layer '3.0.wide'")]


def test_a_block_with_a_layer_that_is_needed_stays_and_names_the_key() -> None:
    needed = {"3.0.wide": "recovery.features", "3.1": "recovery.features"}
    found = find_blocks(seeded(_net), torch.randn(1, 3, 4, 4), needed=needed)
    # What stands where a whole block was still gives an output of that name.
    assert found.removable == ("1", "3.1")
    assert [(b.name, b.reason) for b in found.refused] == [("3.0", "recovery.features names its layer '3.0.wide'")]


def test_a_group_that_starts_in_a_block_and_goes_on_outside_keeps_it() -> None:
    group = ChannelGroup(
        name="1.back", width=8, layers=("1.back", "2.conv"), consumers=("3.0.wide",), kind="conv", kernel=(1, 1)
    )
    found = find_blocks(seeded(_net), torch.randn(1, 3, 4, 4), [group])
    assert found.removable == ("3.0", "3.1")
    assert "start in it and go on outside" in found.refused[0].reason


class Asks(nn.Module):
    """Looks into its block, as some encoders do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.block = Inverted(8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(self.stem(x)) * self.block.wide.out_channels
        return y


def test_a_block_that_the_model_looks_into_stays_and_says_why() -> None:
    found = find_blocks(seeded(Asks), torch.randn(1, 3, 4, 4))
    assert found.removable == ()
    assert "has no attribute 'wide'" in found.refused[0].reason


def test_names_that_are_not_there_are_refused() -> None:
    with pytest.raises(BuildError, match="no block '9'"):
        remove_blocks(seeded(_net), ["9"])
    with pytest.raises(InputError, match=r"pruning\.ignored"):
        find_blocks(seeded(_net), torch.randn(1, 3, 4, 4), ignored=["nothing"])
