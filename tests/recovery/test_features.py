"""Learning from the teacher's layers: hooks, adapters, the loss."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from models import ResNet, seeded
from torch import Tensor, nn
from torch.nn import functional
from trained_in_workers import Normed, NormFree, noise, stripes

from edgeprune.errors import InputError
from edgeprune.events import NullReporter
from edgeprune.recovery.distillation import Distillation, teacher_hints
from edgeprune.recovery.features import TappedStudent, Taps, feature_loss, make_adapters
from edgeprune.recovery.finetune import FitSettings, accuracy_of, fit_

SETTINGS = FitSettings(epochs=5, learning_rate=0.05, loss=functional.cross_entropy, batch_size=16)


def test_loss_is_that_of_the_paper_as_a_share_of_the_teachers_mean_square() -> None:
    student, teacher = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 4.0]])
    # Differences 0, 2, 3, 0: mean square 13/4; the teacher's 17/4.
    assert float(feature_loss(student, teacher)) == pytest.approx(13 / 17)
    assert float(feature_loss(10 * student, 10 * teacher)) == pytest.approx(13 / 17)
    assert float(feature_loss(student, torch.zeros(2, 2))) > 1e30


def test_larger_image_is_averaged_to_the_smaller() -> None:
    fine = torch.arange(16.0).reshape(1, 1, 4, 4)
    coarse = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])
    assert float(feature_loss(fine, coarse)) == 0
    assert float(feature_loss(coarse, fine)) == 0


def test_identical_nets_have_nothing_to_learn_from_features() -> None:
    teacher = seeded(lambda: ResNet((8, 8), classes=3))
    student, inputs = copy.deepcopy(teacher), torch.from_numpy(stripes(4)[0])
    layers = [name for name, _ in teacher.named_children()]
    adapters = make_adapters(student, teacher, [(n, n) for n in layers], inputs[:1])
    assert all(isinstance(adapter, nn.Identity) for adapter in adapters)
    net = TappedStudent(student, layers, adapters).eval()
    _, features = net(inputs)
    _, hints = teacher_hints(teacher, inputs, layers)
    assert [float(feature_loss(f.detach(), h)) for f, h in zip(features, hints, strict=True)] == [0.0] * len(layers)
    net.close()
    assert not any(m._forward_hooks for model in (student, teacher) for m in model.modules())


class Small(nn.Module):
    """A student with other names and half the widths."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.relu(self.stem(x)).mean(3).flatten(1))


def test_smaller_student_learns_from_layers_of_other_widths_and_keeps_no_trace_of_it() -> None:
    teacher, student = seeded(Normed), seeded(Small, 1)
    inputs, labels = stripes(200)
    fit_(teacher, inputs, labels, SETTINGS, reporter=NullReporter(), stage="train")
    before = copy.deepcopy(teacher.state_dict())
    names, wrong = list(student.state_dict()), (labels + 1) % 3
    taught = Distillation(teacher=teacher, weight=1.0, features=(("stem", "conv"),), feature_weight=0.5)
    for augment in (None, noise):
        learner = copy.deepcopy(student)
        settings = replace(SETTINGS, augment=augment, distillation=taught)
        fit_(learner, inputs, wrong, settings, reporter=NullReporter(), stage="distill")
        assert accuracy_of(learner, *map(torch.as_tensor, stripes(60, seed=2))) > 0.9
        assert list(learner.state_dict()) == names
        assert not any(m._forward_hooks for model in (learner, teacher) for m in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())


def test_features_alone_bring_the_layer_nearer_to_the_teachers() -> None:
    teacher, student = seeded(Normed), seeded(Normed, 1)
    inputs, labels = stripes()

    def distance(model: nn.Module) -> float:
        batch = torch.from_numpy(inputs)
        ours, theirs = (teacher_hints(m, batch, ["conv"])[1][0] for m in (model, teacher))
        return float(feature_loss(ours, theirs))

    far = distance(student)
    taught = Distillation(teacher=teacher, weight=0.0, features=(("conv", "conv"),), feature_weight=5.0)
    fit_(student, inputs, labels, replace(SETTINGS, distillation=taught), reporter=NullReporter(), stage="distill")
    assert distance(student) < far / 4


def _rows(layer: nn.Module) -> nn.Module:
    """A layer on [n, 3, 64]."""
    return nn.Sequential(nn.Flatten(2), layer)


def _volumes(layer: nn.Module) -> nn.Module:
    """A layer on [n, 3, 8, 4, 2]."""
    return nn.Sequential(nn.Unflatten(3, (4, 2)), layer)


@pytest.mark.parametrize(
    ("ours", "theirs", "kind"),
    [
        (nn.Conv2d(3, 4, 3), nn.Conv2d(3, 6, 5), nn.Conv2d),
        (_rows(nn.Linear(64, 4)), _rows(nn.Linear(64, 6)), nn.Linear),
        (_rows(nn.Linear(64, 6)), _rows(nn.Linear(64, 6)), nn.Identity),
        (_rows(nn.Conv1d(3, 4, 1)), _rows(nn.Conv1d(3, 6, 1)), nn.Conv1d),
        # Channels last, as in ConvNeXt.
        (nn.Linear(8, 4), nn.Linear(8, 6), nn.Linear),
        (_volumes(nn.Conv3d(3, 4, 1)), _volumes(nn.Conv3d(3, 6, 1)), nn.Conv3d),
    ],
)
def test_adapter_follows_from_the_shapes(ours: nn.Module, theirs: nn.Module, kind: type[nn.Module]) -> None:
    student, teacher = nn.Sequential(ours), nn.Sequential(theirs)
    example = torch.zeros(1, 3, 8, 8)
    [adapter] = make_adapters(student.train(), teacher, [("0", "0")], example)
    assert type(adapter) is kind
    adapted, hint = adapter(ours(example)), theirs(example)
    assert adapted.shape[1] == hint.shape[1]
    assert kind is nn.Conv2d or adapted.shape == hint.shape
    assert student.training


def test_features_that_no_adapter_brings_together_are_refused() -> None:
    student, teacher = nn.Sequential(nn.Flatten()), nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(InputError, match=r"0 of the student and 0 of the teacher: no adapter from shape \(192,\)"):
        make_adapters(student, teacher, [("0", "0")], torch.zeros(1, 3, 8, 8))


def test_unknown_layer_and_layer_that_is_not_run_are_named() -> None:
    with pytest.raises(InputError, match=r"the student has no layer 'con'.*'conv'"):
        Taps(seeded(NormFree), ["con"], "student")
    model = seeded(NormFree)
    with Taps(model, ["unused"], "teacher") as taps:
        model(torch.zeros(1, 3, 8, 8))
        with pytest.raises(InputError, match="the teacher's layer 'unused' was not run"):
            taps.take()
    recurrent = nn.Sequential(nn.LSTM(4, 4))
    with Taps(recurrent, ["0"], "teacher") as taps:
        recurrent(torch.zeros(1, 2, 4))
        with pytest.raises(InputError, match="gives a tuple"):
            taps.take()


def test_teacher_with_other_classes_is_refused() -> None:
    taught = Distillation(teacher=nn.Sequential(nn.Flatten(), nn.Linear(192, 5)))
    with pytest.raises(InputError, match=r"the teacher's outputs are \(5,\) an example, the student's \(3,\)"):
        fit_(
            seeded(Small), *stripes(), replace(SETTINGS, distillation=taught), reporter=NullReporter(), stage="distill"
        )
