"""The build host itself as a device: subprocesses and plain copies."""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from edgeprune.deployment import remote_shell
from edgeprune.deployment.streams import Stream
from edgeprune.errors import DeployError, DeviceTimeoutError
from edgeprune.files import appearing
from edgeprune.protocols import CommandResult, Connection, Connector
from edgeprune.schema.device import DeviceSpec
from edgeprune.units import format_mb, format_seconds

_READ_BYTES = 1 << 16


class LocalConnection:
    """Runs commands in the home folder, where relative paths begin, as they do over SSH."""

    def __init__(self, name: str) -> None:
        self._name = name

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> CommandResult:
        """See `protocols.Connection.run`."""
        deadline = time.monotonic() + timeout_s
        process = self._start(argv, timeout_s)
        stdout, stderr = Stream(on_line), Stream()
        try:
            if not _pump(process, stdout, stderr, deadline) or not _ended(process, deadline):
                raise DeviceTimeoutError(
                    f"device {self._name}: {argv[0]} did not end within {format_seconds(timeout_s)}"
                )
        finally:
            # Also on Ctrl-C.
            _end(process)
        return CommandResult(returncode=process.returncode, stdout=stdout.finish(), stderr=stderr.finish())

    def put(self, source: Path, destination: str, *, offset: int = 0) -> None:
        """See `protocols.Connection.put`; a whole file appears by atomic rename."""
        if not source.is_file():
            raise DeployError(f"cannot copy {source} to device {self._name}: no such file")
        with self._translated(f"write {destination}", source):
            if offset:
                _append(source, _absolute(destination), offset)
            else:
                _copy(source, _absolute(destination))

    def get(self, source: str, destination: Path) -> None:
        """See `protocols.Connection.get`."""
        with self._translated(f"read {source}", _absolute(source)):
            _copy(_absolute(source), destination)

    def close(self) -> None:
        """Nothing is held open."""

    def _start(self, argv: Sequence[str], timeout_s: float) -> subprocess.Popen[bytes]:
        if not _found(argv[0]):
            raise DeployError(f"device {self._name}: cannot start {argv[0]}: no such program", program=argv[0])
        try:
            return subprocess.Popen(
                remote_shell.wrap_local(argv, timeout_s),
                # Held open and never written: it ends with this process, and then the command is killed.
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=Path.home(),
                start_new_session=True,
            )
        except OSError as error:
            raise DeployError(
                f"device {self._name}: cannot start {argv[0]}: {error.strerror}", program=argv[0]
            ) from error

    @contextlib.contextmanager
    def _translated(self, doing: str, source: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = str(error.strerror or error)
            if error.errno == errno.ENOSPC:
                reason = f"disk full on {self._name}: needs {format_mb(source.stat().st_size)}"
            raise DeployError(f"device {self._name}: cannot {doing}: {reason}") from error


class LocalConnector:
    """Opens what needs no opening."""

    def connect(self, device: DeviceSpec) -> Connection:
        """See `protocols.Connector.connect`."""
        return LocalConnection(device.name)


def _found(program: str) -> bool:
    """Relative paths begin in the home folder."""
    return shutil.which(str(_absolute(program)) if "/" in program else program) is not None


def _pump(process: subprocess.Popen[bytes], stdout: Stream, stderr: Stream, deadline: float) -> bool:
    """Read both streams to their ends; False where the deadline comes first."""
    with selectors.DefaultSelector() as selector:
        for pipe, stream in ((process.stdout, stdout), (process.stderr, stderr)):
            assert pipe is not None  # noqa: S101 - told to Popen above; for the type checker
            selector.register(pipe, selectors.EVENT_READ, stream)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _ in selector.select(left):
                data = os.read(key.fd, _READ_BYTES)
                if data:
                    key.data.feed(data)
                else:
                    selector.unregister(key.fileobj)
    return True


def _ended(process: subprocess.Popen[bytes], deadline: float) -> bool:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process group of a command that has not ended, and close the pipes."""
    if process.returncode is None:
        # Not waited for yet, so the number cannot have gone to somebody else's group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _copy(source: Path, destination: Path) -> None:
    with appearing(destination) as partial:
        shutil.copyfile(source, partial)


def _append(source: Path, destination: Path, offset: int) -> None:
    with source.open("rb") as reader, destination.open("r+b") as writer:
        reader.seek(offset)
        writer.seek(offset)
        shutil.copyfileobj(reader, writer)


def _absolute(path: str) -> Path:
    return Path.home() / path


CONNECTOR: Final[Connector] = LocalConnector()
