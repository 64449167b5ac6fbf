from __future__ import annotations

import pytest
from torch.nn import functional

from edgeprune.errors import InputError
from edgeprune.recovery.losses import resolve_loss


@pytest.mark.parametrize("name", ["cross_entropy", "mse_loss", "nll_loss"])
def test_losses_of_torch_are_found(name: str) -> None:
    assert resolve_loss(name) is getattr(functional, name)


@pytest.mark.parametrize(("name", "closest"), [("cross_entropi", "cross_entropy"), ("mse", "mse_loss")])
def test_unknown_loss_is_told_with_the_closest(name: str, closest: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{closest}'"):
        resolve_loss(name)


@pytest.mark.parametrize("name", ["relu", "warnings", "__name__", "softmax"])
def test_what_is_no_loss_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="has no loss"):
        resolve_loss(name)
