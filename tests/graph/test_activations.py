from __future__ import annotations

import copy
from functools import cache
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import PlainCnn, cut_groups_, example_of, seeded
from torch import Tensor, nn

from edgeprune.graph.activations import model_activations
from edgeprune.graph.groups import ChannelGroup, find_groups
from edgeprune.records.memory import OpenSchedule


def test_the_tensors_of_a_plain_net_by_hand() -> None:
    model = seeded(PlainCnn)
    example = torch.zeros(1, 3, 8, 8)
    groups = find_groups(model, example).groups
    schedule = model_activations(model, example, groups)
    # Activations and the flatten are no tensors of their own.
    assert [(t.fixed, t.by_group, t.first, t.last) for t in schedule.tensors] == [
        (192, (), 0, 3),
        (0, (("conv1", 64),), 0, 1),
        (0, (("conv2", 16),), 1, 2),
        (0, (("hidden", 1),), 2, 3),
        (5, (), 3, 3),
    ]
    # The second convolution: the input that the caller holds, 12 channels of 8x8, 10 of 4x4, 4 bytes each.
    assert schedule.peak_bytes({"conv1": 12, "conv2": 10, "hidden": 14}) == 4 * (192 + 12 * 64 + 10 * 16)
    # With a single channel there the head of it is the most.
    assert schedule.peak_bytes({"conv1": 1, "conv2": 10, "hidden": 200}) == 4 * (192 + 10 * 16 + 200)
    # A removed block's group is gone.
    assert schedule.peak_bytes({"conv2": 10, "hidden": 14}) == 4 * (192 + 10 * 16 + 14)


class Shortcut(nn.Module):
    """A residual block whose shortcut pads channels, as ResNet-20's does, within a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.inner = nn.Sequential(nn.GELU(), nn.Conv2d(8, 8, 3, padding=1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.up(x) + nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        # One activation of a convolution, which is fused, and one that somebody else reads the input of.
        y = torch.sigmoid(y) * self.inner(y)
        return self.head(y.mean((2, 3)))


def test_the_calls_that_no_table_prices_by_hand() -> None:
    example = torch.zeros(1, 3, 8, 8)
    model = seeded(Shortcut)
    schedule = model_activations(model, example, find_groups(model, example).groups)
    stem, inner = 4 * 64, 8 * 16
    assert [(c.name, c.layer, c.elements({"stem": 4, "up": 8})) for c in schedule.calls] == [
        ("constant_pad_nd", "", stem + 8 * 16),
        ("sigmoid", "", 2 * inner),
        ("gelu", "inner.0", 2 * inner),
        ("mul", "", 3 * inner),
        ("mean", "", inner + 8),
    ]
    assert {c.name: dict(c.by_group) for c in schedule.calls}["constant_pad_nd"] == {"stem": 64 + 16}


@cache
def opened(name: str) -> tuple[nn.Module, Tensor, tuple[ChannelGroup, ...], OpenSchedule]:
    model, example = example_of(name)
    groups = find_groups(model, example).groups
    return model, example, groups, model_activations(model, example, groups)


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["densenet", "separable", "transformer"]), st.randoms(use_true_random=False))
def test_a_cut_model_makes_what_was_predicted(name: str, random: Random) -> None:
    """Law: the schedule at widths is that of the model which was cut to them.

    But for attention with one head left, which torch reshapes without the copy that more heads need.
    """
    model, example, groups, schedule = opened(name)
    widths = {g.name: g.at_least(random.randint(2 * g.unit if g.unit > 1 else 1, g.width)) for g in groups}
    cut = copy.deepcopy(model)
    cut_groups_(cut, example, {g.name: range(g.width - widths[g.name]) for g in groups})
    found = model_activations(cut, example, ())
    assert [t.elements(widths) for t in schedule.tensors] == [t.fixed for t in found.tensors]
    named = [(c.name, c.layer, c.elements(widths)) for c in schedule.calls]
    assert named == [(c.name, c.layer, c.fixed) for c in found.calls]
    assert schedule.peak_bytes(widths) == found.peak_bytes({})
    assert schedule.peak_bytes(widths) <= schedule.peak_bytes({g.name: g.width for g in groups})


class LooksAtValues(nn.Module):
    """Its forward needs numbers, not only shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Conv2d(4, 2, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(x if float(x.detach().sum()) > 0 else -x)


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_looks_at_values_is_run_with_values() -> None:
    model, example = seeded(LooksAtValues), torch.zeros(1, 3, 8, 8)
    groups = find_groups(model, example).groups
    schedule = model_activations(model, example, groups)
    assert next(t.by_group for t in schedule.tensors if t.by_group) == (("conv", 36),)
