from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import seeded
from torch import nn
from torch.nn import functional
from trained_in_workers import Normed, NormFree, Pixels, die_in_worker, noise, refuse, striped_masks, stripes

from edgeprune.errors import BuildError, InputError
from edgeprune.events import Event, Noted, NullReporter, StageFinished, StageProgress, StageStarted
from edgeprune.pruning.maskable import find_maskable
from edgeprune.pruning.masks import WeightMasks
from edgeprune.quantization.fake_quantization import FakeQuantization
from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.finetune import FitResult, FitSettings, Workers, fit_
from edgeprune.recovery.losses import Loss, resolve_loss

ALONE = FitSettings(epochs=3, learning_rate=0.05, loss=functional.cross_entropy, batch_size=16, augment=noise)
EXAMPLE = torch.from_numpy(stripes(1)[0])
TOGETHER = replace(ALONE, workers=Workers(count=2))


class _List:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def _fit(model: nn.Module, settings: FitSettings, **options: object) -> FitResult:
    return fit_(model, *stripes(), settings, reporter=NullReporter(), stage="train", **options)  # type: ignore[arg-type]


@pytest.mark.slow
def test_two_workers_follow_the_loss_curve_of_one() -> None:
    reporter = _List()
    alone, together = seeded(NormFree), seeded(NormFree)
    validation = stripes(60, seed=1)
    layers = find_maskable(alone, torch.from_numpy(validation[0][:1]))
    zeros, others = (WeightMasks.unstructured(model, layers, 0.5) for model in (alone, together))
    expected = _fit(alone, ALONE, validation=validation, after_step=zeros.apply_)
    threads, environment = torch.get_num_threads(), dict(os.environ)
    # 90 examples are 5 batches of 16 and one of 10: shares of 8 and of 5.
    found = fit_(
        together,
        *stripes(),
        TOGETHER,
        reporter=reporter,
        stage="train",
        validation=validation,
        after_step=others.apply_,
    )
    np.testing.assert_allclose([e.loss for e in found.epochs], [e.loss for e in expected.epochs], rtol=1e-5)
    for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert [e.validation_accuracy for e in found.epochs] == [e.validation_accuracy for e in expected.epochs]
    assert found.best_epoch == expected.best_epoch
    others.verify()
    # Of 280 weights of the first convolution and the unused layer; the head makes the output.
    assert others.sparsity == zeros.sparsity == pytest.approx(140 / (280 + 192))
    assert (dict(os.environ), torch.get_num_threads()) == (environment, threads)
    assert not together.training
    assert reporter.events[0] == Noted(message="train: 2 processes train together")
    assert reporter.events[1] == StageStarted(stage="train", subject="", total=18, unit="batches")
    assert [e.done for e in reporter.events if isinstance(e, StageProgress)][-1] == 18
    assert isinstance(reporter.events[-1], StageFinished)


def _check_two_are_as_one(factory: type[nn.Module], data: tuple[np.ndarray, np.ndarray], chosen: FitSettings) -> None:
    alone, together = seeded(factory), seeded(factory)
    expected, found = (
        fit_(model, *data, settings, reporter=NullReporter(), stage="train")
        for model, settings in ((alone, chosen), (together, replace(chosen, workers=Workers(count=2))))
    )
    np.testing.assert_allclose([e.loss for e in found.epochs], [e.loss for e in expected.epochs], rtol=1e-4)
    for name, theirs in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], theirs, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_batch_norms_of_two_workers_are_those_of_one() -> None:
    # Of 91 examples the last batch has three: too few to share, so both workers take it whole.
    _check_two_are_as_one(Normed, stripes(91), replace(ALONE, epochs=6, batch_size=22))


@pytest.mark.slow
def test_soft_labels_of_two_workers_are_those_of_one() -> None:
    # Shares of 7 and 8 examples; without augmentation the soft labels are taken before.
    taught = Distillation(teacher=seeded(NormFree, 1), weight=0.7)
    _check_two_are_as_one(NormFree, stripes(), replace(ALONE, batch_size=15, augment=None, distillation=taught))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "weight"),
    [(functional.cross_entropy, 0.0), (resolve_loss("focal", class_weights=(3.0, 0.5, 2.0)), 0.5)],
    ids=["a loss of one's own", "class weights and soft labels"],
)
def test_void_pixels_count_for_nothing_in_two_workers_as_in_one(loss: Loss, weight: float) -> None:
    # Torch's mean over a share that is all void, as some are here, would be NaN.
    taught = Distillation(teacher=seeded(Pixels, 1), weight=weight)
    _check_two_are_as_one(Pixels, striped_masks(), replace(ALONE, batch_size=7, loss=loss, distillation=taught))


@pytest.mark.slow
def test_ranges_of_two_workers_are_those_of_one() -> None:
    # Values at the edge between two steps may be rounded the other way, which is more than what adding up loses.
    chosen = replace(ALONE, rounding=FakeQuantization)
    alone, together = seeded(NormFree), seeded(NormFree)
    zeros = [WeightMasks.unstructured(model, find_maskable(model, EXAMPLE), 0.5) for model in (alone, together)]
    expected = _fit(alone, chosen, validation=stripes(60, seed=1), after_step=zeros[0].apply_)
    workers = Workers(count=2)
    found = _fit(together, replace(chosen, workers=workers), validation=stripes(60, seed=1), after_step=zeros[1].apply_)
    plain = _fit(seeded(NormFree), ALONE, validation=stripes(60, seed=1))
    np.testing.assert_allclose([e.loss for e in found.epochs], [e.loss for e in expected.epochs], rtol=1e-3)
    assert abs(expected.epochs[-1].loss / plain.epochs[-1].loss - 1) > 1e-2
    zeros[1].verify()


@pytest.mark.slow
def test_killed_worker_is_told() -> None:
    with pytest.raises(BuildError, match=r"training in 2 processes: worker . failed: .*SIGKILL"):
        _fit(seeded(NormFree), replace(TOGETHER, augment=die_in_worker))


@pytest.mark.slow
def test_error_of_a_worker_is_the_one_that_is_raised() -> None:
    with pytest.raises(InputError, match=r"^training\.augment: no good$") as caught:
        _fit(seeded(NormFree), replace(TOGETHER, augment=refuse))
    assert caught.value.facts == {"key": "training.augment"}


@pytest.mark.slow
def test_interrupt_ends_the_workers() -> None:
    class CtrlC(_List):
        def emit(self, event: Event) -> None:
            super().emit(event)
            if isinstance(event, StageProgress) and len(self.events) == 3:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit_(seeded(NormFree), *stripes(), replace(TOGETHER, epochs=100_000), reporter=CtrlC(), stage="train")
    assert multiprocessing.active_children() == []


def test_loss_that_cannot_travel_is_refused() -> None:
    with pytest.raises(InputError, match="top level of a module"):
        _fit(seeded(NormFree), replace(TOGETHER, loss=lambda x, y: (x - y).sum()))
