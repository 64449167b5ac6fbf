"""The host's side of the agent: starts its commands on a device and turns its replies into records."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from edgeprune.errors import BuildError, DeployError, DeviceTimeoutError, EdgepruneError, MeasurementError
from edgeprune.protocols import CommandResult, Connection
from edgeprune.records.codec import from_json, to_plain
from edgeprune.records.health import DeviceCondition
from edgeprune.records.measurement import BenchRequest, Block, DeviceFacts, MemoryProof
from edgeprune.records.paced import Pace, PacedBlock
from edgeprune.records.profiled import Profiled, ProfileRequest
from edgeprune.records.rung import Precision
from edgeprune.units import format_mb, format_seconds

Record = TypeVar("Record", DeviceFacts, DeviceCondition, Block, PacedBlock)

_SCHEMA = 1
_PROBE_TIMEOUT_S = 60.0
_NOT_FOUND = 127
# A signal, an unknown signal over SSH, a signal under a shell.
_KILLED = (-9, -1, 137)
# What a memory limit may end a process by (paging without end passes the deadline), and having no limit at all.
_ABOUT_MEMORY = ("memory", "killed", "runtime", "bad_artifact", "timeout", "no_limit")
_INSTALL = {"tflite": "ai-edge-litert or tflite-runtime"}


class AgentClient:
    """Talks to the agent on one device.

    Args:
        connection: open, to the device.
        python: the interpreter there that has numpy and the runtimes.
        agent_path: where the agent is there.
        work_folder: there; it holds the last guard that keeps two measurements apart.
        device: how messages call the device.
        lease_folder: of the device's file.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        python: str,
        agent_path: str,
        work_folder: str,
        device: str = "the device",
        lease_folder: str = "",
    ) -> None:
        self._connection = connection
        self._agent = (python, agent_path)
        self._work_folder = work_folder
        self._device = device
        self._lease_folder = lease_folder

    def probe(self) -> DeviceFacts:
        """Ask for the facts of the device.

        Raises:
            DeployError: the device cannot be reached or has no such Python.
            MeasurementError: the agent failed or its answer cannot be read.
        """
        command = _Command(self._device)
        command.take(self._run(["probe", "--work", self._work_folder], command, _PROBE_TIMEOUT_S))
        return command.record(DeviceFacts, "facts")

    def condition(self) -> DeviceCondition:
        """Ask for what is of the moment; errors are those of `probe`."""
        command = _Command(self._device)
        command.take(self._run(["condition"], command, _PROBE_TIMEOUT_S))
        return command.record(DeviceCondition, "condition")

    def bench(
        self, request: BenchRequest, artifact_path: str, inputs_path: str, *, timeout_s: float, lease: str = ""
    ) -> Block:
        """Time an artifact in a fresh process.

        Args:
            request: what to time and how often.
            artifact_path: on the device.
            inputs_path: on the device: .npy, float32 [samples, *input shape without the batch].
            timeout_s: for all of it, waiting for another measurement included.
            lease: the token of the device's lease, which the agent checks before it begins; empty checks nothing.

        Raises:
            MeasurementError: whatever kept the block from being complete; samples that came before are dropped.
            DeployError: the device has no such Python.
        """
        command = self._bench(request, artifact_path, inputs_path, (), timeout_s, lease)
        # Where they are to take so long only the device knows how many; it tells with the last of them.
        expected = command.reply("done").get("runs") if request.fill_s or request.max_s else request.runs
        if len(command.samples_ns) != expected:
            raise command.failed(f"expected {expected} samples, got {len(command.samples_ns)}")
        return command.record(Block, "done", samples_ns=command.samples_ns)

    def pace(
        self,
        request: BenchRequest,
        pace: Pace,
        artifact_path: str,
        inputs_path: str,
        *,
        timeout_s: float,
        lease: str = "",
    ) -> PacedBlock:
        """Run an artifact at a rate or for a time in a fresh process; arguments and errors are those of `bench`."""
        more = ["--seconds", str(pace.seconds), "--rate", str(pace.rate_hz or 0.0), "--bucket-s", str(pace.bucket_s)]
        command = self._bench(request, artifact_path, inputs_path, more, timeout_s, lease)
        block = command.record(Block, "done", samples_ns=command.samples_ns)
        expected = sum(-(-b["runs"] // b["kept_every"]) for b in command.reply("done")["buckets"])
        if len(block.samples_ns) != expected:
            raise command.failed(f"expected {expected} samples, got {len(block.samples_ns)}")
        return command.record(PacedBlock, "done", block=to_plain(block))

    def prove_memory(
        self,
        request: BenchRequest,
        limit: tuple[int, str],
        artifact_path: str,
        inputs_path: str,
        *,
        timeout_s: float,
        lease: str = "",
    ) -> MemoryProof:
        """Run an artifact under a memory limit of so many bytes, on `process` or `model`.

        Raises:
            DeployError: as for `bench`.
            MeasurementError: the connection or the lease is lost, or the runtime is missing there.
        """
        limit_bytes, of = limit
        more = ["--memory-limit-bytes", str(limit_bytes), "--memory-limit-of", of]
        proof = {"limit_bytes": limit_bytes, "of": of, "how": "", "survived": True, "reason": ""}
        try:
            command = self._bench(request, artifact_path, inputs_path, more, timeout_s, lease)
            block = command.record(Block, "done", samples_ns=command.samples_ns)
            proof["how"] = command.reply("limited")["how"]
            peak = block.peak_bytes if of == "process" else block.model_bytes
            if peak > limit_bytes:
                reason = f"it ran, with a peak of {format_mb(peak)}: mapped files are not held back"
                proof |= {"survived": False, "reason": reason}
        except MeasurementError as error:
            if error.facts.get("kind") not in _ABOUT_MEMORY:
                raise
            proof |= {"how": error.facts.get("limited", ""), "survived": False, "reason": error.message}
        return from_json(MemoryProof, json.dumps(proof))

    def _bench(
        self,
        request: BenchRequest,
        artifact_path: str,
        inputs_path: str,
        more: Sequence[str],
        timeout_s: float,
        lease: str,
    ) -> _Command:
        model = _model_arguments(request.runtime, request.precision, request.threads, artifact_path)
        argv = ["bench", "--work", self._work_folder, *model, "--inputs", inputs_path, "--runs", str(request.runs)]
        argv += ["--fill-s", str(request.fill_s), "--max-runs", str(request.max_runs), "--max-s", str(request.max_s)]
        argv += [*_warmup_arguments(request), *more]
        return self._timed(argv, request.runtime, timeout_s, lease)

    def _timed(
        self,
        argv: list[str],
        runtime: str,
        timeout_s: float,
        lease: str,
        on_block: Callable[[int], None] = lambda _: None,
    ) -> _Command:
        """Run a command that measures."""
        if lease:
            argv += ["--lease", lease, "--lease-folder", self._lease_folder, "--deadline-s", str(timeout_s)]
        command = _Command(self._device, runtime, on_block)
        try:
            result = self._run(argv, command, timeout_s)
        except DeviceTimeoutError as error:
            raise command.failed(f"no end within {format_seconds(timeout_s)}", kind="timeout") from error
        except DeployError as error:
            if "program" in error.facts:
                raise
            raise command.failed(f"the connection broke: {error.message}") from error
        command.take(result)
        return command

    def profile(
        self,
        request: ProfileRequest,
        trip_path: str,
        artifacts: int,
        *,
        timeout_s: float,
        lease: str = "",
        on_block: Callable[[int], None] = lambda _: None,
    ) -> tuple[Profiled, ...]:
        """Time many artifacts in one fresh process.

        Args:
            request: how.
            trip_path: on the device; see `benchmarking.trip`.
            artifacts: how many are in the trip.
            timeout_s: for all of it.
            lease: as for `bench`.
            on_block: hears how many blocks have come, of rounds x artifacts.

        Returns:
            One entry an artifact, in the trip's order.

        Raises:
            MeasurementError, DeployError: as for `bench`; an artifact that alone is refused is no error.
        """
        argv = ["profile", "--work", self._work_folder, "--trip", trip_path, "--runtime", request.runtime]
        argv += ["--threads", str(request.threads), "--rounds", str(request.rounds), "--round-s", str(request.round_s)]
        argv += ["--hold-bytes", str(request.hold_bytes), *_warmup_arguments(request)]
        command = self._timed(argv, request.runtime, timeout_s, lease, on_block)
        if command.reply("done")["artifacts"] != artifacts:
            raise command.failed(f"expected {artifacts} artifacts, got {command.reply('done')['artifacts']}")
        return tuple(self._profiled(command, number, request) for number in range(artifacts))

    @staticmethod
    def _profiled(command: _Command, number: int, request: ProfileRequest) -> Profiled:
        refused = [r for r in command.repeated["refused"] if r.get("artifact") == number]
        if refused:
            return Profiled(blocks=(), refused=str(refused[0].get("message")))
        blocks = [b for b in command.repeated["block"] if b.get("artifact") == number]
        if len(blocks) != request.rounds:
            raise command.failed(f"expected {request.rounds} rounds of artifact {number}, got {len(blocks)}")
        return Profiled(blocks=tuple(command.record_of(Block, b) for b in blocks))

    def infer(
        self,
        runtime: str,
        precision: Precision,
        threads: int,
        artifact_path: str,
        *,
        inputs_path: str,
        outputs_path: str,
        timeout_s: float,
    ) -> None:
        """Run all samples and leave the first output in a file on the device.

        Args:
            runtime: the session's name.
            precision: what to compute in.
            threads: of the runtime.
            artifact_path: on the device.
            inputs_path: on the device: .npy, float32 [samples, *input shape without the batch].
            outputs_path: on the device: .npy, float32 [samples, *output shape without the batch].
            timeout_s: for all samples together.

        Raises:
            DeployError: the connection broke, the deadline passed, or the device has no such Python.
            MeasurementError: the agent failed.
        """
        model = _model_arguments(runtime, precision, threads, artifact_path)
        command = _Command(self._device, runtime)
        argv = ["infer", *model, "--inputs", inputs_path, "--outputs", outputs_path]
        command.take(self._run(argv, command, timeout_s))
        command.reply("inferred")

    def _run(self, arguments: Sequence[str], command: _Command, timeout_s: float) -> CommandResult:
        python = self._agent[0]
        try:
            result = self._connection.run([*self._agent, *arguments], timeout_s=timeout_s, on_line=command.on_line)
        except DeployError as error:
            if error.facts.get("program") != python:
                raise
            raise self._no_python() from error
        if result.returncode == _NOT_FOUND:
            raise self._no_python()
        return result

    def _no_python(self) -> DeployError:
        python = self._agent[0]
        return DeployError(
            f"no {python} on {self._device}: install Python 3.8 or newer there, or name the interpreter in the "
            "device's file (python = ...)",
            program=python,
        )


class _Command:
    """Collects the replies of one command."""

    def __init__(self, device: str, runtime: str = "", on_block: Callable[[int], None] = lambda _: None) -> None:
        self._on_block = on_block
        self._where = f"{runtime} on {device}" if runtime else device
        self._device = device
        self._runtime = runtime
        self._replies: dict[str, dict[str, Any]] = {}
        self._bad_line: str | None = None
        self.samples_ns: list[int] = []
        self.repeated: dict[str, list[dict[str, Any]]] = {"block": [], "refused": []}

    def on_line(self, line: str) -> None:
        try:
            reply = json.loads(line)
            event = reply["event"] if reply["schema"] == _SCHEMA else None
            if event == "samples":
                self.samples_ns.extend(reply["samples_ns"])
        except (ValueError, KeyError, TypeError):
            event = None
        if event is None:
            self._bad_line = line if self._bad_line is None else self._bad_line
        elif event in self.repeated:
            self.repeated[event].append(reply)
            if event == "block":
                self._on_block(len(self.repeated[event]))
        else:
            self._replies[event] = reply

    def take(self, result: CommandResult) -> None:
        """Raise what the command's end tells of."""
        if "error" in self._replies:
            raise self._agent_error(self._replies["error"])
        if result.returncode in _KILLED:
            raise self.failed("the process was killed (out of memory?)", kind="killed")
        if self._bad_line is not None:
            raise self.failed(f"the agent's answer cannot be read: {self._bad_line[:200]!r}")
        if result.returncode != 0:
            raise self.failed(f"exit code {result.returncode}: {result.stderr.strip()[-500:]}")

    def reply(self, event: str) -> dict[str, Any]:
        if event not in self._replies:
            raise self.failed(f"the agent ended without {event!r}")
        return self._replies[event]

    def record(self, kind: type[Record], event: str, **more: object) -> Record:
        """A record from the reply's fields of the same names."""
        return self.record_of(kind, {**self.reply(event), **more})

    def record_of(self, kind: type[Record], reply: dict[str, Any]) -> Record:
        """A record from the fields of one reply."""
        values = {f.name: reply[f.name] for f in fields(kind) if f.name in reply}
        try:
            return from_json(kind, json.dumps(values))
        except BuildError as error:
            raise self.failed(f"the agent's answer cannot be read: {error.message}") from error

    def failed(self, reason: str, *, kind: str = "lost") -> MeasurementError:
        dropped = f"; the {len(self.samples_ns)} samples that had come are dropped" if self._runtime else ""
        limited = self._replies.get("limited", {}).get("how", "")
        return MeasurementError(
            f"{self._where}: {reason}{dropped}", kind=kind, samples=len(self.samples_ns), limited=limited
        )

    def _agent_error(self, reply: dict[str, Any]) -> EdgepruneError:
        kind, message = str(reply.get("kind")), str(reply.get("message"))
        if kind == "not_installed":
            package = "numpy" if message.startswith("numpy") else _INSTALL.get(self._runtime, self._runtime)
            message = f"{message}; install {package} for the device's Python"
        return self.failed(message, kind=kind)


def _warmup_arguments(request: BenchRequest | ProfileRequest) -> list[str]:
    argv = ["--warmup-min-runs", str(request.warmup_min_runs), "--warmup-max-runs", str(request.warmup_max_runs)]
    argv += ["--warmup-max-s", str(request.warmup_max_s)]
    return [*argv, "--cpus", ",".join(map(str, request.cpus))] if request.cpus else argv


def _model_arguments(runtime: str, precision: Precision, threads: int, artifact_path: str) -> list[str]:
    model = ["--runtime", runtime, "--artifact", artifact_path]
    return [*model, "--precision", precision.arithmetic.value, "--threads", str(threads)]
