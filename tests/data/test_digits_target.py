from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from targets_for_tests import target_module

from edgeprune.data.preprocessing import preprocess
from edgeprune.data.splits import DataSplits, Split, check_splits
from edgeprune.events import NullReporter
from edgeprune.graph.cost import count_macs
from edgeprune.graph.groups import find_groups
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.schedules import linear_ratios
from edgeprune.pruning.surgery import structured_prune
from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.finetune import FitSettings, accuracy_of, bf16_is_fast, fit_
from edgeprune.recovery.losses import resolve_loss
from edgeprune.schema.base import load_toml
from edgeprune.schema.target import TargetSpec
from edgeprune.steps.training import CLASS_DISTILLATION_WEIGHT

FOLDER = Path(__file__).parents[2] / "targets" / "digits"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return target_module(FOLDER)


@pytest.fixture(scope="module")
def target() -> TargetSpec:
    return load_toml(FOLDER / "target.toml", TargetSpec)


@pytest.fixture(scope="module")
def data(module: ModuleType) -> DataSplits:
    return check_splits(module.load_data(seed=0), where="digits")


def test_target_names_what_the_module_has(module: ModuleType, target: TargetSpec) -> None:
    assert target.name == FOLDER.name
    for factory in (target.model.factory, target.data.factory, target.training.augment):
        assert factory is not None
        assert callable(getattr(module, factory.split(":")[1]))


def test_splits_share_no_example_and_have_all_classes_alike(data: DataSplits) -> None:
    assert (len(data.train), len(data.validation), len(data.test)) == (1078, 360, 359)
    for split in (data.train, data.validation, data.test):
        counts = np.bincount(split.labels, minlength=10) / len(split)
        assert counts.min() > 0.09
        assert counts.max() < 0.11
    originals = [set(map(bytes, s.inputs)) for s in (data.train, data.validation, data.test)]
    assert len(set.union(*originals)) == sum(map(len, originals)) == 1797


def test_data_do_not_follow_the_seed(module: ModuleType, data: DataSplits) -> None:
    assert module.load_data(seed=5).identity() == data.identity()


def test_preprocessing_brings_pixels_to_one(data: DataSplits, target: TargetSpec) -> None:
    inputs = preprocess(data.train.inputs, target.preprocessing)
    assert (inputs.shape, inputs.min(), inputs.max()) == ((1078, 1, 32, 32), -1.0, 1.0)


def test_augmentation_shifts_by_two_pixels_at_most(module: ModuleType) -> None:
    image = torch.full((200, 1, 32, 32), -1.0)
    image[:, :, 16, 16] = 1.0
    shifted = module.augment(image, torch.Generator().manual_seed(0))
    places = {tuple(p) for p in (shifted[:, 0] == 1).nonzero()[:, 1:].tolist()}
    assert places == {(row, column) for row in range(14, 19) for column in range(14, 19)}
    assert int((shifted == 1).sum()) == 200


def test_every_channel_but_the_classes_can_be_cut(module: ModuleType) -> None:
    model, example = module.build_model(), torch.zeros(1, 1, 32, 32)
    groups = find_groups(model, example)
    assert groups.refused == ()
    assert [g.width for g in groups.groups] == [32, 32, 64, 64, 128, 128]
    assert count_macs(model, example) == 12_133_632


def _tensors(split: Split, target: TargetSpec) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(preprocess(split.inputs, target.preprocessing)), torch.as_tensor(split.labels)


def _settings(
    module: ModuleType, target: TargetSpec, epochs: int, rate: float, teacher: torch.nn.Module | None
) -> FitSettings:
    training, recovery = target.training, target.recovery
    distillation = None
    if teacher is not None:
        distillation = Distillation(teacher=teacher, weight=CLASS_DISTILLATION_WEIGHT, temperature=recovery.temperature)
    return FitSettings(
        epochs=epochs,
        learning_rate=rate,
        loss=resolve_loss(training.loss),
        optimizer=training.optimizer,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
        batch_size=training.batch_size,
        augment=module.augment,
        bf16=bf16_is_fast(),
        distillation=distillation,
    )


@pytest.mark.slow
def test_three_quarters_of_the_channels_can_go(module: ModuleType, target: TargetSpec, data: DataSplits) -> None:
    torch.manual_seed(target.seed)
    dense, example = module.build_model(), torch.zeros(1, 1, 32, 32)
    train, validation = _tensors(data.train, target), _tensors(data.validation, target)
    options = {"reporter": NullReporter(), "stage": "train", "validation": validation}
    fit_(
        dense, *train, _settings(module, target, target.training.epochs, target.training.learning_rate, None), **options
    )
    assert accuracy_of(dense, *validation) >= 0.97
    widths = {g.name: g.width for g in find_groups(dense, example).groups}
    pruned = dense
    recovery = target.recovery
    assert recovery.learning_rate is not None
    assert recovery.epochs is not None
    for ratio in linear_ratios(max(target.pruning.ratios), recovery.rounds):
        goal = {name: round(width * (1 - ratio)) for name, width in widths.items()}
        pruned, _ = structured_prune(pruned, example, goal, CRITERIA.get(target.pruning.criterion), seed=0)
        chosen = _settings(module, target, recovery.epochs // recovery.rounds, recovery.learning_rate, dense)
        fit_(pruned, *train, chosen, **options)
    drop_points = 100 * (accuracy_of(dense, *validation) - accuracy_of(pruned, *validation))
    assert drop_points <= target.accuracy.max_drop_points
