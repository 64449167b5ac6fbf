from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from models import example_of
from torch import nn

from edgeprune.errors import InputError
from edgeprune.recovery.batchnorm import reestimate_


def test_statistics_are_those_of_the_data() -> None:
    inputs = 3 + 2 * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.BatchNorm1d(2)).eval()
    model[0].running_mean.fill_(100.0)
    reestimate_(model, inputs, batch_size=100)
    torch.testing.assert_close(model[0].running_mean, inputs.mean(dim=0))
    assert (model[0].running_var - inputs.var(dim=0)).abs().max() < 0.1
    assert model[0].momentum == 0.1
    assert not model.training
    assert not model[0].training


def test_weights_and_dropout_are_left_alone() -> None:
    model, _ = example_of("resnet")
    before = {n: p.clone() for n, p in model.named_parameters()}
    reestimate_(model, torch.randn(9, 3, 16, 16), batch_size=4)  # The last batch has one example.
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert int(model.bn.num_batches_tracked) == 2


@pytest.mark.parametrize("fails", [False, True])
def test_each_module_has_its_mode_and_momentum_back(*, fails: bool) -> None:
    model, _ = example_of("resnet")
    model.train()
    model.bn.eval()
    model.bn.momentum = 0.3
    before = _modes(model)
    inputs = torch.randn(4, 5 if fails else 3, 16, 16)
    with pytest.raises(RuntimeError) if fails else nullcontext():
        reestimate_(model, inputs)
    assert _modes(model) == before


def _modes(model: nn.Module) -> list[tuple[str, bool, float | None]]:
    return [(name, m.training, getattr(m, "momentum", None)) for name, m in model.named_modules()]


@pytest.mark.parametrize(("examples", "batch_size"), [(0, 256), (1, 256), (8, 1)])
def test_too_few_examples_for_a_variance_are_refused_and_change_nothing(examples: int, batch_size: int) -> None:
    model, _ = example_of("resnet")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(InputError, match=f"at least 2 examples.*got {examples} examples in batches of {batch_size}"):
        reestimate_(model, torch.randn(examples, 3, 16, 16), batch_size)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_model_without_batch_norm_is_left_alone() -> None:
    model, example = example_of("plain")
    before = copy.deepcopy(model.state_dict())
    reestimate_(model, example)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
