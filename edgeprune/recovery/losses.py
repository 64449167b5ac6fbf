"""Losses by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from edgeprune.data.parts import Tensors
from edgeprune.errors import InputError
from edgeprune.registry import suggest

Loss = Callable[[Tensors, Tensors], Tensor]


def resolve_loss(name: str) -> Loss:
    """A loss of (outputs, labels) from `torch.nn.functional`.

    Raises:
        InputError: there is no such loss; the message has the known names and the closest.
    """
    known = tuple(n for n in sorted(vars(functional)) if n.endswith(("_loss", "cross_entropy", "kl_div")))
    known = tuple(n for n in known if not n.startswith("_"))
    if name not in known:
        raise InputError(f"training.loss: torch.nn.functional has no loss {name!r}{suggest(name, known)}", name=name)
    loss: Loss = getattr(functional, name)
    return loss
