"""Writing a file over SFTP without waiting for each confirmation."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import paramiko
from paramiko.sftp import CMD_STATUS, CMD_WRITE, int64

from edgeprune.deployment.pipelining import send_ahead
from edgeprune.deployment.watchdog import Watchdog


def upload(sftp: paramiko.SFTPClient, source: Path, destination: str, offset: int, watchdog: Watchdog) -> None:
    """Write the rest of a file; OSError without a number where the server says `Failure`."""
    with source.open("rb") as reader, sftp.open(destination, "r+b" if offset else "wb") as writer:
        reader.seek(offset)
        _Upload(sftp, writer.handle, watchdog).write(reader, offset)
    size_bytes = sftp.stat(destination).st_size
    if size_bytes != source.stat().st_size:
        raise OSError(f"{size_bytes} of {source.stat().st_size} bytes arrived")


class _Upload:
    """Pipelined writes. paramiko's own keep 100 requests back, then wait for all of them before the next."""

    def __init__(self, sftp: Any, handle: object, watchdog: Watchdog) -> None:  # noqa: ANN401 - private parts are used
        self._sftp = sftp
        self._handle = handle
        self._watchdog = watchdog
        self._refusal: OSError | None = None

    def write(self, reader: IO[bytes], offset: int) -> None:
        channel = self._sftp.get_channel()
        send_ahead(reader, offset, send=self._send, settle=self._settle, answered=channel.recv_ready)

    def _send(self, offset: int, piece: bytes) -> int:
        number: int = self._sftp._async_request(self, CMD_WRITE, self._handle, int64(offset), piece)  # noqa: SLF001
        self._watchdog.touch()
        return number

    def _settle(self, _number: int) -> None:
        """Take one answer, of whichever request; there are as many as requests."""
        self._sftp._read_response()  # noqa: SLF001
        self._watchdog.touch()
        if self._refusal is not None:
            raise self._refusal

    def _async_response(self, kind: int, message: paramiko.Message, _number: int) -> None:
        """Called by paramiko with each answer."""
        if kind != CMD_STATUS:
            self._refusal = OSError(f"unexpected answer {kind}")
            return
        try:
            self._sftp._convert_status(message)  # noqa: SLF001
        except OSError as error:
            self._refusal = self._refusal or error
