from __future__ import annotations

import pytest
import torch
from models import example_of

from edgeprune.errors import InputError
from edgeprune.pruning.rewinding import EarlyEnoughError, EarlyWeights


def _train(model: torch.nn.Module, example: torch.Tensor, early: EarlyWeights, steps: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(example).square().sum().backward()
        optimizer.step()
        early.after_step()


def test_weights_of_the_step_are_kept_while_training_goes_on() -> None:
    twice, example = example_of("resnet")
    more, _ = example_of("resnet")
    _train(twice.train(), example.repeat(4, 1, 1, 1), EarlyWeights(twice, 9), 2)
    early = EarlyWeights(more, 2)
    _train(more.train(), example.repeat(4, 1, 1, 1), early, 5)
    expected = twice.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in early.state.items())
    assert not torch.equal(more.state_dict()["fc.weight"], expected["fc.weight"])


def test_training_can_end_there_and_step_0_is_before_it() -> None:
    model, example = example_of("plain")
    first = {name: value.clone() for name, value in model.state_dict().items()}
    begun, early = EarlyWeights(model, 0), EarlyWeights(model, 2, end=True)
    with pytest.raises(EarlyEnoughError):
        _train(model, example, early, 5)
    assert all(torch.equal(value, first[name]) for name, value in begun.state.items())
    assert torch.equal(early.state["head.weight"], model.head.weight)


def test_a_step_that_training_never_came_to_is_told() -> None:
    model, example = example_of("plain")
    early = EarlyWeights(model, 3)
    _train(model, example, early, 1)
    with pytest.raises(InputError, match="at least 3 training steps, found 1"):
        _ = early.state
