"""Files on the device, stored by content: sent once, gone on with when broken off, visible only when whole."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeprune.errors import DeployError
from edgeprune.protocols import CommandResult, Connection

_log = logging.getLogger(__name__)
_COMMAND_TIMEOUT_S = 60.0
_CHUNK_BYTES = 1 << 20
# Of a slow device's disk, when a hash is taken there.
_HASH_BYTES_PER_S = 5_000_000


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent on a device: the connection, and the interpreter and file that start it there."""

    connection: Connection
    python: str
    path: str

    @property
    def argv(self) -> list[str]:
        """What every command of the agent begins with."""
        return [self.python, self.path]


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
    if _look(connection, [python, path], path, digest, len(agent_bytes)).get("there") is True:
        return path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "agent.pyz"
        source.write_bytes(agent_bytes)
        # There is no agent yet that could tell two installations at once apart.
        part = f"{path}.{secrets.token_hex(4)}.part"
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
    *,
    lease_folder: str = "",
    limit_bytes: int | None = None,
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
        lease_folder: of the device's file: what a live lease uses is not removed.
        limit_bytes: that all artifacts together may take there; those not used for longest make room. None for no
            limit.

    Raises:
        DeployError: disk full, no permission, connection lost, or the content is not what was sent.
    """
    folder = f"{work_folder}/artifacts/{folder_name(files)}"
    agent = Agent(connection, python, agent_path)
    replies = [_look_for(agent, work_folder, f"{folder}/{source.name}", source, sha256) for source, sha256 in files]
    missing = [(s, h, r) for (s, h), r in zip(files, replies, strict=True) if r.get("there") is not True]
    if missing and limit_bytes is not None:
        need_bytes = sum(s.stat().st_size for s, _, _ in missing)
        _tidy(agent, work_folder, folder, lease_folder, limit_bytes - need_bytes)
    for source, sha256, reply in missing:
        part = _part(work_folder, sha256)
        offset = _begun(source, reply)
        if offset:
            connection.put(source, part, offset=offset)
        else:
            connection.put(source, part)
        _receive(connection, agent.argv, (part, f"{folder}/{source.name}"), sha256, source.stat().st_size)
    return folder


def folder_name(files: Sequence[tuple[Path, str]]) -> str:
    """What the folder of these files, (local file, its sha256 in hex), is called on every device."""
    text = "\n".join(f"{source.name} {sha256}" for source, sha256 in files)
    return hashlib.sha256(text.encode()).hexdigest()


def _part(work_folder: str, sha256: str) -> str:
    """By content: a later upload finds it, and two at once write the same bytes to the same places."""
    return f"{work_folder}/parts/{sha256}.part"


def _look_for(agent: Agent, work_folder: str, path: str, source: Path, sha256: str) -> dict[str, Any]:
    part = ["--part", _part(work_folder, sha256)]
    return _look(agent.connection, agent.argv, path, sha256, source.stat().st_size, part)


def _look(
    connection: Connection, agent: list[str], path: str, sha256: str, size_bytes: int, more: Sequence[str] = ()
) -> dict[str, Any]:
    """What the agent says of a file; nothing where it is not there, or is cut short and cannot answer."""
    result = _run(connection, [*agent, "have", "--path", path, "--sha256", sha256, *more], size_bytes)
    return last_reply(result) if result.returncode == 0 else {}


def _begun(source: Path, reply: dict[str, Any]) -> int:
    """Bytes of the file that an earlier upload brought; 0 where they are not this file's."""
    size_bytes = int(reply.get("part_bytes", 0))
    if not 0 < size_bytes <= source.stat().st_size:
        return 0
    state = hashlib.sha256()
    with source.open("rb") as stream:
        left = size_bytes
        while chunk := stream.read(min(left, _CHUNK_BYTES)):
            state.update(chunk)
            left -= len(chunk)
    return size_bytes if state.hexdigest() == reply.get("part_sha256") else 0


def _tidy(agent: Agent, work_folder: str, keep: str, lease_folder: str, limit_bytes: int) -> None:
    lease = ["--lease-folder", lease_folder] if lease_folder else []
    arguments = ["--work", work_folder, "--limit", str(max(0, limit_bytes)), "--keep", keep, *lease]
    result = _run(agent.connection, [*agent.argv, "tidy", *arguments], 0)
    if result.returncode != 0:
        # The file may fit all the same.
        _log.warning("the device could not make room: %s", last_reply(result).get("message") or result.stderr[-500:])


def _receive(connection: Connection, agent: list[str], paths: tuple[str, str], sha256: str, size_bytes: int) -> None:
    part, path = paths
    arguments = ["--part", part, "--sha256", sha256, "--size", str(size_bytes), "--to", path]
    result = _run(connection, [*agent, "receive", *arguments], size_bytes)
    if result.returncode != 0:
        reason = last_reply(result).get("message") or result.stderr.strip()[-500:]
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


def last_reply(result: CommandResult) -> dict[str, Any]:
    """The last JSON line of the agent; empty where there is none."""
    lines = result.stdout.splitlines()
    try:
        reply = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}
