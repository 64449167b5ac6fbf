from __future__ import annotations

import inspect
import math
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from edgeprune.data.parts import Tensors
from edgeprune.data.splits import VOID
from edgeprune.errors import InputError
from edgeprune.recovery.losses import FocalLoss, Loss, OwnLoss, balanced_class_weights, resolve_loss

# Probabilities 0.8 and 0.2 of the label.
LOGITS = torch.tensor([[math.log(4.0), 0.0], [math.log(4.0), 0.0]])
LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize("name", ["cross_entropy", "mse_loss", "nll_loss", "binary_cross_entropy_with_logits"])
def test_losses_of_torch_are_found(name: str) -> None:
    labels = LABELS if name in {"cross_entropy", "nll_loss"} else torch.eye(2)
    assert torch.equal(resolve_loss(name)(LOGITS, labels), getattr(functional, name)(LOGITS, labels))


def test_no_known_loss_needs_more_than_outputs_and_labels() -> None:
    with pytest.raises(InputError) as caught:
        resolve_loss("?")
    known = [name for name in sorted(vars(functional)) if _is_known(name)]
    assert len(known) == 15
    assert str(caught.value).endswith("file.py:function")
    for name in known:
        inspect.signature(getattr(functional, name)).bind(LOGITS, LABELS)


def _is_known(name: str) -> bool:
    try:
        resolve_loss(name)
    except InputError:
        return False
    return True


@pytest.mark.parametrize(
    "name", ["triplet_margin_loss", "ctc_loss", "gaussian_nll_loss", "cosine_embedding_loss", "margin_ranking_loss"]
)
def test_loss_that_needs_more_is_refused_and_a_function_of_ones_own_named(name: str) -> None:
    with pytest.raises(InputError, match=f"no loss '{name}' of outputs and labels alone.*file.py:function"):
        resolve_loss(name)


@pytest.mark.parametrize(("name", "closest"), [("cross_entropi", "cross_entropy"), ("mse", "mse_loss")])
def test_unknown_loss_is_told_with_the_closest(name: str, closest: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{closest}'"):
        resolve_loss(name)


@pytest.mark.parametrize("name", ["relu", "warnings", "__name__", "softmax"])
def test_what_is_no_loss_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no loss"):
        resolve_loss(name)


def test_focal_loss_is_that_of_the_paper() -> None:
    # -(1 - 0.8)^2 log 0.8 and -(1 - 0.2)^2 log 0.2.
    sure, unsure = 0.04 * -math.log(0.8), 0.64 * -math.log(0.2)
    assert float(resolve_loss("focal")(LOGITS, LABELS)) == pytest.approx((sure + unsure) / 2)
    weighted = resolve_loss("focal", class_weights=(3.0, 0.5))
    assert float(weighted(LOGITS, LABELS)) == pytest.approx((3 * sure + 0.5 * unsure) / 2)
    steep = resolve_loss("focal", focal_gamma=0.5)
    expected = (0.2**0.5 * -math.log(0.8) + 0.8**0.5 * -math.log(0.2)) / 2
    assert float(steep(LOGITS, LABELS)) == pytest.approx(expected)


@given(seed=st.integers(0, 1000), classes=st.integers(2, 6))
@settings(max_examples=20, deadline=None)
def test_focal_loss_without_gamma_is_cross_entropy_and_never_more_with_it(seed: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Of pixels: [batch, classes, height, width].
    logits = torch.randn(3, classes, 4, 2, generator=generator)
    labels = torch.randint(0, classes, (3, 4, 2), generator=generator)
    plain = functional.cross_entropy(logits, labels)
    torch.testing.assert_close(FocalLoss(gamma=0.0)(logits, labels), plain)
    assert FocalLoss(gamma=2.0)(logits, labels) <= plain


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_has_a_gradient_where_the_model_is_sure(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]], requires_grad=True)
    FocalLoss(gamma=gamma)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == [0.0, 0.0]
    assert float(logits.grad[1, 0]) < 0


OF_CLASSES = {
    "cross_entropy": resolve_loss("cross_entropy"),
    "nll_loss": resolve_loss("nll_loss"),
    "weighted": resolve_loss("cross_entropy", class_weights=(3.0, 0.5, 2.0)),
    "focal": resolve_loss("focal", class_weights=(3.0, 0.5, 2.0), focal_gamma=0.5),
    "own": OwnLoss(functional.cross_entropy),
}


@pytest.mark.parametrize("name", OF_CLASSES)
@given(seed=st.integers(0, 1000), extra=st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_void_pixels_change_neither_loss_nor_gradient(name: str, seed: int, extra: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 2 + extra, generator=generator, requires_grad=True)
    with torch.no_grad():
        logits[..., 2:] *= 100  # There the model is sure of a class: its own gradient would be infinite.
    labels = torch.randint(0, 3, (2, 4, 2 + extra), generator=generator)
    labels[..., 2:] = VOID
    losses = [OF_CLASSES[name](logits[..., :width], labels[..., :width]) for width in (2, 2 + extra)]
    torch.testing.assert_close(losses[1], losses[0])
    (without,), (found,) = (torch.autograd.grad(loss, logits) for loss in losses)
    torch.testing.assert_close(found, without)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_labels_that_are_all_void_teach_nothing(name: str) -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = OF_CLASSES[name](logits, torch.full((2, 4, 4), VOID))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_own_loss_is_told_as_it_is_where_labels_count() -> None:
    def broken(_: Tensors, __: Tensors) -> torch.Tensor:
        return torch.tensor(math.nan)

    void = torch.full_like(LABELS, VOID)
    assert float(OwnLoss(broken)(LOGITS, void)) == 0
    # The second array may be boxes, or classes of which some count: what a function makes of both is its own to say.
    for labels in (LABELS, LABELS.float(), (LABELS, void)):
        assert math.isnan(float(OwnLoss(broken)(LOGITS, labels)))
    # What returns no number is for others to refuse.
    assert OwnLoss(cast("Loss", lambda *_: None))(LOGITS, void) is None


def test_parts_of_a_batch_add_up_to_the_whole_with_class_weights() -> None:
    loss = resolve_loss("cross_entropy", class_weights=(3.0, 0.5))
    singles = [float(loss(LOGITS[i : i + 1], LABELS[i : i + 1])) for i in range(2)]
    assert singles == pytest.approx([3 * -math.log(0.8), 0.5 * -math.log(0.2)])
    assert float(loss(LOGITS, LABELS)) == pytest.approx(sum(singles) / 2)


def test_balanced_weights_let_all_classes_count_alike() -> None:
    labels = np.array([0, 0, 0, 0, 0, 0, 2, 2])  # Class 1 does not occur.
    weights = balanced_class_weights(labels)
    assert weights == pytest.approx((8 / 12, 0.0, 2.0))
    assert np.take(weights, labels).mean() == pytest.approx(1.0)
    assert 6 * weights[0] == pytest.approx(2 * weights[2])


def test_balanced_weights_are_of_the_labels_that_are_not_void() -> None:
    masks = np.array([[[0, 0], [0, VOID]], [[2, VOID], [VOID, VOID]]])
    # Four labels, of two classes that occur.
    assert balanced_class_weights(masks) == pytest.approx((4 / (2 * 3), 0.0, 4 / (2 * 1)))


def test_weights_are_refused_where_the_loss_takes_none() -> None:
    with pytest.raises(InputError, match=r"training\.class_weights: .* got mse_loss"):
        resolve_loss("mse_loss", class_weights=(1.0, 2.0))
    for name in ("focal", "cross_entropy"):
        with pytest.raises(InputError, match=f"{name}.* for one output and one label"):
            resolve_loss(name)((LOGITS, LOGITS), LABELS)
