"""The state of one training in one process, and the passes over the data."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from edgeprune.data.parts import mapped, outputs_of
from edgeprune.data.splits import VOID
from edgeprune.errors import BuildError
from edgeprune.events import Reporter, StageProgress
from edgeprune.recovery.features import TappedStudent
from edgeprune.recovery.job import Job
from edgeprune.recovery.losses import all_void, counted_labels, no_loss
from edgeprune.recovery.settings import FitSettings
from edgeprune.recovery.shared_norms import SharedNorms, greatest_of_workers
from edgeprune.recovery.teaching import Teaching

_REPORT_EVERY_S = 0.25
_IMAGES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """A worker's part of a batch.

    Attributes:
        part: of the batch.
        weight: of its mean over examples, in the mean over workers.
        label_weight: of its mean over labels, as a multiple of that: the labels that count are not the same number in
            each example. 0 where it has none of them.
    """

    part: slice
    weight: float
    label_weight: float


class Session:
    """Data, optimizer, generator and step count of a training.

    Of several workers each takes an equal share of every batch; order and augmentation are drawn for the whole batch,
    so that they are those of one process.

    Attributes:
        net: what is trained: the model, or the model with the adapters of its features.
        optimizer: fresh.
        generator: of order and augmentation.
        rounding: in the model's forward pass, until `close`.
    """

    def __init__(self, job: Job, fabric: Fabric) -> None:
        self._job, self._settings, self._fabric = job, job.settings, fabric
        self._format = torch.channels_last if job.inputs.dim() == _IMAGES else torch.preserve_format
        job.model.to(memory_format=self._format)  # type: ignore[call-overload]
        self._teaching = _teaching_of(job)
        self.net = job.model
        if self._teaching is not None:
            self.net = self._teaching.tapped(job.model, job.inputs[:1], job.settings.seed)
        self.optimizer = _optimizer(self.net, job.settings)
        self.generator = torch.Generator().manual_seed(job.settings.seed)
        self._step = 0
        is_shared = fabric.world_size > 1
        self._norms = SharedNorms(job.model) if is_shared else None
        rounding = job.settings.rounding
        self.rounding = rounding(job.model, greatest_of_workers if is_shared else None) if rounding else None
        # The optimizer itself is stepped: the wrapper around it does nothing more on a CPU.
        self._wrapped, _ = fabric.setup(self.net, self.optimizer)

    def skip_to(self, epoch: int) -> None:
        """Go on with an epoch as if the ones before it had been run here."""
        self._step = epoch * self._job.batches_per_epoch

    def run_epoch(self, epoch: int, reporter: Reporter) -> float:
        """One pass over the data; the mean loss.

        Raises:
            BuildError: the loss is no longer finite; the message has epoch and batch.
        """
        self._wrapped.train()
        progress = _Progress(reporter, self._job)
        losses = 0.0
        for number, chosen in enumerate(self._batches()):
            loss = self._train_on(chosen)
            if not math.isfinite(loss):
                raise BuildError(
                    f"training: the loss is {loss} in epoch {epoch + 1}, batch {number + 1}; {self._advice(chosen)}",
                    epoch=epoch + 1,
                    batch=number + 1,
                )
            losses += loss
            progress.tell(self._step, loss, always=number + 1 == self._job.batches_per_epoch)
        return float(self._mean_of_workers(torch.tensor(losses / self._job.batches_per_epoch, dtype=torch.float64)))

    def average_buffers_(self) -> None:
        """Give all workers the mean of their running statistics: those of layers that saw their worker's share only."""
        if self._fabric.world_size == 1:
            return
        for buffer in self._job.model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(self._mean_of_workers(buffer))

    def close(self) -> None:
        """Leave the model in eval mode, in its usual memory layout and without hooks."""
        if isinstance(self.net, TappedStudent):
            self.net.close()
        for changed in (self._norms, self.rounding):
            if changed is not None:
                changed.close()
        self._job.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self._job.model.eval()

    def _mean_of_workers(self, value: Tensor) -> Tensor:
        if self._fabric.world_size == 1:
            return value
        return cast("Tensor", self._fabric.all_reduce(value.contiguous(), reduce_op="mean"))

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self._job.inputs), generator=self.generator)
        yield from torch.split(order, self._settings.batch_size)[: self._job.batches_per_epoch]

    def _train_on(self, chosen: Tensor) -> float:
        settings = self._settings
        share = self._share(chosen)
        if settings.augment is not None:
            batch = settings.augment(self._job.inputs[chosen], self.generator)[share.part]
            chosen = chosen[share.part]
        else:
            chosen = chosen[share.part]
            batch = self._job.inputs[chosen]
        batch = batch.contiguous(memory_format=self._format)
        loss = self._loss(batch, chosen, share.label_weight) * share.weight
        if not bool(loss.isfinite()):
            return float(loss.detach())  # Without a step: the weights stay as they were.
        rate = settings.learning_rate * settings.schedule.factor(
            self._step, settings.epochs * self._job.batches_per_epoch
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), settings.clip_norm)
        self.optimizer.step()
        if self._job.after_step is not None:
            self._job.after_step()
        self._step += 1
        return float(loss.detach())

    def _advice(self, chosen: Tensor) -> str:
        """What may help where the loss of a batch is not finite."""
        ours = chosen[self._share(chosen).part]
        if all_void(mapped(lambda part: part[ours], self._job.labels)):
            return f"all class indices of a label array are {VOID} there, and do not count: let the loss be 0 of them"
        return f"a lower learning rate than {self._settings.learning_rate} may help"

    def _share(self, chosen: Tensor) -> _Share:
        """This worker's part of a batch, such that the mean over workers is the mean over the batch.

        A batch with less than two examples for each is taken whole by all: the outcome is the same.
        """
        rank, workers, examples = self._fabric.global_rank, self._fabric.world_size, len(chosen)
        is_shared = examples >= 2 * workers
        if self._norms is not None:
            self._norms.is_shared = is_shared
        if not is_shared or workers == 1:
            return _Share(part=slice(None), weight=1.0, label_weight=1.0)
        first, last = (examples * part // workers for part in (rank, rank + 1))
        counted = self._counted[chosen]
        ours, all_there = (int(part.sum()) for part in (counted[first:last], counted))
        return _Share(
            part=slice(first, last),
            weight=(last - first) * workers / examples,
            label_weight=ours * examples / (all_there * (last - first)) if all_there else 1.0,
        )

    @cached_property
    def _counted(self) -> Tensor:
        """How many labels of each example the loss is of: known to all workers, who have all labels."""
        return counted_labels(self._settings.loss, self._job.labels)

    def _loss(self, batch: Tensor, chosen: Tensor, label_weight: float) -> Tensor:
        settings = self._settings
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
            found = self._wrapped(batch)
        returned, features = found if isinstance(self.net, TappedStudent) else (found, ())
        outputs = outputs_of(returned)
        if label_weight:
            hard = settings.loss(outputs, mapped(lambda part: part[chosen], self._job.labels)) * label_weight
        else:
            hard = no_loss(outputs)
        if self._teaching is None:
            return hard
        return self._teaching.loss(hard, outputs, features, batch, chosen)


class _Progress:
    """Tells of batches a few times a second."""

    def __init__(self, reporter: Reporter, job: Job) -> None:
        self._reporter, self._job = reporter, job
        self._told = 0.0

    def tell(self, done: int, loss: float, *, always: bool) -> None:
        now = time.monotonic()
        if always or now - self._told >= _REPORT_EVERY_S:
            self._told = now
            event = StageProgress(
                stage=self._job.stage, subject=self._job.subject, done=done, detail=f"loss {loss:.3f}"
            )
            self._reporter.emit(event)


def _teaching_of(job: Job) -> Teaching | None:
    """None where there is no teacher, or it has no say."""
    distillation = job.settings.distillation
    if distillation is None or not distillation.is_active:
        return None
    return Teaching(distillation, job.model, job.inputs[:1], soft_labels=job.soft_labels, bf16=job.settings.bf16)


def _optimizer(net: nn.Module, settings: FitSettings) -> torch.optim.Optimizer:
    trained = [p for p in net.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if settings.optimizer == "sgd":
        nesterov = settings.momentum > 0
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)
