"""Learning from a teacher: the dense model, or another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional

from edgeprune.data.parts import Tensors, outputs_of
from edgeprune.errors import InputError
from edgeprune.graph.modes import evaluating
from edgeprune.recovery.features import Taps

if TYPE_CHECKING:
    from torch import nn


SoftLabels = Literal["classes", "binary"]
"""What logits are of: classes, one of which is right (dimension 1), or yes and no for each output by itself."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distillation:
    """A teacher and its say in the loss: (1 - weight) labels + weight soft labels + feature_weight features.

    Attributes:
        teacher: outputs logits [batch, classes, ...], as the student does; left alone. Any other model may be the
            student, such as a smaller one.
        weight: share of the soft labels in the loss, in [0, 1]; the labels have the rest.
        temperature: both logits are divided by it.
        soft_labels: what the logits are of.
        features: (student's layer, teacher's layer) whose outputs are compared; widths that differ are bridged by
            adapters that are learned along and thrown away.
        feature_weight: of the features' mean difference, beside the rest of the loss.
    """

    teacher: nn.Module
    weight: float = 0.5
    temperature: float = 4.0
    soft_labels: SoftLabels = "classes"
    features: tuple[tuple[str, str], ...] = ()
    feature_weight: float = 1.0

    @property
    def learns_features(self) -> bool:
        """Whether layers are compared."""
        return bool(self.features) and self.feature_weight > 0

    @property
    def is_active(self) -> bool:
        """Whether the teacher has any say."""
        return self.weight > 0 or self.learns_features


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened outputs, times the square of the temperature.

    Args:
        student: logits, [batch, classes, ...], such as of each pixel.
        teacher: likewise, without a gradient.
        temperature: over 0; the higher, the more the small probabilities count.

    Returns:
        The mean over examples and pixels, a scalar, at least 0; 0 where both agree.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2, arXiv:1503.02531;
    the square keeps the gradient's size when the temperature changes.
    """
    soft_student = functional.log_softmax(student.float() / temperature, dim=1)
    soft_teacher = functional.log_softmax(teacher.float() / temperature, dim=1)
    divergence = functional.kl_div(soft_student, soft_teacher, reduction="none", log_target=True).sum(dim=1)
    return divergence.mean() * temperature**2


def binary_distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The same where each output is a yes or no by itself: divergence of two coins, times the temperature's square.

    Args:
        student: logits of yes, [batch, ...].
        teacher: likewise, without a gradient.
        temperature: over 0.

    Returns:
        The mean over all outputs, as `binary_cross_entropy_with_logits` has it; a scalar, at least 0.
    """
    ours, theirs = student.float() / temperature, teacher.float() / temperature
    # Of no and of yes, as two classes: the softmax of 0 and a logit is that logit's sigmoid.
    coin, model_coin = (torch.stack([torch.zeros_like(logits), logits], dim=1) for logits in (ours, theirs))
    return distillation_loss(coin, model_coin, 1.0) * temperature**2


@torch.no_grad()
def teacher_logits(teacher: nn.Module, inputs: Tensor, *, batch_size: int, bf16: bool = False) -> Tensor:
    """The teacher's outputs in eval mode, [examples, classes, ...], float32; its modules keep their modes."""
    with evaluating(teacher), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return torch.cat([scores_of(outputs_of(teacher(part))) for part in torch.split(inputs, batch_size)])


@torch.no_grad()
def teacher_hints(
    teacher: nn.Module, inputs: Tensor, layers: Sequence[str], *, bf16: bool = False
) -> tuple[Tensors, tuple[Tensor, ...]]:
    """The teacher's outputs for one batch and the outputs of some of its layers, in eval mode, float32."""
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=bf16)
    with evaluating(teacher), Taps(teacher, layers, "teacher") as taps, autocast:
        return outputs_of(teacher(inputs)), taps.take()


def scores_of(outputs: Tensors) -> Tensor:
    """The one output that soft labels are made of.

    Raises:
        InputError: there are several.
    """
    if isinstance(outputs, tuple):
        raise InputError(f"training: soft labels are of one output of class scores, got {len(outputs)} outputs")
    return outputs
