"""Losses by name, and those for classes of unequal size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.data.parts import Tensors
from edgeprune.errors import InputError
from edgeprune.registry import suggest

if TYPE_CHECKING:
    import numpy as np

Loss = Callable[[Tensors, Tensors], Tensor]

FOCAL = "focal"
_CROSS_ENTROPY = "cross_entropy"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FocalLoss:
    """Cross entropy in which an example counts the less the surer the model is of it: -w_t (1 - p_t)^gamma log p_t.

    The mean is over all examples, not over the sum of their weights as in `torch.nn.functional.cross_entropy`: so
    the loss of a single example keeps its weight, and the parts of a batch add up to the whole.

    Attributes:
        gamma: 0 is plain cross entropy.
        class_weights: one a class; empty for 1 each.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equations 4 and 5, arXiv:1708.02002.
    """

    gamma: float = 2.0
    class_weights: tuple[float, ...] = ()

    def __call__(self, outputs: Tensors, labels: Tensors) -> Tensor:
        """The mean, a scalar.

        Args:
            outputs: logits, [batch, classes, ...].
            labels: integers, [batch, ...].

        Raises:
            InputError: there are several outputs, or several labels an example.
        """
        if isinstance(outputs, tuple) or isinstance(labels, tuple):
            raise InputError("training.loss: focal loss and class weights are for one output and one label an example")
        logarithm = functional.log_softmax(outputs, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
        loss = -logarithm
        if self.gamma:
            loss = loss * (1 - logarithm.exp()).pow(self.gamma)
        if self.class_weights:
            loss = loss * torch.tensor(self.class_weights, dtype=loss.dtype)[labels]
        return loss.mean()


def resolve_loss(name: str, *, class_weights: Sequence[float] = (), focal_gamma: float = 2.0) -> Loss:
    """A loss of (outputs, labels): `focal`, or one of `torch.nn.functional`.

    Args:
        name: of the loss.
        class_weights: one a class, for `cross_entropy` and `focal`; empty for 1 each.
        focal_gamma: of `focal`.

    Raises:
        InputError: there is no such loss (the message has the known names and the closest), or it takes no weights.
    """
    if name == FOCAL:
        return FocalLoss(gamma=focal_gamma, class_weights=tuple(class_weights))
    known = tuple(n for n in sorted(vars(functional)) if n.endswith(("_loss", "cross_entropy", "kl_div")))
    known = (*(n for n in known if not n.startswith("_")), FOCAL)
    if name not in known:
        raise InputError(f"training.loss: torch.nn.functional has no loss {name!r}{suggest(name, known)}", name=name)
    if class_weights:
        if name != _CROSS_ENTROPY:
            raise InputError(
                f"training.class_weights: expected the loss {_CROSS_ENTROPY} or {FOCAL}, which take them, got {name}",
                name=name,
            )
        return FocalLoss(gamma=0.0, class_weights=tuple(class_weights))
    loss: Loss = getattr(functional, name)
    return loss


def balanced_class_weights(labels: np.ndarray | Tensor) -> tuple[float, ...]:
    """One weight a class, such that all classes that occur count alike in the sum and an example counts 1 on average.

    Args:
        labels: of the training split, integers from 0.

    Returns:
        examples / (classes that occur * examples of the class); 0 for a class without any.
    """
    counts = torch.bincount(torch.as_tensor(labels).flatten())
    occurring = int((counts > 0).sum())
    return tuple(float(counts.sum() / (occurring * count)) if count else 0.0 for count in counts)
