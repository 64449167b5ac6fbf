"""Times many artifacts in one process: the runtime starts once, and the rounds of all artifacts are interleaved.

The files come in one zip file, the trip, with `jobs.json`: a list of {"file", "precision", "shape", "follows"}. Inputs
are drawn here: latency does not depend on their values. What one artifact does in one round is a block with its own
evidence, so that the host can leave out what was disturbed, and a drift of the device falls on all artifacts alike.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import tempfile
import time
import zipfile
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

from . import sessions
from .bench import LOCK_WAIT_S, Warmup, pin, take_lock, timed_runs, warm_up
from .evidence import change_of_surroundings, difference, micro_probe_ns, snapshot, surroundings
from .memory import MemoryWatch
from .reply import AgentError, Replies

JOBS = "jobs.json"
_SAMPLES = 4
# Artifacts that are loaded at the same time: with more, rounds are far apart; with fewer, they share less of a drift.
_MOST_HELD = 64
# A block brings its own code and data into the caches before it counts.
_REWARM_NS = 1000000
_REWARM_RUNS = 3
_LEAST_RUNS = 3
_MOST_RUNS = 1000
# Runs that take this long bring their own code and data into the caches, and their medians need no three of them.
_LONG_REWARM_NS = 20000000
_LONG_BLOCK_NS = 100000000


class Trip(NamedTuple):
    """What to time, and how.

    Attributes:
        path: of the zip file.
        rounds: of every artifact.
        round_s: how long an artifact runs in each round, about.
        hold_bytes: of files; about so much is loaded at the same time.
    """

    work: str
    path: str
    runtime: str
    threads: int
    rounds: int
    round_s: float
    hold_bytes: int
    warmup: Warmup
    cpus: Tuple[int, ...]


class Loaded(NamedTuple):
    """One artifact that is ready, and what its loading and warming-up showed."""

    time_one: Callable[[], int]
    fields: Dict[str, Any]


def profile(replies: Replies, trip: Trip) -> None:
    """Time all artifacts; an artifact that cannot be run is told as `refused`, and the others go on.

    Raises:
        AgentError: busy, not_installed, memory; io, where the file is no such trip.
    """
    cpus = pin(trip.cpus, trip.threads)
    lock = take_lock(trip.work, LOCK_WAIT_S)
    # Where `tidy` looks for what a killed process left.
    parts = os.path.join(trip.work, "parts")
    os.makedirs(parts, exist_ok=True)
    folder = tempfile.mkdtemp(prefix="trip-", dir=parts)
    try:
        jobs = unpack(trip.path, folder)
        sessions.import_library(trip.runtime)
        memory = MemoryWatch()
        memory.runtime_ready()
        for batch in batches(jobs, folder, trip.hold_bytes):
            _measure(replies, trip, mixed(batch), (folder, cpus, memory))
        replies.emit("done", artifacts=len(jobs))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def unpack(path: str, folder: str) -> List[Dict[str, Any]]:
    """Unpack a trip and return its jobs.

    Raises:
        AgentError: io.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # `extractall` takes leading slashes and dots off the names.
            archive.extractall(folder)
        with open(os.path.join(folder, JOBS), encoding="utf-8") as stream:
            jobs: List[Dict[str, Any]] = json.load(stream)
        for job in jobs:
            job["file"], job["precision"], job["shape"] = str(job["file"]), str(job["precision"]), list(job["shape"])
            job["follows"] = bool(job["follows"])
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, TypeError) as error:
        raise AgentError("io", "%s is no trip: %s: %s" % (path, type(error).__name__, error)) from error
    return jobs


def batches(jobs: Sequence[Dict[str, Any]], folder: str, hold_bytes: int) -> "List[List[Tuple[int, Dict[str, Any]]]]":
    """The jobs with their numbers, in the order given, as many together as may be held at the same time.

    What follows another is held together with it, whatever that comes to.
    """
    found: List[List[Tuple[int, Dict[str, Any]]]] = []
    held = 0
    for index, job in enumerate(jobs):
        size = _size(os.path.join(folder, job["file"]))
        full = not found or held + size > hold_bytes or len(found[-1]) >= _MOST_HELD
        if full and not (found and job["follows"]):
            found.append([])
            held = 0
        found[-1].append((index, job))
        held += size
    return found


def mixed(batch: "Sequence[Tuple[int, Dict[str, Any]]]") -> "List[Tuple[int, Dict[str, Any]]]":
    """A batch in another order in each process, what is timed side by side still together.

    Where a file lies in memory hangs on what was loaded before it, and what it takes on that. In one order several
    processes have the same error: copies of a file differed by 0.09 us in the mean of five processes, now by 0.03
    (OpenVINO INT8, 10 to 25 us).
    """
    groups: List[List[Tuple[int, Dict[str, Any]]]] = []
    for index, job in batch:
        if not groups or not job["follows"]:
            groups.append([])
        groups[-1].append((index, job))
    random.shuffle(groups)
    for group in groups:
        random.shuffle(group)
    return [entry for group in groups for entry in group]


def _size(path: str) -> int:
    """Of the file and those beside it that carry its name: OpenVINO keeps the weights in one of their own."""
    stem = os.path.splitext(path)[0]
    parent = os.path.dirname(path)
    names = os.listdir(parent) if os.path.isdir(parent) else []
    paths = [os.path.join(parent, n) for n in names]
    return sum(os.path.getsize(p) for p in paths if os.path.splitext(p)[0] == stem)


def _measure(
    replies: Replies, trip: Trip, batch: "List[Tuple[int, Dict[str, Any]]]", there: "Tuple[str, List[int], MemoryWatch]"
) -> None:
    folder, cpus, memory = there
    loaded: List[Loaded] = []
    for index, job in batch:
        try:
            loaded.append(_load(trip, index, job, folder))
        except MemoryError as error:
            raise AgentError("memory", "out of memory while loading artifact %d" % index) from error
        except Exception as error:
            kind = error.kind if isinstance(error, AgentError) else "runtime"
            if kind == "memory":
                raise
            replies.emit("refused", artifact=index, kind=kind, message="%s" % error)
    memory.loaded()
    gc.collect()
    gc.disable()
    for number in range(trip.rounds):
        # Back and forth, so that no artifact always follows the same one.
        order = loaded if number % 2 == 0 else loaded[::-1]
        for block in _round(order, cpus):
            replies.emit("block", **dict(memory.fields(), **block))
    gc.enable()


def _load(trip: Trip, index: int, job: Dict[str, Any], folder: str) -> Loaded:
    import numpy as np

    path = os.path.join(folder, job["file"])
    start = time.perf_counter_ns()
    session = sessions.load(trip.runtime, path, job["precision"], trip.threads)
    load_ns = time.perf_counter_ns() - start
    shape = (_SAMPLES, *job["shape"][1:])
    samples = np.random.RandomState(0).standard_normal(shape).astype("float32")
    time_one = timed_runs(session, samples)
    start = time.perf_counter_ns()
    runs, steady, typical_ns = warm_up(time_one, trip.warmup)
    fields = {
        "artifact": index,
        "load_ns": load_ns,
        "warmup_runs": runs,
        "warmup_steady": steady,
        "warmup_ns": time.perf_counter_ns() - start,
        "runs": runs_a_round(trip.round_s * 1e9, typical_ns),
    }
    return Loaded(time_one, fields)


def runs_a_round(round_ns: float, typical_ns: float) -> int:
    """Runs that fill a round: three at least, but of slow ones as many as 0.1 s has, or one."""
    typical_ns = max(typical_ns, 1)
    least = max(1, min(_LEAST_RUNS, round(_LONG_BLOCK_NS / typical_ns)))
    return max(least, min(_MOST_RUNS, round(round_ns / typical_ns)))


def _round(order: "Sequence[Loaded]", cpus: List[int]) -> List[Dict[str, Any]]:
    """A block of each artifact; nothing is sent while they run."""
    around = surroundings(cpus)
    probe_before_ns = micro_probe_ns()
    blocks = [_block(artifact, cpus) for artifact in order]
    more = dict(change_of_surroundings(around, surroundings(cpus)))
    more.update(cpus=cpus, probe_before_ns=probe_before_ns, probe_after_ns=micro_probe_ns())
    return [dict(block, **more) for block in blocks]


def _block(artifact: Loaded, cpus: List[int]) -> Dict[str, Any]:
    time_one = artifact.time_one
    spent_ns = again = 0
    while spent_ns < _REWARM_NS or (again < _REWARM_RUNS and spent_ns < _LONG_REWARM_NS):
        spent_ns += time_one()
        again += 1
    started_unix_s = time.time()
    before = snapshot(cpus)
    samples_ns = [time_one() for _ in range(artifact.fields["runs"])]
    fields = difference(before, snapshot(cpus))
    return dict(artifact.fields, started_unix_s=started_unix_s, samples_ns=samples_ns, **fields)
