from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import example_of
from torch.nn import functional

from edgeprune.recovery.distillation import (
    binary_distillation_loss,
    distillation_loss,
    teacher_hints,
    teacher_logits,
)


def _logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))


@given(seed=st.integers(0, 1000), temperature=st.floats(0.5, 10))
@settings(max_examples=30, deadline=None)
def test_loss_is_zero_for_agreement_and_positive_otherwise(seed: int, temperature: float) -> None:
    student, teacher = _logits(seed), _logits(seed + 1)
    # Softmax does not see a constant that is added to all logits.
    assert float(distillation_loss(teacher + 2.0, teacher, temperature)) == pytest.approx(0, abs=1e-4)
    assert float(distillation_loss(student, teacher, temperature)) > 0


def test_loss_by_hand() -> None:
    # Student 1/2, 1/2; teacher 3/4, 1/4: KL = 3/4 ln(3/2) + 1/4 ln(1/2), at temperature 1.
    student = torch.zeros(1, 2)
    teacher = torch.tensor([[0.75, 0.25]]).log()
    assert float(distillation_loss(student, teacher, 1.0)) == pytest.approx(0.130812, abs=1e-5)
    assert float(distillation_loss(2 * student, 2 * teacher, 2.0)) == pytest.approx(4 * 0.130812, abs=1e-5)


def test_loss_of_pixels_is_that_of_as_many_examples() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 2, 5, 16, 16, generator=generator)
    rows = (logits.movedim(1, -1).reshape(-1, 5) for logits in (student, teacher))
    expected = float(distillation_loss(*rows, 4.0))
    assert float(distillation_loss(student, teacher, 4.0)) == pytest.approx(expected, rel=1e-5)
    assert expected < 2


def test_loss_of_yes_and_no_by_hand() -> None:
    # Student 1/2; teacher 3/4, in one of two outputs: 3/4 ln(3/2) + 1/4 ln(1/2), and nothing from the other.
    student, teacher = torch.tensor([[0.0, 1.0]]), torch.tensor([[math.log(3), 1.0]])
    assert float(binary_distillation_loss(student, teacher, 1.0)) == pytest.approx(0.130812 / 2, abs=1e-5)
    assert float(binary_distillation_loss(2 * student, 2 * teacher, 2.0)) == pytest.approx(2 * 0.130812, abs=1e-5)


def test_gradient_of_yes_and_no_is_that_of_the_teachers_probabilities_as_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 4, generator=generator)
    student.requires_grad_()
    hard = functional.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    ours = torch.autograd.grad(binary_distillation_loss(student, teacher, 1.0), student)
    torch.testing.assert_close(ours, torch.autograd.grad(hard, student))


def test_teacher_logits_are_in_order_and_in_eval_mode() -> None:
    model, _ = example_of("resnet")
    model.train()
    model.bn.eval()  # Frozen.
    modes = [m.training for m in model.modules()]
    before = model.bn.running_mean.clone()
    inputs = torch.randn(5, 3, 16, 16)
    logits = teacher_logits(model, inputs, batch_size=2)
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(model.bn.running_mean, before)
    assert not logits.requires_grad
    hints = teacher_hints(model, inputs, ["bn"])
    assert [m.training for m in model.modules()] == modes
    torch.testing.assert_close(hints[0], logits)
    torch.testing.assert_close(logits, model.eval()(inputs).detach())
