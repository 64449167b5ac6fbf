"""One repetition: pin, import, load, warm up until steady, time, and tell what else happened meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import statistics
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from . import sessions
from .evidence import change_of_surroundings, difference, micro_probe_ns, snapshot, surroundings
from .memory import MemoryWatch
from .paced import Pacing
from .reply import AgentError, Replies

LOCK_WAIT_S = 30.0
_CHUNK = 200
_PROGRESS_NS = 1000000000
_SLOW_RUN_NS = 20000000
_STEADY_SPREAD = 0.03
_STEADY_WINDOWS = 3
_WINDOW_RUNS = 20
_LEAST_RUNS = 20
_WINDOW_NS = 2000000
_SLOW_WINDOW_RUNS = 5
# Samples and at least one axis of the model's input.
_MIN_NDIM = 2
_INPUT_DTYPES = ("float32", "int32", "int64")


class Warmup(NamedTuple):
    """When the warm-up ends: see `records.measurement.BenchRequest`."""

    min_runs: int
    max_runs: int
    max_s: float


class Fill(NamedTuple):
    """More runs than were asked for, until they take `seconds`, but at most `most`; 0 seconds: as many as asked for.

    Of slow ones fewer: as many as `most_s` has, but at least 20. 0: as many as asked for.
    """

    seconds: float = 0.0
    most: int = 0
    most_s: float = 0.0

    def runs(self, wanted: int, typical_ns: float) -> int:
        """How many, where one is expected to take so long."""
        a_second = 1e9 / max(typical_ns, 1.0)
        runs = max(wanted, min(self.most, int(self.seconds * a_second)))
        return max(min(wanted, _LEAST_RUNS), min(runs, int(self.most_s * a_second))) if self.most_s else runs


class Job(NamedTuple):
    """What to time. `cpus` may be empty; `pacing` takes the place of `runs`; `limit` is from `limits.run_limited`."""

    work: str
    runtime: str
    artifact: str
    precision: str
    threads: int
    runs: int
    warmup: Warmup
    cpus: Tuple[int, ...]
    inputs: str
    fill: Fill = Fill()
    pacing: Optional[Pacing] = None
    limit: Any = None


def bench(replies: Replies, job: Job) -> None:
    """Time one artifact and tell every field of `records.measurement.Block`."""
    cpus = pin(job.cpus, job.threads)
    lock = take_lock(job.work, LOCK_WAIT_S)
    try:
        _measure(replies, job, cpus)
    finally:
        os.close(lock)


def _measure(replies: Replies, job: Job, cpus: List[int]) -> None:
    samples = load_inputs(job.inputs)
    sessions.import_library(job.runtime)
    fields: Dict[str, Any] = {"cpus": cpus}
    memory = MemoryWatch()
    memory.runtime_ready()
    if job.limit is not None:
        job.limit.runtime_ready()
    start = time.perf_counter_ns()
    session = sessions.load(job.runtime, job.artifact, job.precision, job.threads)
    fields["load_ns"] = time.perf_counter_ns() - start
    memory.loaded()
    replies.emit("loaded", load_ns=fields["load_ns"])
    time_one = timed_runs(session, samples)
    gc.collect()
    gc.disable()
    # Before the warm-up, so that the first timed runs find their own code and data in the caches.
    fields["probe_before_ns"] = micro_probe_ns()
    start = time.perf_counter_ns()
    warmup_runs, steady, typical_ns = warm_up(time_one, job.warmup)
    fields.update(warmup_runs=warmup_runs, warmup_steady=steady, warmup_ns=time.perf_counter_ns() - start)
    replies.emit("warm", warmup_runs=warmup_runs, warmup_steady=steady)
    around = surroundings(cpus)
    fields["started_unix_s"] = time.time()
    before = snapshot(cpus)
    unsent: List[int] = []
    runs = job.fill.runs(job.runs, typical_ns)
    if job.pacing is None:
        unsent = _time_all(replies, time_one, runs, slow=typical_ns > _SLOW_RUN_NS)
    else:
        fields.update(job.pacing.run(replies, time_one))
    fields.update(difference(before, snapshot(cpus)))
    fields["probe_after_ns"] = micro_probe_ns()
    fields.update(change_of_surroundings(around, surroundings(cpus)))
    fields.update(memory.fields())
    _tell(replies, unsent)
    replies.emit("done", runs=runs, **fields)


def _time_all(replies: Replies, time_one: Callable[[], int], runs: int, *, slow: bool) -> List[int]:
    """Time all runs; slow ones are told about once a second, between two runs. Returns what was not told yet."""
    unsent: List[int] = []
    told = time.perf_counter_ns()
    for _ in range(runs):
        unsent.append(time_one())
        if slow and time.perf_counter_ns() - told > _PROGRESS_NS:
            _tell(replies, unsent)
            unsent = []
            told = time.perf_counter_ns()
    return unsent


def _tell(replies: Replies, samples_ns: List[int]) -> None:
    for first in range(0, len(samples_ns), _CHUNK):
        replies.emit("samples", samples_ns=samples_ns[first : first + _CHUNK])


def timed_runs(session: Any, samples: Any) -> Callable[[], int]:
    """A function that runs the next sample, with batch 1, and returns its latency in ns; samples are cycled.

    A latency is: set the input, run, read the output. Preparing the samples is done here, before.
    """
    natives = [session.prepare(samples[i : i + 1]) for i in range(len(samples))]
    run = session.run
    clock = time.perf_counter_ns
    position = 0

    def time_one() -> int:
        nonlocal position
        native = natives[position]
        position = (position + 1) % len(natives)
        start = clock()
        run(native)
        return clock() - start

    return time_one


def warm_up(time_one: Callable[[], int], limits: Warmup) -> Tuple[int, bool, float]:
    """Run until the latency is steady: the medians of the last three windows lie within 3 % of each other.

    Returns:
        The runs thrown away, whether it was steady (else a limit ended it), and the last window's median in ns.
    """
    end = time.perf_counter() + limits.max_s
    medians: List[float] = []
    window: List[int] = []
    runs = 0
    while runs < limits.max_runs and time.perf_counter() < end:
        window.append(time_one())
        runs += 1
        if _complete(window):
            medians.append(statistics.median(window))
            window = []
        if not window and runs >= limits.min_runs and _steady(medians[-_STEADY_WINDOWS:]):
            return runs, True, medians[-1]
    return runs, False, medians[-1] if medians else statistics.median(window or [0])


def _complete(window: Sequence[int]) -> bool:
    """20 runs that last 2 ms, so that a median means something; 5 are enough where a run takes 20 ms."""
    total_ns = sum(window)
    quick = len(window) >= _WINDOW_RUNS and total_ns >= _WINDOW_NS
    return quick or (len(window) >= _SLOW_WINDOW_RUNS and total_ns >= len(window) * _SLOW_RUN_NS)


def _steady(medians: Sequence[float]) -> bool:
    return len(medians) == _STEADY_WINDOWS and max(medians) <= min(medians) * (1 + _STEADY_SPREAD)


def pin(cpus: Sequence[int], threads: int) -> List[int]:
    """Pin this process, and all threads that it starts later; returns the cores it may use then.

    Args:
        cpus: the cores; empty for the last `threads` allowed ones (core 0 gets most interrupts).
        threads: of the runtime.

    Raises:
        AgentError: cores that were asked for cannot be had.
    """
    allowed = sorted(os.sched_getaffinity(0))
    # Some containers and kernels forbid it: measured as it is, and the record tells the cores.
    with contextlib.suppress(OSError, ValueError):
        os.sched_setaffinity(0, cpus or allowed[-threads:])
    got = sorted(os.sched_getaffinity(0))
    # The kernel takes a set of which it has some, and drops the rest.
    if cpus and got != sorted(cpus):
        asked, may = (",".join(map(str, some)) for some in (cpus, allowed))
        raise AgentError("cores", "cannot run on core(s) %s; this process may use %s" % (asked, may))
    return got


def take_lock(work: str, wait_s: float) -> int:
    """Wait for the right to measure on this device; the kernel gives it back when this process dies.

    Raises:
        AgentError: busy, after `wait_s`.
    """
    os.makedirs(work, exist_ok=True)
    path = os.path.join(work, "measuring.lock")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > end:
                os.close(descriptor)
                raise AgentError("busy", "another measurement holds %s since %g s" % (path, wait_s)) from error
            time.sleep(0.05)
        else:
            return descriptor


def load_inputs(path: str) -> Any:
    """The array [samples, *input shape without the batch] of an .npy file: float32, or integers such as token ids.

    Raises:
        AgentError: not_installed, where numpy is missing; io, where the file is no such array.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise AgentError("not_installed", "numpy cannot be imported: %s" % error) from error
    try:
        samples = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise AgentError("io", "%s is no array: %s" % (path, error)) from error
    if samples.dtype.name not in _INPUT_DTYPES or samples.ndim < _MIN_NDIM or not len(samples):
        shape = "%s %s" % (samples.dtype, list(samples.shape))
        raise AgentError("io", "%s: expected %s [samples, ...], got %s" % (path, " or ".join(_INPUT_DTYPES), shape))
    return samples
