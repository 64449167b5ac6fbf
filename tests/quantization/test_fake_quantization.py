"""Rounding in torch, and training that knows of it."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import example_of, seeded
from torch import nn
from torch.nn import functional

from edgeprune.quantization.fake_quantization import FakeQuantization
from edgeprune.quantization.rounding import activation_step, rounded_activation, rounded_weight, weight_scales

FLOATS = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)


@given(values=st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_weights_are_rounded_by_at_most_half_a_step(values: list[tuple[float, float, float]]) -> None:
    weight = torch.tensor(values)
    error = (weight - rounded_weight(weight)).abs()
    assert bool((error <= weight_scales(weight)[:, None] / 2 * (1 + 1e-4) + 1e-30).all())
    assert bool((rounded_weight(weight)[weight == 0] == 0).all())


@given(values=st.lists(FLOATS, min_size=1, max_size=8), low=FLOATS, high=FLOATS)
@settings(max_examples=40, deadline=None)
def test_activations_in_range_are_rounded_by_at_most_half_a_step(values: list[float], low: float, high: float) -> None:
    low, high = min(low, high), max(low, high)
    step, zero_point = activation_step(low, high)
    assert -128 <= zero_point <= 127
    tensor = torch.tensor(values)
    # The zero point is a whole number, so a range may be moved by half a step.
    inside = (tensor >= min(low, 0.0) + step / 2) & (tensor <= max(high, 0.0) - step / 2)
    error = (tensor - rounded_activation(tensor, low, high)).abs()
    assert bool((error[inside] <= step / 2 * (1 + 1e-3) + 1e-6 * tensor[inside].abs()).all())


def test_gradient_passes_rounding_and_stops_at_clipping() -> None:
    values = torch.tensor([-3.0, 0.3, 0.9, 3.0], requires_grad=True)
    rounded_activation(values, -1.0, 1.0).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["resnet", "transformer", "separable"])
def test_rounds_while_it_lasts_and_leaves_the_model_as_it_was(name: str) -> None:
    model, example = example_of(name)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(example)
        with FakeQuantization(model):
            assert dict(model.named_parameters()).keys() == dict(copy.deepcopy(model).named_parameters()).keys()
            found = model(example)
        assert not torch.equal(found, expected)
        assert float((found - expected).abs().max()) < 0.2 * float(expected.abs().max())
        assert torch.equal(model(example), expected)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_parameters_are_back_after_a_failure() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 2)))
    with FakeQuantization(model), pytest.raises(RuntimeError):
        model(torch.ones(1, 4))
    assert isinstance(model[0].weight, nn.Parameter)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]


def test_all_weights_learn_and_ranges_follow_the_batches() -> None:
    model, example = example_of("transformer")
    model.train()
    with FakeQuantization(model):
        model(10 * example).sum().backward()
        assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters() if p.dim() > 1)
        model.eval()
        with torch.no_grad():
            # Values far over the range that was learnt are clipped: they come out as if they were at its end.
            assert torch.isfinite(model(1000 * example)).all()


def test_ranges_are_of_the_whole_batch_where_workers_have_shares() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(2, 2))).train()
    # The other worker has values between -4 and 0.5.
    with FakeQuantization(model, lambda mine: torch.maximum(mine, mine.new_tensor([4.0, 0.5]))) as rounding:
        model(torch.tensor([[-1.0, 2.0]]))
    assert {name: bounds.tolist() for name, bounds in rounding.ranges().items()} == {"0": [-4.0, 2.0]}


def test_ranges_that_were_told_are_gone_on_from() -> None:
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))).train()
    inputs = torch.randn((8, 3), generator=torch.Generator().manual_seed(0))
    with FakeQuantization(model) as rounding, torch.no_grad():
        model(inputs)
        told, expected = rounding.ranges(), model.eval()(inputs)
    with FakeQuantization(model) as rounding, torch.no_grad():
        assert not torch.equal(model(inputs), expected)
        rounding.set_ranges(told)
        assert torch.equal(model(inputs), expected)


def test_training_with_rounding_wins_what_float_training_cannot() -> None:
    teacher = seeded(lambda: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4)))
    inputs = torch.randn((512, 8), generator=torch.Generator().manual_seed(0))
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        wanted = teacher(inputs)
        # It computes what the teacher does, but one wide unit takes the steps from the others.
        student[0].weight[0] *= 60
        student[0].bias[0] *= 60
        student[2].weight[:, 0] /= 60
        assert float(functional.mse_loss(student(inputs), wanted)) < 1e-12
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    with FakeQuantization(student):
        losses = []
        for _ in range(150):
            student.train()
            loss = functional.mse_loss(student(inputs), wanted)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert losses[0] > 1e-4
    assert losses[-1] < 0.8 * losses[0]
