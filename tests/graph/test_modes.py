from __future__ import annotations

from contextlib import nullcontext

import pytest
from torch import nn

from edgeprune.graph.modes import evaluating


@pytest.mark.parametrize("fails", [False, True])
def test_each_module_has_its_own_mode_back(*, fails: bool) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout()).train()
    model[1].eval()
    with pytest.raises(ZeroDivisionError) if fails else nullcontext(), evaluating(model):
        assert not any(module.training for module in model.modules())
        _ = 1 / (not fails)
    assert [module.training for module in model.modules()] == [True, True, False, True]
