"""A teacher's part in one training: its loss for each batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgeprune.data.parts import Tensors, outputs_of
from edgeprune.errors import InputError
from edgeprune.recovery.distillation import (
    Distillation,
    binary_distillation_loss,
    distillation_loss,
    scores_of,
    teacher_hints,
    teacher_logits,
)
from edgeprune.recovery.features import TappedStudent, feature_loss, make_adapters


class Teaching:
    """What a student learns from its teacher, batch by batch.

    Args:
        distillation: the teacher and its say; it has some.
        student: left in eval mode.
        example: one input, [1, ...].
        soft_labels: the teacher's outputs for all examples, where they were taken before.
        bf16: the teacher's forward pass in bfloat16.

    Raises:
        InputError: the teacher has several outputs, or not as many classes as the student.
    """

    def __init__(
        self, distillation: Distillation, student: nn.Module, example: Tensor, *, soft_labels: Tensor | None, bf16: bool
    ) -> None:
        self._chosen, self._soft_labels, self._bf16 = distillation, soft_labels, bf16
        self._distance = distillation_loss if distillation.soft_labels == "classes" else binary_distillation_loss
        if distillation.weight:
            theirs = teacher_logits(distillation.teacher, example, batch_size=1)
            with torch.no_grad():
                ours = scores_of(outputs_of(student.eval()(example)))
            if ours.shape != theirs.shape:
                raise InputError(
                    f"training: the teacher's outputs are {tuple(theirs.shape[1:])} an example, the student's "
                    f"{tuple(ours.shape[1:])}: soft labels need the same; a weight of 0 does without them"
                )

    def tapped(self, student: nn.Module, example: Tensor, seed: int) -> nn.Module:
        """The student with the features that are compared and their adapters; itself where there are none."""
        if not self._chosen.learns_features:
            return student
        adapters = make_adapters(student, self._chosen.teacher, self._chosen.features, example, seed)
        return TappedStudent(student, [ours for ours, _ in self._chosen.features], adapters)

    def loss(
        self, hard: Tensor, outputs: Tensors, features: tuple[Tensor, ...], batch: Tensor, chosen: Tensor
    ) -> Tensor:
        """The whole loss of a batch.

        Args:
            hard: what the labels say, a scalar, weighed as a mean over these examples is.
            outputs: of the student, float32.
            features: of the student, adapted.
            batch: what the student saw.
            chosen: the examples' numbers.
        """
        soft, hints = self._told(batch, chosen)
        loss = hard
        if soft is not None:
            distance = self._distance(scores_of(outputs), soft, self._chosen.temperature)
            loss = (1 - self._chosen.weight) * hard + self._chosen.weight * distance
        for feature, hint in zip(features, hints, strict=True):
            loss = loss + self._chosen.feature_weight * feature_loss(feature.float(), hint)
        return loss

    def _told(self, batch: Tensor, chosen: Tensor) -> tuple[Tensor | None, tuple[Tensor, ...]]:
        """The teacher's soft labels for a batch, and its features."""
        teacher = self._chosen.teacher
        if self._chosen.learns_features:
            layers = [theirs for _, theirs in self._chosen.features]
            outputs, hints = teacher_hints(teacher, batch, layers, bf16=self._bf16)
            return (scores_of(outputs) if self._chosen.weight else None), hints
        if self._soft_labels is not None:
            return self._soft_labels[chosen], ()
        return teacher_logits(teacher, batch, batch_size=len(batch), bf16=self._bf16), ()
