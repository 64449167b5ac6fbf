"""Training: the dense model from scratch, a student from a teacher, and every fine-tuning after a cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from edgeprune.data.parts import Tensors, label_tensors, parts_of
from edgeprune.errors import InputError
from edgeprune.events import Reporter
from edgeprune.protocols import Arrays, Validate
from edgeprune.recovery.distillation import teacher_logits
from edgeprune.recovery.evaluation import EVALUATION_BATCH, AccuracyOn, accuracy_of
from edgeprune.recovery.job import Job
from edgeprune.recovery.settings import (
    Augment,
    Checkpoint,
    EpochResult,
    FitResult,
    FitSettings,
    Workers,
    bf16_is_fast,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

__all__ = [
    "Augment",
    "Checkpoint",
    "EpochResult",
    "FitResult",
    "FitSettings",
    "Workers",
    "accuracy_of",
    "bf16_is_fast",
    "fit_",
]

_SCORES_ALONE = 2
"""Dimensions of [examples, classes]."""


def fit_(
    model: nn.Module,
    inputs: np.ndarray | Tensor,
    labels: Arrays | Tensors,
    settings: FitSettings,
    *,
    reporter: Reporter,
    stage: str,
    subject: str = "",
    validation: tuple[np.ndarray | Tensor, np.ndarray | Tensor] | None = None,
    validate: Validate | None = None,
    after_step: Callable[[], None] | None = None,
    checkpoint: Checkpoint | None = None,
    may_keep_start: bool = False,
) -> FitResult:
    """Train a model in place, with a fresh optimizer; the model is in eval mode afterwards.

    With validation the weights of the epoch that does best there are restored at the end (of equal ones the last).
    Never hand over test data as `validation`: the choice of an epoch would leak it. The same arguments give the same
    weights on the same machine with the same number of threads.

    Args:
        model: changed in place.
        inputs: [examples, ...], preprocessed.
        labels: [examples, ...], or a tuple of such; integers reach the loss as int64, all else as float32.
        settings: how to train.
        reporter: hears of the start, of batches a few times a second, and of the end.
        stage: name for the events.
        subject: what is trained, for the events.
        validation: inputs and classes [examples], for the accuracy.
        validate: for any other quality, in place of `validation`.
        after_step: called after each step of the optimizer, such as `WeightMasks.apply_`. With several workers each
            calls its own copy.
        checkpoint: keeps the state after each epoch; the same call after a kill goes on from there, to the same
            weights. One that was finished is not trained again.
        may_keep_start: whether the weights that the model comes with are kept where no epoch is better on validation
            data, as may be after a good refit; for a training from scratch it would ask in vain.

    Raises:
        BuildError: the loss is no longer finite (the message has epoch and batch), or a worker was killed.
        InputError: no examples, not one label an example, or a teacher that does not fit.
    """
    examples, targets = _tensors(inputs, labels)
    if validate is None and validation is not None:
        validate = _accuracy_on(*_tensors(*validation))
    if not settings.epochs:
        model.eval()
        return FitResult(epochs=(), best_epoch=None)
    job = Job(
        model=model,
        inputs=examples,
        labels=targets,
        settings=settings,
        stage=stage,
        subject=subject,
        validate=validate,
        after_step=after_step,
        checkpoint=checkpoint,
        soft_labels=_soft_labels(settings, examples),
        may_keep_start=may_keep_start,
    )
    from edgeprune.recovery.workers import run_alone_, run_in_workers_

    return run_in_workers_(job, reporter) if settings.workers.count > 1 else run_alone_(job, reporter)


def _soft_labels(settings: FitSettings, inputs: Tensor) -> Tensor | None:
    """The teacher's outputs for all examples, where they are the same in every epoch and no features are wanted.

    Not where an example's outputs take more memory than the example, as those of many classes a pixel: they are asked
    for batch by batch.
    """
    teacher = settings.distillation
    if teacher is None or not teacher.weight or teacher.learns_features or settings.augment is not None:
        return None
    of_one = teacher_logits(teacher.teacher, inputs[:1], batch_size=1)
    if of_one.dim() > _SCORES_ALONE and of_one.numel() > inputs[:1].numel():
        return None
    return teacher_logits(teacher.teacher, inputs, batch_size=EVALUATION_BATCH, bf16=settings.bf16)


def _accuracy_on(inputs: Tensor, labels: Tensors) -> AccuracyOn:
    if isinstance(labels, tuple):
        raise InputError(f"training: expected one class an example to validate by, got {len(labels)} label arrays")
    return AccuracyOn(inputs, labels)


def _tensors(inputs: np.ndarray | Tensor, labels: Arrays | Tensors) -> tuple[Tensor, Tensors]:
    examples, targets = torch.as_tensor(inputs), label_tensors(labels)
    for part in parts_of(targets):
        if len(examples) == 0 or len(examples) != len(part):
            raise InputError(f"training: expected examples and one label for each, got {len(examples)} and {len(part)}")
    return examples, targets
