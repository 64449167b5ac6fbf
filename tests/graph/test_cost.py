from __future__ import annotations

import torch
from models import example_of, seeded
from torch import nn

from edgeprune.graph.cost import count_macs, count_parameters


def test_convolution_macs_by_hand() -> None:
    model = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    assert count_macs(model, torch.zeros(1, 3, 8, 8)) == 4 * 4 * 8 * 3 * 9


def test_depthwise_and_transposed_macs_by_hand() -> None:
    depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    assert count_macs(depthwise, torch.zeros(1, 6, 5, 5)) == 5 * 5 * 6 * 9
    transposed = nn.ConvTranspose2d(4, 6, 2, stride=2)
    assert count_macs(transposed, torch.zeros(1, 4, 5, 5)) == 5 * 5 * 4 * 6 * 4


def test_linear_over_tokens_and_batch() -> None:
    assert count_macs(nn.Linear(5, 7), torch.zeros(2, 3, 5)) == 2 * 3 * 5 * 7


def test_layer_called_twice_counts_twice() -> None:
    layer = nn.Linear(4, 4)
    assert count_macs(nn.Sequential(layer, layer), torch.zeros(1, 4)) == 32


def test_model_is_left_alone() -> None:
    model, example = example_of("resnet")
    model.train()
    before = model.bn.running_mean.clone()
    count_macs(model, example)
    assert model.training
    assert torch.equal(model.bn.running_mean, before)
    assert not model.stem._forward_hooks


def test_shared_parameters_count_once() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    model[1].weight = model[0].weight
    assert count_parameters(model) == 16 + 4 + 4
