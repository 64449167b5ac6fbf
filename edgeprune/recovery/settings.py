"""What a training is asked to do, and what it tells afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.losses import Loss
from edgeprune.recovery.rates import RateSchedule

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""From a preprocessed batch and a generator to the augmented batch."""


class Rounding(Protocol):
    """What rounds in a model's forward pass until it is closed, by ranges that it learns from training batches."""

    def ranges(self) -> dict[str, Tensor]:
        """What was learnt, by layer."""
        ...

    def set_ranges(self, ranges: Mapping[str, Tensor]) -> None:
        """Go on from what `ranges` told of the same model."""
        ...

    def close(self) -> None:
        """Leave the model as it was."""
        ...


RoundingOf = Callable[[nn.Module, Callable[[Tensor], Tensor] | None], Rounding]
"""From a model, and what takes the greatest of all workers' values (None for one), to the rounding in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """How many processes train together.

    Attributes:
        count: 1 trains in this process.
        prepare: called first in each other process, such as an import of what the model's class is defined in; it must
            be picklable, as the model, the loss and all else that is handed over must be.
    """

    count: int = 1
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a training keeps its state after each epoch.

    Attributes:
        path: a safetensors file, replaced whole or not at all.
        key: of all that the training depends on beside initial weights, labels and numeric settings, which are
            compared anyway: data, augmentation, loss. A file with another key is not used.
    """

    path: Path
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitSettings:
    """How to train.

    Attributes:
        epochs: 0 leaves the model as it is.
        learning_rate: peak of the schedule.
        momentum: of SGD; not used by AdamW.
        weight_decay: on weights of two dimensions and more, not on biases and norms.
        batch_size: examples a step, of all workers together.
        loss: of (outputs, labels), a mean over the examples, or over the class indices that are not VOID.
        augment: of (batch, generator), on the preprocessed batch; None for none.
        seed: of the order, the augmentation, and whatever the model draws (dropout).
        bf16: forward pass in bfloat16; see `bf16_is_fast`.
        distillation: a teacher to learn from as well; None for labels alone.
        clip_norm: the gradient's norm is cut to this, which keeps the first steps after a deep cut from exploding;
            0 for no limit.
        schedule: of the learning rate.
        patience_epochs: ends the training after so many epochs in a row that are no better on validation data than
            the best before; None trains all epochs.
        workers: processes that train together.
        rounding: in the forward pass, such as `FakeQuantization`; it must be picklable where several workers train.
            Not with `bf16`, which would add its own.
    """

    epochs: int
    learning_rate: float
    loss: Loss
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    augment: Augment | None = None
    seed: int = 0
    bf16: bool = False
    distillation: Distillation | None = None
    clip_norm: float = 5.0
    schedule: RateSchedule = field(default_factory=RateSchedule)
    patience_epochs: int | None = None
    workers: Workers = field(default_factory=Workers)
    rounding: RoundingOf | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """One epoch: mean training loss, validation accuracy in [0, 1] (None without validation data), seconds.

    Where `fit_` was given a `validate`, its value stands in the accuracy's place: the higher, the better.
    """

    loss: float
    validation_accuracy: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """How a training went.

    Attributes:
        epochs: all that were trained.
        best_epoch: the one (from 0) whose weights the model has now; None where it has those that it began with.
        start: what the model was worth before the first epoch, as validation has it; None where that was not asked.
    """

    epochs: tuple[EpochResult, ...]
    best_epoch: int | None
    start: float | None = None


def bf16_is_fast(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere bfloat16 is slower than float32."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = {flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
