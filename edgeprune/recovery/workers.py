"""Several processes that train one model on shares of each batch: DistributedDataParallel over gloo, on this host."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

import torch
import torch.multiprocessing as processes
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor
from torch.multiprocessing.spawn import ProcessException

from edgeprune.errors import BuildError, EdgepruneError, InputError
from edgeprune.events import Event, Noted, NullReporter, Reporter
from edgeprune.recovery.epochs import run_epochs_
from edgeprune.recovery.job import Job
from edgeprune.recovery.settings import FitResult

# It tells of each process that it starts.
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

_SET_BY_LAUNCHER = ("MASTER_ADDR", "MASTER_PORT", "TORCH_CPP_LOG_LEVEL")
_LISTEN_S = 0.1
_LAST_WORDS_S = 5.0


def run_alone_(job: Job, reporter: Reporter) -> FitResult:
    """Train in this process."""
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[LightningEnvironment()])
    return run_epochs_(fabric, job, reporter)


def run_in_workers_(job: Job, reporter: Reporter) -> FitResult:
    """Train in new processes; the model here has the trained weights afterwards.

    Each worker takes an equal share of every batch, batch norms take their statistics of the whole one, the gradients
    are averaged by how many examples each share has (and labels, where some are VOID), and so the weights are those of
    one process up to rounding. Exceptions are the scale of a teacher's feature, which is that of the share, what
    dropout draws, norms with a forward pass of their own, whose running statistics are averaged after each epoch, and
    losses of one's own that are no mean over the examples, nor over class indices that are not VOID: torch's class
    weights, which it divides by, or VOID in one of several arrays of labels.

    Raises:
        InputError: the model, loss or augmentation cannot be handed to another process.
        BuildError: as for `fit_`, or a worker was killed.
    """
    count = job.settings.workers.count
    reporter.emit(Noted(message=f"{job.subject or job.stage}: {count} processes train together"))
    outcome = {name: tensor.detach().clone().share_memory_() for name, tensor in job.model.state_dict().items()}
    pipes = [processes.get_context("spawn").Pipe(duplex=False) for _ in range(count)]
    failure: Exception | None = None
    with (
        tempfile.TemporaryDirectory(prefix="edgeprune-") as folder,
        _heard([ours for ours, _ in pipes], reporter) as said,
    ):
        strategy = _LoopbackDdp(Path(folder) / "meeting")
        fabric = Fabric(accelerator="cpu", devices=count, strategy=strategy, plugins=[LightningEnvironment()])
        threads = max(1, torch.get_num_threads() // count)
        work = partial(
            _work,
            _prepared=_Prepared(job.settings.workers.prepare),  # Unpickled before the job is.
            job=job,
            outcome=outcome,
            pipes=[theirs for _, theirs in pipes],
            threads=threads,
        )
        try:
            with _environment_kept(), _none_left():
                fabric.launch(work)
        except (ProcessException, pickle.PicklingError, AttributeError, TypeError) as error:
            failure = error
    for pipe in pipes:
        for end in pipe:
            end.close()
    if failure is not None:
        raise _ours(failure, said, count) from failure
    job.model.load_state_dict(outcome)
    return next(message for message in said if isinstance(message, FitResult))


class _LoopbackDdp(DDPStrategy):
    """Workers of this host meet by a file and talk over the loopback: no port is open to the network."""

    def __init__(self, meeting: Path) -> None:
        # A model may have weights that its outputs do not depend on, such as an unused pooler.
        super().__init__(
            process_group_backend="gloo", start_method="spawn", broadcast_buffers=False, find_unused_parameters=True
        )
        self._meeting = meeting

    def setup_environment(self) -> None:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{self._meeting}", rank=self.local_rank, world_size=self.num_processes
        )
        super().setup_environment()


class _Prepared:
    """Calls a function where it is unpickled, which is before what comes behind it is."""

    def __init__(self, prepare: Callable[[], object] | None) -> None:
        self._prepare = prepare

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return _prepare, (self._prepare,)


def _prepare(prepare: Callable[[], object] | None) -> _Prepared:
    if prepare is not None:
        prepare()
    return _Prepared(prepare)


class _PipeReporter:
    """Sends events to the process that reports."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def emit(self, event: Event) -> None:
        self._pipe.send(event)


def _work(
    fabric: Fabric,
    *,
    _prepared: _Prepared,
    job: Job,
    outcome: dict[str, Tensor],
    pipes: list[Connection],
    threads: int,
) -> None:
    """One worker: its own copy of the weights; the first one reports and hands the trained weights over."""
    torch.set_num_threads(threads)
    # The new name of it is not known to the torch of the year before.
    warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
    pipe = pipes[fabric.global_rank]
    _own_tensors_(job)
    reporter: Reporter = _PipeReporter(pipe) if fabric.is_global_zero else NullReporter()
    try:
        result = run_epochs_(fabric, job, reporter)
    except EdgepruneError as error:
        pipe.send(_Refused(type(error), error.message, error.facts))
        raise
    if fabric.is_global_zero:
        for name, tensor in job.model.state_dict().items():
            outcome[name].copy_(tensor)
        pipe.send(result)
    fabric.barrier()
    torch.distributed.destroy_process_group()


def _own_tensors_(job: Job) -> None:
    """All processes have been handed the same memory; each trains in its own."""
    for tensor in (*job.model.parameters(), *job.model.buffers()):
        tensor.data = tensor.data.clone()


@dataclass(frozen=True, slots=True)
class _Refused:
    """An error of ours on its way: what its class is made from, without a traceback."""

    kind: type[EdgepruneError]
    message: str
    facts: dict[str, object]


@contextmanager
def _heard(pipes: list[Connection], reporter: Reporter) -> Iterator[list[_Refused | FitResult]]:
    """Pass the workers' events on while they work, and keep what else they say."""
    kept: list[_Refused | FitResult] = []
    done = threading.Event()

    def listen() -> None:
        while True:
            # Asked before the look: what was sent before the end is still there.
            ended = done.is_set()
            ready = wait(pipes, timeout=_LISTEN_S)
            for pipe in ready:
                message = cast("Connection", pipe).recv()
                if isinstance(message, _Refused | FitResult):
                    kept.append(message)
                else:
                    reporter.emit(message)
            if ended and not ready:
                return

    # A worker that is killed while it speaks leaves half a message, on which the thread may wait for ever.
    thread = threading.Thread(target=listen, name="training-events", daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        done.set()
        thread.join(timeout=_LAST_WORDS_S)


def _ours(failure: Exception, said: list[_Refused | FitResult], workers: int) -> Exception:
    """What went wrong, as an error of ours; one of Python's that has nothing to do with workers stays."""
    for message in said:
        if isinstance(message, _Refused):
            return message.kind(message.message, **message.facts)
    if isinstance(failure, ProcessException):
        last = str(failure).strip().splitlines()[-1]
        return BuildError(f"training in {workers} processes: worker {failure.error_index} failed: {last}")
    if "pickle" in str(failure).lower():
        return InputError(
            f"training in {workers} processes: the model, loss or augmentation cannot be handed to another process: "
            f"{failure}; define it at the top level of a module, or train with one worker"
        )
    return failure


@contextmanager
def _none_left() -> Iterator[None]:
    """End the workers where this process is interrupted: it would wait for them before it ends itself."""
    before = set(multiprocessing.active_children())
    try:
        yield
    finally:
        for worker in set(multiprocessing.active_children()) - before:
            worker.terminate()
            worker.join(timeout=_LAST_WORDS_S)


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Take back what the launcher writes into this process's environment.

    Workers inherit one thing: torch's advice about unused weights, which were looked for and not found, is not told.
    """
    before = {name: os.environ.get(name) for name in _SET_BY_LAUNCHER}
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
