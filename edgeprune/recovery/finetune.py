"""Training: the dense model from scratch, and every fine-tuning after a cut."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from edgeprune.data.parts import Tensors, label_tensors, mapped, outputs_of, parts_of
from edgeprune.errors import BuildError, InputError
from edgeprune.events import Reporter, StageFinished, StageProgress, StageStarted
from edgeprune.protocols import Arrays, Validate
from edgeprune.recovery.distillation import Distillation, distillation_loss, teacher_logits
from edgeprune.recovery.losses import Loss

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

Augment = Callable[[Tensor, torch.Generator], Tensor]
_EVALUATION_BATCH = 512
_REPORT_EVERY_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FitSettings:
    """How to train.

    Attributes:
        epochs: 0 leaves the model as it is.
        learning_rate: peak of the cosine schedule, reached after a warm-up over the first twentieth of the steps.
        momentum: of SGD; not used by AdamW.
        weight_decay: on weights of two dimensions and more, not on biases and norms.
        loss: of (outputs, labels).
        augment: of (batch, generator), on the preprocessed batch; None for none.
        seed: of the order, the augmentation, and whatever the model draws (dropout).
        bf16: forward pass in bfloat16; see `bf16_is_fast`.
        distillation: a teacher to learn from as well; None for labels alone.
        clip_norm: the gradient's norm is cut to this, which keeps the first steps after a deep cut from exploding.
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
    """All epochs, and the one (from 0) whose weights the model has now; None where nothing was trained."""

    epochs: tuple[EpochResult, ...]
    best_epoch: int | None


def fit_(
    model: nn.Module,
    inputs: np.ndarray | Tensor,
    labels: Arrays | Tensors,
    settings: FitSettings,
    *,
    reporter: Reporter,
    stage: str,
    subject: str = "",
    validation: tuple[np.ndarray | Tensor, np.ndarray | Tensor] | None = None,
    validate: Validate | None = None,
    after_step: Callable[[], None] | None = None,
) -> FitResult:
    """Train a model in place, with a fresh optimizer; the model is in eval mode afterwards.

    With validation data the weights of the epoch with the best accuracy there are restored at the end (of equal ones
    the last). Never hand over test data as `validation`: the choice of an epoch would leak it. The same arguments give
    the same weights on the same machine with the same number of threads.

    Args:
        model: changed in place.
        inputs: [examples, ...], preprocessed.
        labels: [examples, ...], or a tuple of such; integers reach the loss as int64, all else as float32.
        settings: how to train.
        reporter: hears of the start, of batches a few times a second, and of the end.
        stage: name for the events.
        subject: what is trained, for the events.
        validation: inputs and classes [examples], for the accuracy.
        validate: for any other quality, in place of `validation`.
        after_step: called after each step of the optimizer, such as `WeightMasks.apply_`.

    Raises:
        BuildError: the loss is no longer finite; the message has epoch and batch.
        InputError: no examples, or not one label an example.
    """
    examples, targets = _tensors(inputs, labels)
    if validate is None and validation is not None:
        validate = _AccuracyOn(*_tensors(*validation))
    session = _Session(model, examples, targets, settings, after_step)
    start = time.perf_counter()
    total = settings.epochs * session.batches_per_epoch
    reporter.emit(StageStarted(stage=stage, subject=subject, total=total, unit="batches"))
    epochs: list[EpochResult] = []
    best: tuple[float, int, dict[str, Tensor]] | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        for epoch in range(settings.epochs):
            began = time.perf_counter()
            loss = session.run_epoch(epoch, _Progress(reporter, stage, subject))
            accuracy = validate(model) if validate is not None else None
            epochs.append(EpochResult(loss=loss, validation_accuracy=accuracy, seconds=time.perf_counter() - began))
            if accuracy is not None and (best is None or accuracy >= best[0]):
                best = (accuracy, epoch, copy.deepcopy(model.state_dict()))
    session.close()
    if best is not None:
        model.load_state_dict(best[2])
    summary = _summary(epochs, validate)
    reporter.emit(StageFinished(stage=stage, subject=subject, summary=summary, seconds=time.perf_counter() - start))
    last = settings.epochs - 1 if epochs else None
    return FitResult(epochs=tuple(epochs), best_epoch=best[1] if best is not None else last)


class _AccuracyOn:
    """Top-1 accuracy on fixed examples, as a `Validate`."""

    def __init__(self, inputs: Tensor, labels: Tensors) -> None:
        if isinstance(labels, tuple):
            raise InputError(f"training: expected one class an example to validate by, got {len(labels)} label arrays")
        self._inputs, self._labels = inputs, labels

    def __call__(self, model: nn.Module) -> float:
        return accuracy_of(model, self._inputs, self._labels)

    def told(self, quality: float) -> str:
        return f"accuracy {100 * quality:.2f} %"


@torch.no_grad()
def accuracy_of(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of examples whose largest output is their label's, in [0, 1]; in float32, and the model in eval mode."""
    model.eval()
    parts = zip(torch.split(inputs, _EVALUATION_BATCH), torch.split(labels, _EVALUATION_BATCH), strict=True)
    correct = sum(int((model(x).argmax(dim=1) == y).sum()) for x, y in parts)
    return correct / len(labels)


def bf16_is_fast(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere bfloat16 is slower than float32."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = {flag for line in text.splitlines() if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def schedule_factor(step: int, total: int) -> float:
    """Share of the peak learning rate at a step from 0: a linear rise over the first twentieth, then a cosine to 0."""
    warm_up = max(1, total // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up + 1) / max(1, total - warm_up + 1)))


class _Progress:
    """Tells of batches a few times a second."""

    def __init__(self, reporter: Reporter, stage: str, subject: str) -> None:
        self._reporter, self._stage, self._subject = reporter, stage, subject
        self._told = 0.0

    def tell(self, done: int, loss: float, *, always: bool) -> None:
        now = time.monotonic()
        if always or now - self._told >= _REPORT_EVERY_S:
            self._told = now
            detail = f"loss {loss:.3f}"
            self._reporter.emit(StageProgress(stage=self._stage, subject=self._subject, done=done, detail=detail))


class _Session:
    """The state of one training: data, optimizer, generator, step count."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        labels: Tensors,
        settings: FitSettings,
        after_step: Callable[[], None] | None,
    ) -> None:
        self._model, self._labels, self._settings, self._after_step = model, labels, settings, after_step
        self._format = torch.channels_last if inputs.dim() == 4 else torch.preserve_format  # noqa: PLR2004
        self._inputs = inputs
        if settings.epochs:
            model.to(memory_format=self._format)  # type: ignore[call-overload]
        self._optimizer = _optimizer(model, settings)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._step = 0
        self._soft: Tensor | None = None
        if settings.distillation is not None and settings.augment is None and settings.epochs:
            # Without augmentation the teacher says the same in every epoch.
            self._soft = teacher_logits(
                settings.distillation.teacher, inputs, batch_size=_EVALUATION_BATCH, bf16=settings.bf16
            )
        whole, rest = divmod(len(inputs), settings.batch_size)
        # A last batch of one example is left out: batch norm cannot learn from it.
        self.batches_per_epoch = whole + (1 if rest > 1 or whole == 0 else 0)

    def run_epoch(self, epoch: int, progress: _Progress) -> float:
        """One pass over the data; the mean loss."""
        self._model.train()
        losses = 0.0
        for number, chosen in enumerate(self._batches()):
            loss = self._train_on(chosen)
            if not math.isfinite(loss):
                raise BuildError(
                    f"training: the loss is {loss} in epoch {epoch + 1}, batch {number + 1}; a lower learning rate "
                    f"than {self._settings.learning_rate} may help",
                    epoch=epoch + 1,
                    batch=number + 1,
                )
            losses += loss
            progress.tell(self._step, loss, always=number + 1 == self.batches_per_epoch)
        return losses / self.batches_per_epoch

    def close(self) -> None:
        """Leave the model in eval mode and in its usual memory layout."""
        if self._settings.epochs:
            self._model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._model.eval()

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self._inputs), generator=self._generator)
        yield from torch.split(order, self._settings.batch_size)[: self.batches_per_epoch]

    def _train_on(self, chosen: Tensor) -> float:
        settings = self._settings
        batch, labels = self._inputs[chosen], mapped(lambda part: part[chosen], self._labels)
        if settings.augment is not None:
            batch = settings.augment(batch, self._generator)
        batch = batch.contiguous(memory_format=self._format)
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            returned = self._model(batch)
        loss = self._loss(outputs_of(returned), labels, batch, chosen)
        if not bool(loss.isfinite()):
            return float(loss.detach())  # Without a step: the weights stay as they were.
        rate = settings.learning_rate * schedule_factor(self._step, settings.epochs * self.batches_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip_norm)
        self._optimizer.step()
        if self._after_step is not None:
            self._after_step()
        self._step += 1
        return float(loss.detach())

    def _loss(self, outputs: Tensors, labels: Tensors, batch: Tensor, chosen: Tensor) -> Tensor:
        settings = self._settings
        hard = settings.loss(outputs, labels)
        distillation = settings.distillation
        if distillation is None or distillation.weight == 0:
            return hard
        if isinstance(outputs, tuple):
            raise InputError(f"training: soft labels are of one output of class scores, got {len(outputs)} outputs")
        if self._soft is not None:
            soft = self._soft[chosen]
        else:
            soft = teacher_logits(distillation.teacher, batch, batch_size=len(batch), bf16=settings.bf16)
        weight = distillation.weight
        return (1 - weight) * hard + weight * distillation_loss(outputs, soft, distillation.temperature)


def _optimizer(model: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        nesterov = settings.momentum > 0
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _tensors(inputs: np.ndarray | Tensor, labels: Arrays | Tensors) -> tuple[Tensor, Tensors]:
    examples, targets = torch.as_tensor(inputs), label_tensors(labels)
    for part in parts_of(targets):
        if len(examples) == 0 or len(examples) != len(part):
            raise InputError(f"training: expected examples and one label for each, got {len(examples)} and {len(part)}")
    return examples, targets


def _summary(epochs: list[EpochResult], validate: Validate | None) -> str:
    if not epochs:
        return "no epochs"
    qualities = [e.validation_accuracy for e in epochs if e.validation_accuracy is not None]
    best = f", best validation {validate.told(max(qualities))}" if validate is not None and qualities else ""
    return f"{len(epochs)} epochs, loss {epochs[-1].loss:.3f}{best}"
