from __future__ import annotations

import copy
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import ResNet, seeded
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.data.splits import VOID
from edgeprune.errors import BuildError, InputError
from edgeprune.events import Event, NullReporter, StageFinished, StageProgress, StageStarted
from edgeprune.pruning.maskable import find_maskable
from edgeprune.pruning.masks import WeightMasks
from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.finetune import FitResult, FitSettings, accuracy_of, bf16_is_fast, fit_
from edgeprune.recovery.rates import RateSchedule

SETTINGS = FitSettings(epochs=3, learning_rate=0.05, loss=functional.cross_entropy, batch_size=16)


def _task(examples: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright stripe at one of three heights."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, examples)
    inputs = generator.normal(0, 0.3, (examples, 3, 8, 8)).astype(np.float32)
    for image, label in zip(inputs, labels, strict=True):
        image[:, 2 * label + 1] += 1.5
    return inputs, labels


def _net(seed: int = 0) -> nn.Module:
    return seeded(lambda: ResNet((8, 8), classes=3), seed)


def _fit(model: nn.Module, fit_settings: FitSettings = SETTINGS, **options: object) -> FitResult:
    return fit_(model, *_task(), fit_settings, reporter=NullReporter(), stage="train", **options)  # type: ignore[arg-type]


def _state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, b[k]) for k, v in a.items())


class _List:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_learns_the_task_and_ends_in_eval_mode(optimizer: str) -> None:
    rate = 0.05 if optimizer == "sgd" else 0.01
    model = _net()
    chosen = replace(SETTINGS, epochs=8, learning_rate=rate, optimizer=optimizer)  # type: ignore[arg-type]
    result = _fit(model, chosen, validation=_task(60, seed=1))
    assert not model.training
    assert result.epochs[-1].loss < result.epochs[0].loss / 2
    inputs, labels = _task(60, seed=2)
    assert accuracy_of(model, torch.as_tensor(inputs), torch.as_tensor(labels)) > 0.9


def test_images_and_weights_are_channels_last_while_they_are_trained() -> None:
    model = _net()
    seen: list[bool] = []

    def look(layer: nn.Conv2d, arguments: tuple[Tensor]) -> None:
        seen.extend(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (*arguments, layer.weight))

    hook = model.stem.register_forward_pre_hook(look)
    _fit(model)
    hook.remove()
    assert seen == [True] * 2 * 18
    assert model.stem.weight.is_contiguous()


def test_same_seed_gives_the_same_weights_and_another_seed_does_not() -> None:
    states = []
    for seed in (1, 1, 2):
        model = _net()
        _fit(model, replace(SETTINGS, seed=seed, augment=_noise))
        states.append(_state(model))
    assert _same(states[0], states[1])
    assert not _same(states[0], states[2])


def _noise(inputs: Tensor, generator: torch.Generator) -> Tensor:
    return inputs + 0.1 * torch.randn(inputs.shape, generator=generator)


def test_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    _fit(_net())
    assert torch.equal(before, torch.random.get_rng_state())


def test_weights_of_the_best_validation_epoch_are_restored() -> None:
    model = _net()
    validation = _task(60, seed=1)
    result = _fit(model, replace(SETTINGS, epochs=4, learning_rate=0.3), validation=validation)
    accuracies = [e.validation_accuracy for e in result.epochs]
    assert result.best_epoch == max(i for i, a in enumerate(accuracies) if a == max(accuracies))
    inputs, labels = (torch.as_tensor(v) for v in validation)
    assert accuracy_of(model, inputs, labels) == pytest.approx(max(accuracies), abs=0.02)


def test_zero_epochs_change_nothing() -> None:
    model = _net()
    before = _state(model)
    result = _fit(model, replace(SETTINGS, epochs=0))
    assert result == FitResult(epochs=(), best_epoch=None)
    assert _same(before, _state(model))


def test_events_tell_start_batches_and_end() -> None:
    reporter = _List()
    fit_(_net(), *_task(), SETTINGS, reporter=reporter, stage="recover", subject="half")
    # 90 examples in batches of 16 are 6 batches, the last of 10.
    assert reporter.events[0] == StageStarted(stage="recover", subject="half", total=18, unit="batches")
    done = [e.done for e in reporter.events if isinstance(e, StageProgress)]
    assert done == sorted(done)
    assert done[-1] == 18
    assert isinstance(reporter.events[-1], StageFinished)
    assert "3 epochs" in reporter.events[-1].summary


def test_last_batch_of_one_example_is_left_out() -> None:
    inputs, labels = _task(33)
    reporter = _List()
    fit_(_net(), inputs, labels, SETTINGS, reporter=reporter, stage="train")
    assert isinstance(reporter.events[0], StageStarted)
    assert reporter.events[0].total == 3 * 2


def test_loss_that_is_not_finite_names_epoch_and_batch() -> None:
    calls = 0

    def broken(outputs: Tensor, labels: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return functional.cross_entropy(outputs, labels) * (float("nan") if calls == 8 else 1.0)

    with pytest.raises(BuildError, match="epoch 2, batch 2") as caught:
        _fit(_net(), replace(SETTINGS, loss=broken))
    assert caught.value.facts == {"epoch": 2, "batch": 2}


def test_batch_without_a_label_that_counts_is_told_and_changes_no_weight() -> None:
    model, void = nn.Conv2d(3, 3, 1), np.full((90, 8, 8), VOID)
    before = _state(model)
    with pytest.raises(BuildError, match=r"the loss is nan in epoch 1, batch 1; all class indices .* are -100 there"):
        fit_(model, _task()[0], void, SETTINGS, reporter=NullReporter(), stage="train")
    assert _same(before, _state(model))


def test_after_step_runs_after_each_step() -> None:
    calls: list[int] = []
    _fit(_net(), after_step=lambda: calls.append(1))
    assert len(calls) == 18


def test_teacher_alone_teaches_and_is_left_alone() -> None:
    teacher, student = _net(0), _net(1)
    _fit(teacher, replace(SETTINGS, epochs=8))
    before = _state(teacher)
    inputs, labels = _task()
    wrong = (labels + 1) % 3
    for augment in (None, _noise):
        learner = copy.deepcopy(student)
        chosen = replace(SETTINGS, epochs=8, augment=augment, distillation=Distillation(teacher=teacher, weight=1.0))
        fit_(learner, inputs, wrong, chosen, reporter=NullReporter(), stage="train")
        assert accuracy_of(learner, torch.as_tensor(inputs), torch.as_tensor(labels)) > 0.9
    assert _same(before, _state(teacher))


def test_bf16_comes_close_to_float32() -> None:
    model = _net()
    result = _fit(model, replace(SETTINGS, epochs=6, bf16=True), validation=_task(60, seed=1))
    assert max(e.validation_accuracy or 0 for e in result.epochs) > 0.9
    assert model.stem.weight.dtype == torch.float32


@pytest.mark.parametrize(("examples", "labels"), [(0, 0), (4, 3)])
def test_unusable_data_is_told(examples: int, labels: int) -> None:
    data = np.zeros((examples, 3, 8, 8), np.float32), np.zeros(labels, np.int64)
    with pytest.raises(InputError, match=f"got {examples} and {labels}"):
        fit_(_net(), *data, SETTINGS, reporter=NullReporter(), stage="train")


class _Falls:
    """A validation that is best in its second epoch, and never as good again."""

    def __init__(self) -> None:
        self.values = iter((0.5, 0.9, 0.7, 0.9, 0.3, 0.2))
        self.seen: list[Tensor] = []

    def __call__(self, model: nn.Module) -> float:
        self.seen.append(model.stem.weight.detach().clone())
        return next(self.values)

    def told(self, quality: float) -> str:
        return f"quality {quality:.1f}"


def test_training_stops_when_patience_ends_and_keeps_the_best() -> None:
    model, validate, reporter = _net(), _Falls(), _List()
    chosen = replace(SETTINGS, epochs=6, patience_epochs=3)
    result = fit_(model, *_task(), chosen, reporter=reporter, stage="train", validate=validate)
    # The fourth equals the second: it is kept as the last of the best, but it is no progress.
    assert [e.validation_accuracy for e in result.epochs] == [0.5, 0.9, 0.7, 0.9, 0.3]
    assert result.best_epoch == 3
    assert torch.equal(model.stem.weight, validate.seen[3])
    assert isinstance(reporter.events[-1], StageFinished)
    assert "5 epochs" in reporter.events[-1].summary
    assert "best validation quality 0.9" in reporter.events[-1].summary


class _Said:
    """A validation that says what it is told to."""

    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def __call__(self, model: nn.Module) -> float:
        return next(self.values)

    def told(self, quality: float) -> str:
        return f"quality {quality:.1f}"


@pytest.mark.parametrize(
    ("values", "best", "trained"),
    [((0.8, 0.5, 0.7), None, 2), ((0.8, 0.5, 0.8), 1, 2), ((0.1, 0.5, 0.3), 0, 2), ((0.8, 0.7, 0.6, 0.9), None, 2)],
    ids=["training hurts", "equals the start", "helps", "patience ends"],
)
def test_weights_before_the_first_epoch_are_kept_where_no_epoch_is_as_good(
    values: tuple[float, ...], best: int | None, trained: int
) -> None:
    model, reporter = _net(), _List()
    before = _state(model)
    settings = replace(SETTINGS, epochs=len(values) - 1, patience_epochs=2)
    result = fit_(
        model, *_task(), settings, reporter=reporter, stage="recover", validate=_Said(*values), may_keep_start=True
    )
    assert (result.start, result.best_epoch, len(result.epochs)) == (values[0], best, trained)
    assert _same(before, _state(model)) == (best is None)
    assert isinstance(reporter.events[-1], StageFinished)
    told = reporter.events[-1].summary.endswith("epoch 0 is kept, before any training: quality 0.8")
    assert told == (best is None)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_masked_weights_stay_zero_whatever_momentum_and_decay_do(optimizer: str) -> None:
    model = _net()
    masks = WeightMasks.unstructured(model, find_maskable(model, torch.zeros(1, 3, 8, 8)), 0.8)
    seen: list[int] = []

    def after_step() -> None:
        masks.apply_()
        masks.verify()
        seen.append(1)

    masks.apply_()
    chosen = replace(SETTINGS, optimizer=optimizer, momentum=0.95, weight_decay=0.1)  # type: ignore[arg-type]
    _fit(model, chosen, after_step=after_step)
    masks.verify()
    assert len(seen) == 18


def test_gradient_is_clipped_to_its_norm_and_not_at_all_with_0() -> None:
    def moved(clip_norm: float) -> float:
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
        nn.init.zeros_(model[1].weight)
        inputs, labels = _task(16)
        # One step of plain gradient descent: the weights move by the clipped gradient.
        chosen = FitSettings(
            epochs=1, learning_rate=1.0, loss=functional.cross_entropy, batch_size=16, momentum=0, weight_decay=0,
            clip_norm=clip_norm,
        )  # fmt: skip
        bias = model[1].bias.detach().clone()
        fit_(model, 100 * inputs, labels, chosen, reporter=NullReporter(), stage="train")
        moves = torch.cat([model[1].weight.detach().flatten(), model[1].bias.detach() - bias])
        return float(moves.norm())

    assert moved(0.25) == pytest.approx(0.25, rel=1e-4)
    assert moved(0.0) > 1.0


def test_training_that_is_rewound_takes_the_rates_that_were_left() -> None:
    def rates(schedule: RateSchedule, epochs: int) -> list[float]:
        """Of each step: with this loss the bias moves by the rate itself."""
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
        seen = [float(model[1].bias.detach())]
        chosen = FitSettings(
            epochs=epochs, learning_rate=0.5, loss=lambda x, _: x.mean(), batch_size=16, momentum=0, weight_decay=0,
            clip_norm=0, schedule=schedule,
        )  # fmt: skip
        fit_(
            model, *_task(), chosen, reporter=NullReporter(), stage="train",
            after_step=lambda: seen.append(float(model[1].bias.detach())),
        )  # fmt: skip
        return [a - b for a, b in itertools.pairwise(seen)]

    whole, rest = rates(RateSchedule(), 4), rates(RateSchedule(start=0.25), 3)
    assert rest == pytest.approx(whole[6:], abs=1e-5)
    # Of 24 steps, one of them warm-up: the seventh is the sixth of 24 parts towards 0, the last the twenty-third.
    assert rest[0] == pytest.approx(0.25 * (1 + math.cos(math.pi * 6 / 24)), abs=1e-5)
    assert rest[-1] == pytest.approx(0.25 * (1 + math.cos(math.pi * 23 / 24)), abs=1e-5)


def test_each_training_begins_without_the_momentum_of_the_one_before() -> None:
    # With this loss the gradient of the bias is 1 at every step.
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 1))
    chosen = replace(
        SETTINGS, epochs=1, learning_rate=0.5, loss=lambda x, _: x.mean(), clip_norm=0,
        schedule=RateSchedule(kind="constant"),
    )  # fmt: skip
    seen: list[float] = []
    for _ in range(2):
        seen.append(float(model[1].bias.detach()))
        _fit(model, chosen, after_step=lambda: seen.append(float(model[1].bias.detach())))
    first, second = ([a - b for a, b in itertools.pairwise(bias)] for bias in (seen[:7], seen[7:]))
    assert second == pytest.approx(first, abs=1e-5)
    # Nesterov's first two steps: of 1 and of 1.9 times the gradient beside the momentum of both.
    assert first[:2] == pytest.approx([0.5 * (1 + 0.9), 0.5 * (1 + 0.9 * 1.9)], abs=1e-5)


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\nmodel name : amx_bf16\n", False),
    ],
)
def test_bf16_is_told_from_the_cpu_flags(tmp_path: Path, text: str, fast: bool) -> None:  # noqa: FBT001
    (tmp_path / "cpuinfo").write_text(text)
    assert bf16_is_fast(tmp_path / "cpuinfo") is fast
    assert bf16_is_fast(tmp_path / "missing") is False
