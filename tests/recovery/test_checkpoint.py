"""A training that is killed goes on where it was, to the same weights."""

from __future__ import annotations

import copy
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from models import seeded
from torch import Tensor, nn
from torch.nn import functional
from trained_in_workers import Normed, noise, stripes

from edgeprune.events import Event, Noted, NullReporter, StageProgress
from edgeprune.quantization.fake_quantization import FakeQuantization
from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.finetune import Checkpoint, FitResult, FitSettings, fit_

SETTINGS = FitSettings(epochs=4, learning_rate=0.05, loss=functional.cross_entropy, batch_size=16, augment=noise)


class _KilledError(Exception):
    """Stands for the kill: nothing of the training runs after it."""


class _List:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class Dropping(Normed):
    """Draws from torch's own generator while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.dropout(x, 0.1, self.training))


def _fit(
    model: nn.Module,
    settings: FitSettings,
    checkpoint: Checkpoint | None,
    kill_at: int | None = None,
    **options: object,
) -> FitResult:
    steps = 0

    def after_step() -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            raise _KilledError

    return fit_(
        model, *stripes(), settings, stage="train", validation=stripes(30, seed=1), checkpoint=checkpoint,
        after_step=after_step, **{"reporter": NullReporter(), **options},  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    "options", [{"optimizer": "sgd"}, {"optimizer": "adamw"}, {"rounding": FakeQuantization}], ids=str
)
def test_killed_training_goes_on_to_the_same_weights(options: dict[str, Any], tmp_path: Path) -> None:
    teacher = seeded(Normed, 5)
    taught = Distillation(teacher=teacher, features=(("conv", "conv"),))
    settings = replace(SETTINGS, distillation=taught, **options)
    whole, killed = seeded(Dropping), seeded(Dropping)
    expected = _fit(whole, settings, None)
    checkpoint = Checkpoint(path=tmp_path / "a" / "train.safetensors", key="data")
    with pytest.raises(_KilledError):
        _fit(killed, settings, checkpoint, kill_at=15)  # Of six steps an epoch: in the third.
    assert not any(module._forward_hooks for module in killed.modules())
    again, reporter = seeded(Dropping), _List()
    found = _fit(again, settings, checkpoint, reporter=reporter)
    assert [replace(e, seconds=0) for e in found.epochs] == [replace(e, seconds=0) for e in expected.epochs]
    assert found.best_epoch == expected.best_epoch
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert Noted(message="train: 2 of 4 epochs kept") in reporter.events
    assert min(e.done for e in reporter.events if isinstance(e, StageProgress)) == 13


def test_finished_training_is_not_done_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(path=tmp_path / "train.safetensors")
    first, second = seeded(Normed), seeded(Normed)
    result = _fit(first, SETTINGS, checkpoint)
    assert _fit(second, SETTINGS, checkpoint, kill_at=1) == result
    assert torch.equal(first.conv.weight, second.conv.weight)


def test_weights_before_the_first_epoch_outlive_a_kill(tmp_path: Path) -> None:
    good = seeded(Normed)
    _fit(good, replace(SETTINGS, epochs=8), None)
    harmful = replace(SETTINGS, epochs=3, loss=lambda outputs, labels: functional.cross_entropy(outputs, 2 - labels))
    whole, killed, again = (copy.deepcopy(good) for _ in range(3))
    expected = _fit(whole, harmful, None, may_keep_start=True)
    assert (expected.best_epoch, expected.start) == (None, 1.0)
    checkpoint = Checkpoint(path=tmp_path / "train.safetensors")
    with pytest.raises(_KilledError):
        _fit(killed, harmful, checkpoint, kill_at=8, may_keep_start=True)
    found = _fit(again, harmful, checkpoint, may_keep_start=True)
    assert (found.best_epoch, found.start) == (None, 1.0)
    assert [e.loss for e in found.epochs] == [e.loss for e in expected.epochs]
    for name, tensor in good.state_dict().items():
        assert torch.equal(tensor, whole.state_dict()[name]), name
        assert torch.equal(tensor, again.state_dict()[name]), name


@pytest.mark.parametrize("change", ["settings", "weights", "key", "damage"])
def test_checkpoint_of_another_training_is_not_used(change: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint(path=tmp_path / "train.safetensors")
    _fit(seeded(Normed), replace(SETTINGS, epochs=1), checkpoint)
    settings, model = replace(SETTINGS, epochs=1), seeded(Normed)
    if change == "settings":
        settings = replace(settings, learning_rate=0.01)
    elif change == "weights":
        model = seeded(Normed, 1)
    elif change == "key":
        checkpoint = replace(checkpoint, key="other data")
    else:
        checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:100])
    with pytest.raises(_KilledError):
        _fit(model, settings, checkpoint, kill_at=1)


def test_weights_that_are_shared_are_kept(tmp_path: Path) -> None:
    class Tied(Normed):
        def __init__(self) -> None:
            super().__init__()
            self.other = self.head

    checkpoint = Checkpoint(path=tmp_path / "train.safetensors")
    whole, again = seeded(Tied), seeded(Tied)
    _fit(whole, SETTINGS, None)
    with pytest.raises(_KilledError):
        _fit(copy.deepcopy(again), SETTINGS, checkpoint, kill_at=10)
    _fit(again, SETTINGS, checkpoint)
    assert again.other.weight is again.head.weight
    assert torch.equal(whole.head.weight, again.head.weight)


@pytest.mark.slow
def test_training_whose_process_is_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    checkpoint = Checkpoint(path=tmp_path / "train.safetensors")
    settings = replace(SETTINGS, epochs=40)
    whole, again, reporter = seeded(Normed), seeded(Normed), _List()
    fit_(whole, *stripes(), settings, reporter=NullReporter(), stage="train")
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(checkpoint.path)])
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.path.is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    fit_(again, *stripes(), settings, reporter=reporter, stage="train", checkpoint=checkpoint)
    assert any(isinstance(event, Noted) for event in reporter.events)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


_KILLED = f"""
import sys
import time
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
torch.set_num_threads({torch.get_num_threads()})
import test_checkpoint as t
t.fit_(
    t.seeded(t.Normed), *t.stripes(), replace(t.SETTINGS, epochs=40), reporter=t.NullReporter(), stage="train",
    checkpoint=t.Checkpoint(path=Path(sys.argv[1])), after_step=lambda: time.sleep(0.05),
)
"""
