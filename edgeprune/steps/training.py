"""From a target's file to a training: its settings, who teaches, and where its state is kept meanwhile."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.finetune import Augment, Checkpoint, FitSettings, Workers, bf16_is_fast
from edgeprune.recovery.rates import RateSchedule
from edgeprune.schema.training import Recovery
from edgeprune.steps.feature_layers import feature_pairs
from edgeprune.steps.inputs import code_digest
from edgeprune.steps.target_code import import_files, imported_files
from edgeprune.steps.task import loss_of, soft_labels_of
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import nn

_CHECKPOINTS = ".checkpoints"

CLASS_DISTILLATION_WEIGHT = 0.5
"""Of soft labels in recovery, where each example has one class and the target says nothing else."""


def fit_settings(
    bench: Workbench, epochs: int, learning_rate: float | None = None, teacher: Distillation | None = None
) -> FitSettings:
    """The target's training.

    Args:
        bench: with the target.
        epochs: of this training.
        learning_rate: None for the training's own.
        teacher: None for the one of `[teacher]`, where there is one.
    """
    spec = bench.target.spec
    training = spec.training
    return FitSettings(
        epochs=epochs,
        learning_rate=learning_rate or training.learning_rate,
        loss=loss_of(bench.target, bench.data.train.labels),
        optimizer=training.optimizer,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        batch_size=training.batch_size,
        augment=augmentation_of(bench),
        seed=spec.seed,
        bf16=bf16_is_fast(),
        distillation=teacher or _training_teacher(bench),
        clip_norm=training.clip_norm,
        schedule=RateSchedule(kind=training.schedule, milestones=training.milestones, decay=training.decay),
        patience_epochs=training.patience_epochs,
        workers=Workers(count=bench.workers, prepare=partial(import_files, imported_files())),
    )


def augmentation_of(bench: Workbench) -> Augment | None:
    """The target's augmentation of a training batch."""
    reference = bench.target.spec.training.augment
    return bench.target.guarded(reference, key="training.augment") if reference else None


def recovery_teacher(bench: Workbench, recovery: Recovery, dense: nn.Module) -> Distillation:
    """Who wins accuracy back after a cut: the dense model, or the teacher that the target names."""
    soft_labels, weight = soft_labels_of(bench.target, bench.task), recovery.distillation_weight
    if weight is None:
        # A short recovery learns pixels faster from their labels alone.
        weight = CLASS_DISTILLATION_WEIGHT if bench.task.classifies else 0.0
    return Distillation(
        teacher=dense if recovery.teacher == "dense" else build_teacher(bench),
        weight=weight if soft_labels else 0.0,
        temperature=recovery.temperature,
        soft_labels=soft_labels or "classes",
        features=feature_pairs(recovery.features),
        feature_weight=recovery.feature_weight,
    )


def build_teacher(bench: Workbench) -> nn.Module:
    """The model of `[teacher]` with its weights, in evaluation mode.

    Raises:
        InputError: its factory or its weights cannot be used.
    """
    from edgeprune.graph.weights import load_weights_

    section = bench.target.spec.teacher
    model = bench.target.build_model(section.factory if section else None, key="teacher.factory")
    weights = bench.target.teacher_weights_path()
    if weights is not None:
        load_weights_(model, weights)
    return model.eval()


def checkpoint_of(bench: Workbench, subject: str) -> Checkpoint:
    """Where a training's state is kept, so that a killed build loses the epoch in hand.

    Args:
        bench: with the run folder.
        subject: of the training; a round has its own, which begins with the model's name and a space.
    """
    spec = bench.target.spec
    parts = [part.model_dump(mode="json") for part in (spec.training, spec.recovery)]
    key = digest(bench.model_key, bench.data_key, *parts, subject, code_digest())
    return Checkpoint(path=_folder(bench, subject) / f"{re.sub('[^A-Za-z0-9_.-]+', '-', subject)}.safetensors", key=key)


def forget_checkpoints(bench: Workbench, subject: str) -> None:
    """Drop the state of a model's trainings: the model itself is kept."""
    shutil.rmtree(_folder(bench, subject), ignore_errors=True)


def _folder(bench: Workbench, subject: str) -> Path:
    return bench.run.root / _CHECKPOINTS / subject.split(" ", 1)[0]


def _training_teacher(bench: Workbench) -> Distillation | None:
    section = bench.target.spec.teacher
    if section is None:
        return None
    soft_labels = soft_labels_of(bench.target, bench.task)
    return Distillation(
        teacher=build_teacher(bench),
        weight=section.weight if soft_labels else 0.0,
        temperature=section.temperature,
        soft_labels=soft_labels or "classes",
        features=feature_pairs(section.features),
        feature_weight=section.feature_weight,
    )
