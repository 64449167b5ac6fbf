"""Files on the device, stored by content: sent once, checked there, visible only when whole."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeprune.errors import DeployError
from edgeprune.protocols import CommandResult, Connection

_COMMAND_TIMEOUT_S = 60.0
# Of a slow device's disk, when a hash is taken there.
_HASH_BYTES_PER_S = 5_000_000


def install_agent(connection: Connection, python: str, work_folder: str, agent_bytes: bytes, digest: str) -> str:
    """Put the agent on the device, unless it is there already, and return its path there.

    Args:
        connection: to the device.
        python: the interpreter there.
        work_folder: on the device.
        agent_bytes: the zip file that the interpreter runs.
        digest: its sha256, in hex.

    Raises:
        DeployError: no such interpreter, or the files cannot be written there.
    """
    path = f"{work_folder}/agent-{digest[:16]}.pyz"
    if _has(connection, [python, path], path, digest, len(agent_bytes)):
        return path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "agent.pyz"
        source.write_bytes(agent_bytes)
        part = _part_name(path)
        connection.put(source, part)
    # It checks itself: cut short it would not even start, and a zip file has checksums of its own.
    _receive(connection, [python, part], (part, path), digest, len(agent_bytes))
    return path


def ensure_files(
    connection: Connection,
    python: str,
    agent_path: str,
    work_folder: str,
    files: Sequence[tuple[Path, str]],
) -> str:
    """Have all files of an artifact on the device, and return their folder there.

    The folder is `<work_folder>/artifacts/<digest>`, where the digest is that of `records.artifact.Artifact`; what is
    there already with the right content is not sent again.

    Args:
        connection: to the device.
        python: the interpreter there.
        agent_path: what `install_agent` returned.
        work_folder: on the device.
        files: (local file, its sha256 in hex); the names are kept.

    Raises:
        DeployError: disk full, no permission, connection lost, or the content is not what was sent.
    """
    text = "\n".join(f"{source.name} {sha256}" for source, sha256 in files)
    folder = f"{work_folder}/artifacts/{hashlib.sha256(text.encode()).hexdigest()}"
    agent = [python, agent_path]
    for source, sha256 in files:
        path = f"{folder}/{source.name}"
        size_bytes = source.stat().st_size
        if _has(connection, agent, path, sha256, size_bytes):
            continue
        part = _part_name(path)
        connection.put(source, part)
        _receive(connection, agent, (part, path), sha256, size_bytes)
    return folder


def _part_name(path: str) -> str:
    """Two builds may send the same file at once: each has a part of its own."""
    return f"{path}.{secrets.token_hex(4)}.part"


def _has(connection: Connection, agent: list[str], path: str, sha256: str, size_bytes: int) -> bool:
    result = _run(connection, [*agent, "have", "--path", path, "--sha256", sha256], size_bytes)
    # An agent that is not there, or is cut short, cannot answer: that is a no.
    return result.returncode == 0 and _last_reply(result).get("there") is True


def _receive(connection: Connection, agent: list[str], paths: tuple[str, str], sha256: str, size_bytes: int) -> None:
    part, path = paths
    arguments = ["--part", part, "--sha256", sha256, "--size", str(size_bytes), "--to", path]
    result = _run(connection, [*agent, "receive", *arguments], size_bytes)
    if result.returncode != 0:
        reason = _last_reply(result).get("message") or result.stderr.strip()[-500:]
        raise DeployError(f"the device did not take {path}: {reason or f'exit code {result.returncode}'}")


def _run(connection: Connection, argv: list[str], size_bytes: int) -> CommandResult:
    timeout_s = _COMMAND_TIMEOUT_S + size_bytes / _HASH_BYTES_PER_S
    try:
        return connection.run(argv, timeout_s=timeout_s)
    except DeployError as error:
        if error.facts.get("program") != argv[0]:
            raise
        raise DeployError(
            f"no {argv[0]} on the device: install Python 3.8 or newer there, or name the interpreter in the "
            "device's file (python = ...)",
            program=argv[0],
        ) from error


def _last_reply(result: CommandResult) -> dict[str, Any]:
    """The last JSON line of the agent; empty where there is none."""
    lines = result.stdout.splitlines()
    try:
        reply = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}
