"""A training's epochs in one process: run, judged, kept."""

from __future__ import annotations

import time

import torch
from lightning_fabric import Fabric

from edgeprune.events import Noted, Reporter, StageFinished, StageStarted
from edgeprune.recovery.checkpoint import Kept, copy_of_state, identity_of, read_checkpoint_, write_checkpoint
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
            done = _run(fabric, job, session, identity, reporter)
        finally:
            session.close()
    if done.best:
        job.model.load_state_dict(done.best)
    seconds = time.perf_counter() - start
    reporter.emit(StageFinished(stage=job.stage, subject=job.subject, summary=_summary(done, job), seconds=seconds))
    return FitResult(epochs=tuple(done.epochs), best_epoch=best_epoch(done.epochs, done.start), start=done.start)


def best_epoch(epochs: list[EpochResult], start: float | None = None) -> int | None:
    """The one with the best validation, of equal ones the last; without validation the last of all.

    None where none is as good as the start, or there is none.
    """
    judged = [(e.validation_accuracy, number) for number, e in enumerate(epochs) if e.validation_accuracy is not None]
    if not judged:
        return len(epochs) - 1 if epochs else None
    value, number = max(judged)
    return None if start is not None and value < start else number


def is_exhausted(epochs: list[EpochResult], patience_epochs: int | None, start: float | None = None) -> bool:
    """Whether so many epochs in a row, the last ones, were no better than the best before them, or than the start."""
    accuracies = [e.validation_accuracy for e in epochs if e.validation_accuracy is not None]
    if patience_epochs is None or not accuracies:
        return False
    if start is not None:
        accuracies.insert(0, start)
    return len(accuracies) - 1 - accuracies.index(max(accuracies)) >= patience_epochs


def _run(fabric: Fabric, job: Job, session: Session, identity: str, reporter: Reporter) -> Kept:
    """All epochs that are still to do, and the best weights (none without validation)."""
    kept = read_checkpoint_(job.checkpoint, identity, session) if job.checkpoint else None
    if kept is None:
        kept = _begun(fabric, job)
    else:
        done = f"{len(kept.epochs)} of {job.settings.epochs} epochs kept"
        reporter.emit(Noted(message=f"{job.subject or job.stage}: {done}"))
    for epoch in range(len(kept.epochs), job.settings.epochs):
        if is_exhausted(kept.epochs, job.settings.patience_epochs, kept.start):
            break
        began = time.perf_counter()
        if fabric.global_rank:
            # Workers must not drop out the same units; by the epoch, so that a resumed one draws alike.
            torch.manual_seed(job.settings.seed + _RANK_STRIDE * fabric.global_rank + epoch)
        loss = session.run_epoch(epoch, reporter)
        session.average_buffers_()
        value = _validated(fabric, job)
        kept.epochs.append(EpochResult(loss=loss, validation_accuracy=value, seconds=time.perf_counter() - began))
        if value is not None and best_epoch(kept.epochs, kept.start) == epoch:
            kept.best = copy_of_state(job.model)
        if job.checkpoint is not None and fabric.is_global_zero:
            write_checkpoint(job.checkpoint, identity, session, kept)
    return kept


def _begun(fabric: Fabric, job: Job) -> Kept:
    """Before the first epoch: the weights to fall back on, where they may be kept."""
    if not job.may_keep_start or job.validate is None:
        return Kept()
    return Kept(best=copy_of_state(job.model), start=_validated(fabric, job))


def _validated(fabric: Fabric, job: Job) -> float | None:
    """By the first worker, for all."""
    if job.validate is None:
        return None
    value = job.validate(job.model) if fabric.is_global_zero else 0.0
    return fabric.broadcast(value)


def _summary(done: Kept, job: Job) -> str:
    trained = f"{len(done.epochs)} epochs, loss {done.epochs[-1].loss:.3f}"
    qualities = [e.validation_accuracy for e in done.epochs if e.validation_accuracy is not None]
    if job.validate is None or not qualities:
        return trained
    best = f"{trained}, best validation {job.validate.told(max(qualities))}"
    if best_epoch(done.epochs, done.start) is None and done.start is not None:
        return f"{best}; epoch 0 is kept, before any training: {job.validate.told(done.start)}"
    return best
