"""Losses by name, and those for classes of unequal size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.data.parts import Tensors, parts_of
from edgeprune.data.splits import VOID
from edgeprune.errors import InputError
from edgeprune.registry import suggest

if TYPE_CHECKING:
    import numpy as np

Loss = Callable[[Tensors, Tensors], Tensor]

FOCAL = "focal"
_CROSS_ENTROPY = "cross_entropy"
_LIKELIHOOD = "nll_loss"

BINARY = "binary_cross_entropy_with_logits"
"""Yes or no for each output by itself: several labels an example, or whether an object is there."""

_OF_CLASSES: Final = (_CROSS_ENTROPY, _LIKELIHOOD)
"""Those of torch that leave VOID out; to the others -100 is a value like any."""

_OF_TORCH: Final = (
    "binary_cross_entropy",
    BINARY,
    _CROSS_ENTROPY,
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    _LIKELIHOOD,
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
)
"""Those of `torch.nn.functional` that take outputs and labels and need nothing else, such as lengths or a variance."""

_OF_ALL_LABELS: Final = tuple(getattr(functional, name) for name in _OF_TORCH if name not in _OF_CLASSES)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FocalLoss:
    """Cross entropy in which a label counts the less the surer the model is of it: -w_t (1 - p_t)^gamma log p_t.

    The mean is over all labels that are not VOID, not over the sum of their weights as in
    `torch.nn.functional.cross_entropy`: so the loss of a single example keeps its weight, and the parts of a batch add
    up to the whole.

    Attributes:
        gamma: 0 is plain cross entropy.
        class_weights: one a class; empty for 1 each.

    Source: Lin et al. 2017, "Focal Loss for Dense Object Detection", equations 4 and 5, arXiv:1708.02002.
    """

    gamma: float = 2.0
    class_weights: tuple[float, ...] = ()

    def __call__(self, outputs: Tensors, labels: Tensors) -> Tensor:
        """The mean, a scalar; 0 where no label counts.

        Args:
            outputs: logits, [batch, classes, ...].
            labels: integers, [batch, ...].

        Raises:
            InputError: there are several outputs, or several labels an example.
        """
        outputs, labels = _one_each(outputs, labels, "focal loss and class weights are")
        counted = labels != VOID
        # What stands at VOID is taken out before any arithmetic: 0 times an infinite gradient would be NaN.
        labels = labels[counted]
        logarithms = functional.log_softmax(outputs.movedim(1, -1)[counted], dim=1)
        logarithm = logarithms.gather(1, labels.unsqueeze(1)).squeeze(1)
        loss = -logarithm
        if self.gamma:
            # Not down to 0, where a power below 1 has an infinite slope: 0 times it would be NaN.
            doubt = (1 - logarithm.exp()).clamp_min(torch.finfo(loss.dtype).tiny)
            loss = loss * doubt.pow(self.gamma)
        if self.class_weights:
            loss = loss * torch.tensor(self.class_weights, dtype=loss.dtype)[labels]
        return loss.sum() / max(1, len(loss))


@dataclass(frozen=True, slots=True)
class LossOfClasses:
    """`cross_entropy` or `nll_loss` of torch, which leave VOID out; 0 where no label counts, of which theirs is NaN.

    Attributes:
        name: in `torch.nn.functional`.
    """

    name: str

    def __call__(self, outputs: Tensors, labels: Tensors) -> Tensor:
        """The mean, a scalar; arguments and errors are those of `FocalLoss`, and labels may be probabilities."""
        outputs, labels = _one_each(outputs, labels, f"{self.name} is")
        loss: Callable[..., Tensor] = getattr(functional, self.name)
        return loss(outputs, labels, reduction="mean" if bool((labels != VOID).any()) else "sum")


@dataclass(frozen=True, slots=True)
class OwnLoss:
    """A loss of somebody's own; 0 where no label counts and it is no number, as torch's mean over none of them is.

    Attributes:
        function: of (outputs, labels). Where there are several arrays of labels, what counts is its own to say.
    """

    function: Loss

    def __call__(self, outputs: Tensors, labels: Tensors) -> Tensor:
        """What the function says, or 0 with gradients of 0."""
        found = self.function(outputs, labels)
        # What is no tensor is refused by whoever checks the target.
        if not isinstance(found, torch.Tensor) or bool(found.isfinite().all()):
            return found
        return no_loss(outputs) if not isinstance(labels, tuple) and all_void(labels) else found


def no_loss(outputs: Tensors) -> Tensor:
    """0 with gradients of 0, in the place of a mean over no labels, which is NaN."""
    return torch.stack([part.sum() for part in parts_of(outputs)]).sum() * 0


def all_void(labels: Tensors) -> bool:
    """Whether there is an array of class indices of which none counts: a mean over them is NaN."""
    return any(not (part.is_floating_point() or bool((part != VOID).any())) for part in parts_of(labels))


def resolve_loss(name: str, *, class_weights: Sequence[float] = (), focal_gamma: float = 2.0) -> Loss:
    """A loss of (outputs, labels): `focal`, or one of `torch.nn.functional`.

    Args:
        name: of the loss.
        class_weights: one a class, for `cross_entropy` and `focal`; empty for 1 each.
        focal_gamma: of `focal`.

    Raises:
        InputError: there is no such loss of outputs and labels alone (the message has the known names and the closest),
            or it takes no weights.
    """
    if name == FOCAL:
        return FocalLoss(gamma=focal_gamma, class_weights=tuple(class_weights))
    known = (*_OF_TORCH, FOCAL)
    if name not in known:
        raise InputError(
            f"training.loss: no loss {name!r} of outputs and labels alone{suggest(name, known)}; any other is a "
            "function of (outputs, labels) in your own file: file.py:function",
            name=name,
        )
    if class_weights:
        if name != _CROSS_ENTROPY:
            raise InputError(
                f"training.class_weights: expected the loss {_CROSS_ENTROPY} or {FOCAL}, which take them, got {name}",
                name=name,
            )
        return FocalLoss(gamma=0.0, class_weights=tuple(class_weights))
    if name in _OF_CLASSES:
        return LossOfClasses(name)
    loss: Loss = getattr(functional, name)
    return loss


def counted_labels(loss: Loss, labels: Tensors) -> Tensor:
    """How many labels of each example a loss takes its mean over; 1 where all examples count alike.

    A loss of one's own is taken to leave out the VOID of class indices, as torch's cross entropy does.

    Args:
        loss: of the training.
        labels: of all its examples.

    Returns:
        [examples], integers.
    """
    if isinstance(labels, tuple) or labels.is_floating_point() or loss in _OF_ALL_LABELS:
        return torch.ones(len(parts_of(labels)[0]), dtype=torch.int64)
    return (labels != VOID).reshape(len(labels), -1).sum(dim=1)


def balanced_class_weights(labels: np.ndarray | Tensor) -> tuple[float, ...]:
    """One weight a class, such that all classes that occur count alike in the sum and a label counts 1 on average.

    Args:
        labels: of the training split, integers from 0, or VOID, which counts for nothing; of any shape.

    Returns:
        labels / (classes that occur * labels of the class); 0 for a class without any.
    """
    flat = torch.as_tensor(labels).long().flatten()
    counts = torch.bincount(flat[flat != VOID])
    occurring = int((counts > 0).sum())
    return tuple(float(counts.sum() / (occurring * count)) if count else 0.0 for count in counts)


def _one_each(outputs: Tensors, labels: Tensors, which: str) -> tuple[Tensor, Tensor]:
    if isinstance(outputs, tuple) or isinstance(labels, tuple):
        raise InputError(f"training.loss: {which} for one output and one label an example")
    return outputs, labels
