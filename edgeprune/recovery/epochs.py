"""A training's epochs in one process: run, judged, kept."""

from __future__ import annotations

import time

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgeprune.events import Noted, Reporter, StageFinished, StageStarted
from edgeprune.recovery.checkpoint import copy_of_state, identity_of, read_checkpoint_, write_checkpoint
from edgeprune.recovery.job import Job
from edgeprune.recovery.session import Session
from edgeprune.recovery.settings import EpochResult, FitResult

_RANK_STRIDE = 1_000_003
"""Between the seeds of two workers: far more than there are epochs."""


def run_epochs_(fabric: Fabric, job: Job, reporter: Reporter) -> FitResult:
    """Train the job's model in place, this process's share of each batch; see `fit_`."""
    start = time.perf_counter()
    identity = identity_of(job) if job.checkpoint else ""
    total = job.settings.epochs * job.batches_per_epoch
    reporter.emit(StageStarted(stage=job.stage, subject=job.subject, total=total, unit="batches"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.settings.seed)
        session = Session(job, fabric)
        try:
            epochs, best = _run(fabric, job, session, identity, reporter)
        finally:
            session.close()
    if best:
        job.model.load_state_dict(best)
    seconds = time.perf_counter() - start
    reporter.emit(StageFinished(stage=job.stage, subject=job.subject, summary=_summary(epochs, job), seconds=seconds))
    return FitResult(epochs=tuple(epochs), best_epoch=best_epoch(epochs))


def best_epoch(epochs: list[EpochResult]) -> int | None:
    """The one with the best validation, of equal ones the last; without validation the last of all."""
    judged = [(e.validation_accuracy, number) for number, e in enumerate(epochs) if e.validation_accuracy is not None]
    if judged:
        return max(judged)[1]
    return len(epochs) - 1 if epochs else None


def is_exhausted(epochs: list[EpochResult], patience_epochs: int | None) -> bool:
    """Whether so many epochs in a row, the last ones, were no better than the best before them."""
    accuracies = [e.validation_accuracy for e in epochs if e.validation_accuracy is not None]
    if patience_epochs is None or not accuracies:
        return False
    return len(accuracies) - 1 - accuracies.index(max(accuracies)) >= patience_epochs


def _run(
    fabric: Fabric, job: Job, session: Session, identity: str, reporter: Reporter
) -> tuple[list[EpochResult], dict[str, Tensor]]:
    """All epochs that are still to do, and the best weights (none without validation)."""
    epochs: list[EpochResult] = []
    best: dict[str, Tensor] = {}
    kept = read_checkpoint_(job.checkpoint, identity, session) if job.checkpoint else None
    if kept is not None:
        epochs, best = list(kept.epochs), kept.best
        reporter.emit(Noted(message=f"{job.subject or job.stage}: {len(epochs)} of {job.settings.epochs} epochs kept"))
    for epoch in range(len(epochs), job.settings.epochs):
        if is_exhausted(epochs, job.settings.patience_epochs):
            break
        began = time.perf_counter()
        if fabric.global_rank:
            # Workers must not drop out the same units; by the epoch, so that a resumed one draws alike.
            torch.manual_seed(job.settings.seed + _RANK_STRIDE * fabric.global_rank + epoch)
        loss = session.run_epoch(epoch, reporter)
        session.average_buffers_()
        value = _validated(fabric, job)
        epochs.append(EpochResult(loss=loss, validation_accuracy=value, seconds=time.perf_counter() - began))
        if value is not None and best_epoch(epochs) == epoch:
            best = copy_of_state(job.model)
        if job.checkpoint is not None and fabric.is_global_zero:
            write_checkpoint(job.checkpoint, identity, session, epochs, best)
    return epochs, best


def _validated(fabric: Fabric, job: Job) -> float | None:
    """By the first worker, for all."""
    if job.validate is None:
        return None
    value = job.validate(job.model) if fabric.is_global_zero else 0.0
    return fabric.broadcast(value)


def _summary(epochs: list[EpochResult], job: Job) -> str:
    qualities = [e.validation_accuracy for e in epochs if e.validation_accuracy is not None]
    best = f", best validation {job.validate.told(max(qualities))}" if job.validate is not None and qualities else ""
    return f"{len(epochs)} epochs, loss {epochs[-1].loss:.3f}{best}"
