"""The client's side of a device's Python environment; the device's is `benchmarking/agent/device/environments.py`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edgeprune.deployment.transfer import Agent, ensure_files, folder_name, last_reply
from edgeprune.deployment.wheels import Fetched
from edgeprune.errors import DeployError
from edgeprune.protocols import CommandResult
from edgeprune.records.codec import from_json
from edgeprune.records.provisioning import Interpreter
from edgeprune.schema.device import DeviceSpec
from edgeprune.units import format_mb

_COMMAND_TIMEOUT_S = 60.0
# Importing from a memory card for the first time, twice over.
_MAKE_TIMEOUT_S = 900.0
_UNPACK_BYTES_PER_S = 500_000
# What the device keeps free, too, when it unpacks: file systems round up, and byte code is written.
_SLACK = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What is on the device.

    Attributes:
        executable: the interpreter that environments are made with.
        python: the current environment's, there or not.
        digest: of the current environment; empty where there is none.
        held: names of folders of files that were sent before.
    """

    interpreter: Interpreter
    executable: str
    python: str
    digest: str
    held: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Versions that an environment's own interpreter told after importing them."""

    numpy: str
    runtimes: tuple[tuple[str, str], ...]
    before: tuple[tuple[str, str], ...] = ()


class Environments:
    """Makes environments on one device.

    Args:
        agent: on the device, started by the interpreter that environments are made with.
        device: its file.
    """

    def __init__(self, agent: Agent, device: DeviceSpec) -> None:
        self._agent = agent
        self._device = device

    def describe(self) -> Environment:
        """What wheels must fit, and what there is.

        Raises:
            DeployError: the device cannot be reached, or its agent failed.
        """
        argv = [*self._agent.argv, "environment", "describe", "--work", self._device.work_folder]
        reply = self._checked(self._agent.connection.run(argv, timeout_s=_COMMAND_TIMEOUT_S), "describe its Python")
        return Environment(
            interpreter=from_json(Interpreter, json.dumps(reply["interpreter"])),
            executable=reply["executable"],
            python=reply["python"],
            digest=reply["digest"],
            held=tuple(reply["held"]),
        )

    def works(self, python: str, runtimes: Sequence[str]) -> Imported | None:
        """Import the runtimes with an environment's interpreter; None where that fails.

        Raises:
            DeployError: the device cannot be reached.
        """
        argv = [python, self._agent.path, "environment", "check", *_named(runtimes)]
        try:
            result = self._agent.connection.run(argv, timeout_s=_MAKE_TIMEOUT_S)
        except DeployError as error:
            if error.facts.get("program") == python:
                return None
            raise
        return _imported(last_reply(result)) if result.returncode == 0 else None

    def send(self, wheels: Sequence[Fetched], held: Sequence[str], free_bytes: int) -> tuple[list[str], int]:
        """Have the wheels on the device, each sent once; returns their paths there, and how many bytes were sent.

        Raises:
            DeployError: disk full, no permission, connection lost, or the content is not what was sent.
        """
        sources = [[(f.path, f.wheel.sha256)] for f in wheels]
        missing = [f.wheel for f, s in zip(wheels, sources, strict=True) if folder_name(s) not in held]
        send_bytes = sum(wheel.size_bytes for wheel in missing)
        need_bytes = send_bytes + int(_SLACK * sum(f.unpacked_bytes for f in wheels))
        if need_bytes > free_bytes:
            raise DeployError(
                f"device {self._device.name}: disk full: wheels and environment take {format_mb(need_bytes)}, "
                f"{format_mb(free_bytes)} are free below {self._device.work_folder}; free some, or name fewer runtimes",
                needed_bytes=need_bytes,
                free_bytes=free_bytes,
            )
        agent, work = self._agent, self._device.work_folder
        folders = [ensure_files(agent.connection, agent.python, agent.path, work, source) for source in sources]
        return [f"{folder}/{f.path.name}" for folder, f in zip(folders, wheels, strict=True)], send_bytes

    def make(
        self, digest: str, runtimes: Sequence[str], wheels: Sequence[tuple[str, Fetched]], token: str,
        tell: Callable[[int], None],
    ) -> Imported:  # fmt: skip
        """Make an environment and switch to it; what fails leaves the earlier one in place.

        Args:
            digest: its identity.
            runtimes: that must be importable.
            wheels: (path on the device, the wheel).
            token: of the lease that is held.
            tell: hears how many wheels are unpacked.

        Raises:
            DeployError: with the reason: disk full, a read-only folder, an import that fails, connection lost.
        """
        timeout_s = _MAKE_TIMEOUT_S + sum(f.unpacked_bytes for _, f in wheels) / _UNPACK_BYTES_PER_S
        argv = [*self._agent.argv, "environment", "make", "--work", self._device.work_folder, "--digest", digest]
        argv += [part for path, _ in wheels for part in ("--wheel", path)]
        argv += [*_named(runtimes), "--lease", token, "--deadline-s", str(timeout_s)]
        argv += ["--lease-folder", self._device.lease_folder]

        def heard(line: str) -> None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                event = json.loads(line)
                if event["event"] == "unpacked":
                    tell(event["done"])

        result = self._agent.connection.run(argv, timeout_s=timeout_s, on_line=heard)
        return _imported(self._checked(result, "make the environment"))

    def _checked(self, result: CommandResult, doing: str) -> dict[str, Any]:
        reply = last_reply(result)
        if result.returncode != 0:
            reason = reply.get("message") or result.stderr.strip()[-500:] or f"exit code {result.returncode}"
            raise DeployError(
                f"device {self._device.name}: cannot {doing}: {reason}; nothing was changed there",
                kind=str(reply.get("kind", "")),
            )
        return reply


def _named(runtimes: Sequence[str]) -> list[str]:
    return [part for name in runtimes for part in ("--runtime", name)]


def _imported(reply: dict[str, Any]) -> Imported:
    pairs = {key: tuple((str(n), str(v)) for n, v in reply.get(key, [])) for key in ("runtimes", "before")}
    return Imported(numpy=reply["numpy"], runtimes=pairs["runtimes"], before=pairs["before"])
