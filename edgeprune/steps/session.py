"""A device that is ready: connected, with the agent on it, and its facts known."""

from __future__ import annotations

import hashlib
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.benchmarking.agent.package import agent_bytes, agent_digest
from edgeprune.benchmarking.client import AgentClient
from edgeprune.benchmarking.trip import ProfileJob, write_trip
from edgeprune.benchmarking.validity import Watch
from edgeprune.deployment.connections import connect
from edgeprune.deployment.inventory import load_device
from edgeprune.deployment.lease import TTL_S, WAIT_S, DeviceLease, LeaseStatus, lease_status
from edgeprune.deployment.transfer import Agent, ensure_files, install_agent
from edgeprune.errors import MeasurementError
from edgeprune.records.artifact import Artifact
from edgeprune.records.health import DeviceCondition
from edgeprune.records.measurement import BenchRequest, Block, DeviceFacts, MemoryProof
from edgeprune.records.paced import Pace, PacedBlock
from edgeprune.records.profiled import Profiled, ProfileRequest
from edgeprune.records.rung import Rung
from edgeprune.schema.device import DeviceSpec
from edgeprune.units import NS_PER_S, bytes_from_mb

if TYPE_CHECKING:
    import numpy as np

    from edgeprune.protocols import Arrays, Connection

_log = logging.getLogger(__name__)
FROZEN_SAMPLES = 32
"""Real examples that a benchmark cycles through: one alone would let caches learn it."""

# Deadlines that only a device in trouble passes: starting Python and a runtime, and waiting for another measurement.
_START_TIMEOUT_S = 180.0
_PATIENCE = 10.0
_SLOWEST_RUN_NS = 30 * NS_PER_S
_INFER_TIMEOUT_PER_SAMPLE_S = 30.0
_COMMAND_TIMEOUT_S = 30.0
_PROOF_RUNS = 20
# The agent's: `Fill` of `agent/device/bench.py`.
_LEAST_RUNS = 20
_COMMANDS_A_LEASE = 10
_LOAD_S = 1.0
# A block has a run before it and one in it, however long they take.
_SLOW_BLOCK_S = 0.6
_KEPT_IN_USE = 16


@dataclass(frozen=True, slots=True)
class BlockLength:
    """How many timed runs a block has.

    Attributes:
        runs: so many; exactly, where nothing else is given.
        fill_s, max_runs: more of them, until they take so long, but at most so many.
        max_s: fewer of them where they would take longer, but at least 20.
    """

    runs: int
    fill_s: float = 0.0
    max_runs: int = 0
    max_s: float = 0.0

    def longest_s(self, run_s: float) -> float:
        """Where one takes so long."""
        wanted_s = self.runs * run_s
        return max(self.fill_s, min(wanted_s, max(self.max_s, _LEAST_RUNS * run_s)) if self.max_s else wanted_s)


class DeviceSession:
    """Measures and infers on one device. Files are sent once, by their content."""

    def __init__(self, spec: DeviceSpec, connection: Connection) -> None:
        self.spec = spec
        self._connection = connection
        self._agent_path = install_agent(connection, spec.python, spec.work_folder, agent_bytes(), agent_digest())
        self._client = AgentClient(
            connection,
            python=spec.python,
            agent_path=self._agent_path,
            work_folder=spec.work_folder,
            device=f"device {spec.name}",
            lease_folder=spec.lease_folder,
        )
        self._agent = Agent(connection, spec.python, self._agent_path)
        self._lease: DeviceLease | None = None
        self._placed: dict[str, None] = {}
        self.watch = Watch()
        """Judges quick looks, each beside the fastest core of this session: one that is slow all through shows so."""
        started_s = time.monotonic()
        self.facts: DeviceFacts = self._client.probe()
        # A sign of life is a command too, and a command may wait for another one.
        self._ttl_s = max(TTL_S, _COMMANDS_A_LEASE * (time.monotonic() - started_s))

    @property
    def agent(self) -> Agent:
        """The agent there, for what is no measurement."""
        return self._agent

    def place(self, folder: Path, artifact: Artifact) -> str:
        """Send an artifact's files; returns the path there of the file to open."""
        files = [(folder / f.name, f.sha256) for f in artifact.files]
        there = self._ensure(files)
        return f"{there}/{artifact.files[0].name}"

    def place_samples(self, samples: np.ndarray) -> str:
        """Send input samples ([samples, *input shape without the batch]); returns their path there."""
        import numpy as np

        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            path = Path(folder) / "inputs.npy"
            np.save(path, samples)
            there = self._ensure([(path, hashlib.sha256(path.read_bytes()).hexdigest())])
        return f"{there}/inputs.npy"

    def block(
        self,
        rung: Rung,
        artifact_path: str,
        samples_path: str,
        runs: int | BlockLength,
        estimate_ns: float | None = None,
    ) -> Block:
        """Time one fresh process, under the lease that is held, or under one of its own.

        Args:
            rung: runtime, precision and threads.
            artifact_path: on the device, from `place`.
            samples_path: on the device, from `place_samples`.
            runs: timed ones, after the warm-up; or how long they are to take.
            estimate_ns: of one run, for the deadline; None when nothing is known yet.

        Raises:
            MeasurementError: the runtime is missing there, the process died, or its output makes no sense.
        """
        length = BlockLength(runs) if isinstance(runs, int) else runs
        run_ns = estimate_ns if estimate_ns is not None else _SLOWEST_RUN_NS
        timeout_s = _START_TIMEOUT_S + _PATIENCE * length.longest_s(run_ns / NS_PER_S)
        request = replace(
            _request(rung, length.runs), fill_s=length.fill_s, max_runs=length.max_runs, max_s=length.max_s
        )
        with self.leased() as lease, lease.quiet():
            return self._client.bench(request, artifact_path, samples_path, timeout_s=timeout_s, lease=lease.token)

    def paced_block(self, rung: Rung, artifact_path: str, samples_path: str, pace: Pace) -> PacedBlock:
        """Run one fresh process at a rate or for a time; the other arguments and errors are those of `block`."""
        timeout_s = _START_TIMEOUT_S + _PATIENCE + 2 * pace.seconds
        with self.leased() as lease, lease.quiet():
            return self._client.pace(
                _request(rung, 1), pace, artifact_path, samples_path, timeout_s=timeout_s, lease=lease.token
            )

    def prove_memory(self, rung: Rung, artifact_path: str, samples_path: str, limit_bytes: int, of: str) -> MemoryProof:
        """Run the artifact under a memory limit, where the device can impose one.

        Args:
            rung: as for `block`.
            artifact_path: as for `block`.
            samples_path: as for `block`.
            limit_bytes: to hold.
            of: `process` or `model`.

        Raises:
            MeasurementError: the device went away, is busy, or lacks the runtime.
        """
        timeout_s = _START_TIMEOUT_S + _PROOF_RUNS * _SLOWEST_RUN_NS / NS_PER_S
        request, limit = _request(rung, _PROOF_RUNS), (limit_bytes, of)
        with self.leased() as lease, lease.quiet():
            return self._client.prove_memory(
                request, limit, artifact_path, samples_path, timeout_s=timeout_s, lease=lease.token
            )

    def profile(
        self,
        request: ProfileRequest,
        jobs: Sequence[ProfileJob],
        on_block: Callable[[int], None] = lambda _: None,
        tell: Callable[[str], None] = _log.info,
    ) -> tuple[Profiled, ...]:
        """Time many artifacts in one process: one file is sent, and the rounds of all artifacts are interleaved.

        Args:
            request: runtime, threads and rounds.
            jobs: what to time.
            on_block: hears how many blocks have come, of rounds x jobs.
            tell: hears for whom we wait.

        Returns:
            One entry a job, in their order.

        Raises:
            MeasurementError: the runtime is missing there, the process died, or its output makes no sense; an
                artifact that alone is refused is told in its entry.
        """
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            path = Path(folder) / "trip.zip"
            write_trip(path, jobs)
            there = self._ensure([(path, hashlib.sha256(path.read_bytes()).hexdigest())])
        block_s = max(request.round_s, _SLOW_BLOCK_S)
        seconds = len(jobs) * (request.warmup_max_s + request.rounds * block_s + _LOAD_S)
        with self.leased(tell) as lease, lease.quiet():
            return self._client.profile(
                request,
                f"{there}/trip.zip",
                len(jobs),
                timeout_s=_START_TIMEOUT_S + _PATIENCE * seconds,
                lease=lease.token,
                on_block=on_block,
            )

    @contextmanager
    def leased(self, tell: Callable[[str], None] = _log.info, *, wait_s: float = WAIT_S) -> Iterator[DeviceLease]:
        """Be the only one who measures there; waits in turn. Inside another `leased` it is that one's.

        Args:
            tell: hears for whom we wait.
            wait_s: patience in the queue.

        Raises:
            MeasurementError: others measured there for too long.
            DeployError: the device cannot be reached.
        """
        if self._lease is not None:
            yield self._lease
            return
        uses = tuple(self._placed)
        lease_of = DeviceLease(
            self._agent, self.spec.lease_folder, uses=uses, ttl_s=self._ttl_s, wait_s=wait_s, tell=tell
        )
        with lease_of as lease:
            self._lease = lease
            try:
                yield lease
            finally:
                self._lease = None

    def condition(self) -> DeviceCondition:
        """Its clock and free memory now, and whether it can limit memory."""
        return self._client.condition()

    def lease_status(self) -> LeaseStatus:
        """Who measures there now."""
        return lease_status(self._agent, self.spec.lease_folder)

    def infer(self, rung: Rung, artifact_path: str, samples: np.ndarray) -> Arrays:
        """Run the artifact on samples there.

        Returns:
            [samples, *output shape without the batch], float32; a tuple where the artifact has several outputs.
        """
        inputs_path = self.place_samples(samples)
        outputs_path = f"{inputs_path}.{secrets.token_hex(4)}.outputs.npy"
        self._client.infer(
            rung.runtime,
            rung.precision,
            rung.threads,
            artifact_path,
            inputs_path=inputs_path,
            outputs_path=outputs_path,
            timeout_s=_START_TIMEOUT_S + _INFER_TIMEOUT_PER_SAMPLE_S * len(samples),
        )
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
            outputs = Path(folder) / "outputs.npy"
            self._connection.get(outputs_path, outputs)
            self._connection.run(["rm", "-f", outputs_path], timeout_s=_COMMAND_TIMEOUT_S)
            return _loaded(outputs)

    def require(self, runtime: str) -> None:
        """Refuse a runtime that is not on the device.

        Raises:
            MeasurementError: naming the runtime, the device and what is there.
        """
        if self.facts.runtime_version(runtime) is None:
            there = ", ".join(name for name, _ in self.facts.runtimes) or "none"
            raise MeasurementError(
                f"device {self.spec.name}: runtime {runtime!r} is not installed for {self.spec.python}; found: {there}",
                runtime=runtime,
            )

    def _ensure(self, files: list[tuple[Path, str]]) -> str:
        there = ensure_files(
            self._connection,
            self.spec.python,
            self._agent_path,
            self.spec.work_folder,
            files,
            lease_folder=self.spec.lease_folder,
            limit_bytes=bytes_from_mb(self.spec.cache_mb),
        )
        # The newest last, and not for ever: a build places hundreds.
        self._placed = {**dict(list(self._placed.items())[-_KEPT_IN_USE:]), there: None}
        return there


def _loaded(path: Path) -> Arrays:
    """What the agent saved: one array, or several in an archive, in the order in which they went in."""
    import numpy as np

    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found as archive:
        return tuple(archive[f"arr_{number}"] for number in range(len(archive.files)))


def _request(rung: Rung, runs: int) -> BenchRequest:
    return BenchRequest(runtime=rung.runtime, precision=rung.precision, threads=rung.threads, runs=runs, cpus=rung.cpus)


@contextmanager
def open_session(spec: DeviceSpec) -> Iterator[DeviceSession]:
    """Connect, install the agent, learn the facts; the connection is closed at the end.

    Raises:
        DeployError: unreachable, refused, no Python there, or the agent could not be sent.
    """
    connection = connect(spec)
    try:
        yield DeviceSession(spec, connection)
    finally:
        connection.close()


@contextmanager
def open_host_session() -> Iterator[DeviceSession]:
    """The same agent on this host: accuracy and parity are taken there."""
    with open_session(load_device("local")) as session:
        yield session
