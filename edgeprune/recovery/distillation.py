"""Learning from the dense model's soft labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Distillation:
    """A teacher and its say in the loss.

    Attributes:
        teacher: outputs logits [batch, classes], as the student does; left alone.
        weight: share of the soft labels in the loss, in [0, 1]; the labels have the rest.
        temperature: both logits are divided by it.
    """

    teacher: nn.Module
    weight: float = 0.5
    temperature: float = 4.0


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softened outputs, times the square of the temperature.

    Args:
        student: logits, [batch, classes].
        teacher: logits, [batch, classes], without a gradient.
        temperature: over 0; the higher, the more the small probabilities count.

    Returns:
        A scalar, at least 0; 0 where both agree.

    Source: Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network", section 2, arXiv:1503.02531;
    the square keeps the gradient's size when the temperature changes.
    """
    soft_student = functional.log_softmax(student.float() / temperature, dim=1)
    soft_teacher = functional.log_softmax(teacher.float() / temperature, dim=1)
    divergence = functional.kl_div(soft_student, soft_teacher, reduction="batchmean", log_target=True)
    return divergence * temperature**2


@torch.no_grad()
def teacher_logits(teacher: nn.Module, inputs: Tensor, *, batch_size: int, bf16: bool = False) -> Tensor:
    """The teacher's outputs in eval mode, [examples, classes], float32."""
    was_training = teacher.training
    teacher.eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = [teacher(part) for part in torch.split(inputs, batch_size)]
    teacher.train(was_training)
    return torch.cat([o.float() for o in outputs])
