"""Trainings as the target's file asks for them, in a real run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from compressors import compressor
from targets_for_tests import MODEL_CODE, make_target
from task_targets import TASKS
from torch import Tensor
from torch.nn import functional

from edgeprune.errors import InputError
from edgeprune.events import Event, Noted, StageProgress, StageStarted
from edgeprune.records.rung import GroupWidth, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.recovery.losses import BINARY, FocalLoss
from edgeprune.schema.training import Recovery
from edgeprune.steps import training
from edgeprune.steps.compressing import Compressor, TorchModel
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.examination import examine
from edgeprune.steps.inputs import load_target
from edgeprune.steps.sensitivity import SensitivityBench
from edgeprune.steps.training import build_teacher, fit_settings, recovery_teacher

RUNG = Rung(runtime="onnxruntime", precision=Precision.FLOAT32, pruning=PruningKind.STRUCTURED, pruning_ratio=0.625)
WIDTHS = (GroupWidth(group="conv1", before=16, after=6), GroupWidth(group="conv2", before=32, after=12))
PLANNED = PlannedRung(rung=RUNG, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0, widths=WIDTHS)

TEACHER_CODE = f"""{MODEL_CODE}

class Wide(TinyNet):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(24)
        self.conv2 = nn.Conv2d(24, 32, 3, stride=2, padding=1)


def build_wide():
    return Wide()


def augment(inputs, generator):
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)
"""


class Interrupted:
    """Presses Ctrl-C as soon as a stage's subject begins and has made progress; keeps all that was told."""

    def __init__(self, subject: str) -> None:
        self.events: list[Event] = []
        self._subject = subject

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StageProgress) and event.subject.endswith(self._subject):
            raise KeyboardInterrupt


def weights(made: Compressor) -> dict[str, Tensor]:
    return made.load(made.compressed(PLANNED)).state_dict()


def test_killed_compression_trains_no_finished_round_again(tmp_path: Path) -> None:
    with compressor(tmp_path / "whole") as made:
        expected = weights(made)
    reporter = Interrupted("round 2 of 2")
    with compressor(tmp_path / "killed", reporter) as made, pytest.raises(KeyboardInterrupt):
        made.compressed(PLANNED)
    checkpoints = made.bench.run.root / ".checkpoints"
    assert [p.name[-24:] for p in checkpoints.rglob("*.safetensors")] == ["round-1-of-2.safetensors"]
    again = Interrupted("nowhere")
    with compressor(tmp_path / "killed", again) as made:
        found = weights(made)
        record = made.compressed(PLANNED)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert len(record.epochs) == 2
    subject = f"{record.subject} round 1 of 2"
    assert Noted(message=f"{subject}: 1 of 1 epochs kept") in again.events
    assert StageProgress(stage="recover", subject=subject, done=16, detail="") not in again.events
    assert not [e for e in again.events if isinstance(e, StageProgress) and e.subject == subject]
    assert [e.subject for e in again.events if isinstance(e, StageStarted) and e.stage == "train"] == []
    assert not list(checkpoints.rglob("*"))


def test_settings_are_those_of_the_file(tmp_path: Path) -> None:
    keys = {
        "training.loss": "focal", "training.focal_gamma": 1.5, "training.class_weights": "balanced",
        "training.schedule": "steps", "training.milestones": [0.25, 0.5], "training.decay": 0.2,
        "training.clip_norm": 0, "training.patience_epochs": 4,
    }  # fmt: skip
    with compressor(tmp_path, target=keys) as made:
        settings = fit_settings(made.bench, 7, 0.01)
        loss = made.loss
    assert (settings.epochs, settings.learning_rate, settings.clip_norm, settings.patience_epochs) == (7, 0.01, 0, 4)
    # Second quarter, then the third.
    assert [settings.schedule.factor(step, 100) for step in (30, 60)] == pytest.approx([0.2, 0.04])
    assert isinstance(loss, FocalLoss)
    assert loss.gamma == 1.5
    assert loss.class_weights == pytest.approx((1.0,) * 4)  # 64 examples of each class.
    assert settings.distillation is None


@pytest.mark.parametrize("fast", [True, False])
def test_trainings_compute_in_bf16_where_the_cpu_is_fast_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fast: bool
) -> None:
    monkeypatch.setattr(training, "bf16_is_fast", lambda: fast)
    with compressor(tmp_path) as made:
        assert fit_settings(made.bench, 1).bf16 is fast


def test_recovery_is_at_a_tenth_of_the_trainings_rate_unless_the_target_says_otherwise(tmp_path: Path) -> None:
    rates = {}
    for wanted in (None, 0.02):
        keys = {"training.epochs": 0, "training.learning_rate": 0.4, "recovery.learning_rate": wanted}
        with compressor(tmp_path / str(wanted), target=keys) as made:
            rates[wanted] = (made.recovery_settings(1).learning_rate, made.scorer.learning_rate)
            assert made.training_settings().learning_rate == 0.4
    assert rates == {None: pytest.approx((0.04, 0.04)), 0.02: (0.02, 0.02)}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"training.class_weights": [1.0, 2.0]}, r"training\.class_weights: expected one a class, at least 4, got 2"),
        ({"training.class_weights": "balanced", "training.loss": "mse_loss"}, r"training\.class_weights: .*got mse"),
        ({"training.class_weights": "balanced", "training.loss": "model.py:augment"}, "takes none; weigh in it"),
    ],
)
def test_class_weights_that_do_not_fit_are_refused(keys: dict[str, object], message: str, tmp_path: Path) -> None:
    with compressor(tmp_path, target=keys, code=TEACHER_CODE) as made, pytest.raises(InputError, match=message):
        _ = made.loss


# A dataset's border that nobody labelled, and examples without any label, the first of which the check looks at.
WITH_VOID = TASKS["masks"][0].replace(
    "    return Split(", "    masks[:, :2], masks[:3] = -100, -100\n    return Split("
)


@pytest.mark.parametrize(("loss", "weights"), [("cross_entropy", "balanced"), ("focal", [1.0, 3.0])])
def test_masks_with_void_are_learned_with_class_weights(loss: str, weights: object, tmp_path: Path) -> None:
    keys = {**TASKS["masks"][1], "training.loss": loss, "training.class_weights": weights}
    examine(load_target(make_target(tmp_path, target=keys, code=WITH_VOID).folder))
    with compressor(tmp_path, target=keys, code=WITH_VOID) as made:
        counted = made.scorer.data.counted
        assert counted is not None
        for _, masks in made.scorer.data.batches:
            assert torch.equal(counted(masks), (masks >= 0).sum(dim=(1, 2)))
        labels = np.asarray(made.bench.data.train.labels)
        blob = float((labels == 1).sum() / (labels >= 0).sum())
        assert isinstance(made.loss, FocalLoss)
        balanced = (1 / (2 * (1 - blob)), 1 / (2 * blob))
        assert made.loss.class_weights == pytest.approx(balanced if weights == "balanced" else (1.0, 3.0))
        qualities = [e.validation_accuracy for e in made.dense.epochs]
    assert max(q for q in qualities if q is not None) > 0.8


def test_own_loss_of_masks_goes_on_where_no_label_counts(tmp_path: Path) -> None:
    # Every second image has no label: torch's mean over such a pair, as over such a one, is NaN.
    code = (
        WITH_VOID.replace("masks[:3]", "masks[::2]")
        + "\n\ndef loss(x, y):\n    return functional.cross_entropy(x, y)\n"
    )
    changes = {"training.loss": "model.py:loss", "training.batch_size": 2, "training.epochs": 1}
    with compressor(tmp_path, target={**TASKS["masks"][1], **changes}, code=code) as made:
        (epoch,) = made.dense.epochs
        singles = SensitivityBench(made).losses.dense.singles
    assert epoch.validation_accuracy is not None
    assert epoch.validation_accuracy > 0.5
    assert np.isfinite(singles).all()
    assert (singles == 0).sum() == len(singles) / 2


def test_class_weights_of_labels_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    code = WITH_VOID.replace("-100", "-3").replace('("ground", "blob")', "()")
    keys = {**TASKS["masks"][1], "training.class_weights": "balanced"}
    with compressor(tmp_path, target=keys, code=code) as made, pytest.raises(InputError, match="class indices from 0"):
        _ = made.loss


def test_another_teacher_teaches_the_dense_model_and_its_recovery(tmp_path: Path) -> None:
    keys = {"teacher.factory": "model.py:build_wide", "teacher.features": ["conv1"], "teacher.weight": 0.9}
    recovery = Recovery(teacher="teacher", features=("conv1", "conv2:conv2"))
    with compressor(tmp_path / "taught", target=keys, code=TEACHER_CODE) as made:
        taught = fit_settings(made.bench, 1).distillation
        assert taught is not None
        assert (taught.weight, taught.features) == (0.9, (("conv1", "conv1"),))
        assert type(taught.teacher).__name__ == "Wide"
        dense = made.dense_module
        chosen = recovery_teacher(made.bench, recovery, dense)
        assert type(chosen.teacher).__name__ == "Wide"
        assert chosen.features == (("conv1", "conv1"), ("conv2", "conv2"))
        assert recovery_teacher(made.bench, Recovery(), dense).teacher is dense
    with compressor(tmp_path / "alone", code=TEACHER_CODE) as made:
        alone = made.dense_module
    assert not torch.equal(dense.state_dict()["conv1.weight"], alone.state_dict()["conv1.weight"])


def test_teachers_weights_are_loaded_and_belong_to_the_target(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    keys = {"teacher.factory": "model.py:build_wide", "teacher.weights": "wide.safetensors"}
    made = make_target(tmp_path, target=keys, code=TEACHER_CODE)
    target = load_target(made.folder)
    with pytest.raises(InputError, match=r"teacher\.weights: no such file"):
        _ = target.identity
    wide = target.build_model("model.py:build_wide")
    save_file({n: torch.full_like(t, 2) for n, t in wide.state_dict().items()}, made.folder / "wide.safetensors")
    assert "wide.safetensors" in dict(load_target(made.folder).identity)
    with compressor(tmp_path, target=keys, code=TEACHER_CODE) as compressing:
        teacher = build_teacher(compressing.bench)
    assert float(teacher.state_dict()["head.bias"][0]) == 2
    assert not teacher.training


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"recovery.teacher": "teacher"}, r"a section \[teacher\]"),
        ({"teacher.factory": "model.py:build_wide", "training.epochs": 0}, r"no section \[teacher\], or recovery"),
        ({"training.milestones": [0.5, 0.2]}, "milestones in ascending order"),
        ({"recovery.features": ["a:b:c"]}, r"recovery\.features\.0"),
    ],
)
def test_keys_that_mean_nothing_are_refused(keys: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load_target(make_target(tmp_path, target=keys, code=TEACHER_CODE).folder)


def validation_loss(made: Compressor, model: TorchModel) -> float:
    outputs = torch_outputs(made.load(model), made.bench.validation_inputs)
    return float(
        functional.cross_entropy(torch.from_numpy(outputs), torch.from_numpy(made.bench.data.validation.labels))
    )


@pytest.mark.slow
def test_two_workers_train_a_targets_own_code(tmp_path: Path) -> None:
    keys = {"training.augment": "model.py:augment", "training.class_weights": "balanced"}
    reporter = Interrupted("nowhere")
    with compressor(tmp_path, reporter, target=keys, code=TEACHER_CODE, workers=2) as made:
        dense, pruned = made.dense, made.compressed(PLANNED)
        # What is cut knows the classes already: only how sure it is of them tells whether it learned again.
        only_cut = replace(made, short_recovery=made.recovery.model_copy(update={"epochs": 0})).compressed(PLANNED)
        cut_loss, recovered_loss = (validation_loss(made, model) for model in (only_cut, pruned))
    assert (len(dense.epochs), len(only_cut.epochs), len(pruned.epochs)) == (2, 0, 2)
    assert max(e.validation_accuracy or 0.0 for e in dense.epochs) > 0.9
    assert recovered_loss < 0.5 * cut_loss
    # The dense model, and each of two rounds of recovery.
    assert sum(isinstance(e, Noted) and "2 processes train together" in e.message for e in reporter.events) == 3


TAGS = (
    TASKS["masks"][0]
    .replace('("ground", "blob")', "()")
    .replace("(16, 2, 1)", "(16, 1, 1)")
    .replace("images[:, 0] += masks", "images[:, 0] += masks\n    masks = masks[:, np.newaxis].astype(np.float32)")
)


@pytest.mark.parametrize(
    ("code", "keys", "soft_labels", "weight"),
    [
        (TASKS["masks"][0], {"recovery.distillation_weight": 0.5}, "classes", 0.5),
        (TASKS["masks"][0], {}, "classes", 0.0),
        (TAGS, {"training.loss": BINARY, "recovery.distillation_weight": 0.5}, "binary", 0.5),
        (TAGS, {"training.loss": "mse_loss"}, "classes", 0.0),
    ],
    ids=["a class a pixel", "nothing asked for", "yes or no a pixel", "a value a pixel"],
)
def test_the_loss_tells_what_the_dense_models_outputs_teach(
    code: str, keys: dict[str, object], soft_labels: str, weight: float, tmp_path: Path
) -> None:
    keys = {**TASKS["masks"][1], "training.epochs": 1, "recovery.rounds": 1, "recovery.epochs": 1, **keys}
    if code == TAGS:
        keys |= {"task.metric": "mean_absolute_error", "accuracy.max_drop_points": None, "accuracy.max_worsening": 9.0}
    widths = (GroupWidth(group="conv1", before=16, after=8),)
    with compressor(tmp_path, target=keys, code=code) as made:
        chosen = recovery_teacher(made.bench, made.recovery, made.dense_module)
        assert (chosen.soft_labels, chosen.weight) == (soft_labels, weight)
        if weight:
            assert len(made.compressed(replace(PLANNED, widths=widths)).epochs) == 1
